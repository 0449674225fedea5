"""Vendors of machines in one world, the inventories that name them, and what happens to their machines.

A vendor is a fake API whose servers are real machines of the rig. Two of them at once share the bridge: each gives out a
part of its addresses.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from providers.local import processes
from tests.rig.aws.fake import FakeAws
from tests.rig.hetzner import FakeHetzner
from tests.rig.hetzner.machines import RealMachines
from tests.rig.objects import Objects
from tests.rig.world import CARRIER_A, World

INVENTORY = """\
provider: {provider}
machines:
- {{roles: [all]{machine}}}
{section}catch: false
acme: {{directories: ["{directory}"], email: ops@social.test, trusted_ca: acme.crt}}
dns:
- {{provider: rfc2136, zone: social.test, host: {dns}}}
{names}carriers:
- {{name: a, host: {carrier}, port: 2775, system_id: one, password: "${{CARRIER}}"}}
sms: {{sender: "4915100001"}}
{more}"""
# The carrier's account: its password is in the environment.
ACCOUNT = ("one", "secretc1")
ENVIRONMENT = {"CARRIER": ACCOUNT[1]}


def inventory(
    rig: World,
    provider: str,
    section: str = "",
    *,
    machine: str = "",
    names: Sequence[str] = (),
    more: str = "",
    stores: Iterable[Objects] = (),
) -> str:
    """One machine with everything; names, certificates, and the carrier are the rig's.

    section: what stands in the provider's own section, in braces; machine: more keys of the machine's entry, beginning
    with a comma; names: more entries of `dns`; stores: repositories, whose CA lies in NAME.crt of the project.
    """
    text = INVENTORY.format(
        provider=provider,
        machine=machine,
        section=f"{provider}: {section}\n" if section else "",
        directory=rig.directory,
        dns=rig.internet.address,
        names="".join(f"- {name}\n" for name in names),
        carrier=CARRIER_A,
        more=more,
    )
    repositories = "".join(store.section(f"{store.name}.crt") for store in stores)
    return text + (f"repositories:\n{repositories}" if repositories else "")


def hetzner_names(rig: World, fake: FakeHetzner) -> str:
    """An entry of `dns`: the same zone at a second vendor, whose name server is the rig's."""
    address = rig.internet.address
    return f'{{provider: hetzner, zone: social.test, endpoint: "{fake.endpoint}", nameservers: [{address}]}}'


def hetzner(rig: World, machines: RealMachines) -> FakeHetzner:
    """Started; the rig's DNS follows its reverse names."""
    fake = FakeHetzner(machines).start()
    fake.reverse = lambda address, name: rig.set_reverse(address, name) if name and "." in address else None
    return fake


def aws(rig: World, machines: RealMachines) -> FakeAws:
    fake = FakeAws(machines)
    fake.behaviour.extras.reverse = rig.set_reverse
    return fake


def reachable6(rig: World, machines: RealMachines) -> None:
    """The certificate authority looks for AAAA first, and each server has a /64 of its own."""
    rig.shell.run(f"ip -6 route replace {machines.image.prefix6} dev host0")


class Part(RealMachines):
    """Machines of one vendor of several: the addresses whose last bytes are in `lasts`, and /64s from lasts.start on."""

    def __init__(
        self, options: dict[str, object], layers: Sequence[Path], volumes: Path, lasts: range
    ) -> None:
        super().__init__(options, layers, volumes)
        self._lasts = lasts

    def addresses(self) -> Iterable[str]:
        first = self.image.settings.subnet.network_address
        return (str(first + last) for last in self._lasts)

    def network6(self, number: int) -> str:
        return super().network6(self._lasts.start + number)

    def close(self) -> None:
        """The others' stay."""
        for name in list(self.image.guests):
            self.delete(name)


def pull_the_plug(folder: Path) -> None:
    """Every process of the machine with this folder ends at once; nothing is written or sent any more, as an orderly stop
    would do it."""
    leader = processes.leader(folder)
    assert leader, f"{folder.name} does not run"
    os.kill(leader, signal.SIGKILL)
