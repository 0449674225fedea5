"""A cloud vendor's machines: real ones (providers/local) whose first boot is Debian's cloud-init with the user data given.

The vendor's fake says which addresses a machine has and which volumes; a volume is a folder of this computer, which is
mounted at /srv/data before the machine starts and outlives it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from pathlib import Path

from deployer.core.machine import Deployment, Machine, MachineSpec
from providers.local import LocalProvider, host, processes
from providers.local.records import Record
from providers.local.settings import Settings, parse
from tests.rig.world import World

DEPLOYMENT = Deployment("rig", "cloud")
# Last bytes of the addresses that vendors give out; providers/local itself begins with the lowest.
FIRST, LAST = 150, 249
# As a vendor's image has it: the seed is the only source, and the network is the vendor's business.
CONFIG = """\
datasource_list: [NoCloud]
network: {config: disabled}
"""
# What is a machine's own and not the image's.
_OWN = (
    "etc/machine-id",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "etc/systemd/network",
    "var/lib/cloud",
)
_LEFT = ("root", "run", "tmp", "srv", "var/backups", "var/cache", "var/log", "var/tmp")


def build(world: World) -> Path:
    """The layer of a Debian 13 with cloud-init, as vendors' images have it; made once a world."""
    target = world.folder / "cloudimage"
    if target.is_dir():
        return target
    machine, shell = world.bare("cloudimage")
    shell.run(
        "export DEBIAN_FRONTEND=noninteractive; apt-get -q update &&"
        " apt-get -q -y install --no-install-recommends cloud-init e2fsprogs && sync",
        timeout=300,
    )
    upper = world.folder / "machines" / "machines" / machine.name / "upper"
    half = target.with_name("cloudimage.half")
    (half / "var").mkdir(parents=True)
    for part in (*upper.iterdir(), *(upper / "var").iterdir()):
        name = str(part.relative_to(upper))
        if name != "var" and name not in _LEFT:
            # -a keeps what overlayfs needs: whiteouts, opaque folders, owners.
            subprocess.run(
                ["cp", "-a", "--reflink=auto", str(part), str(half / name)], check=True, timeout=300
            )
    for name in (*_OWN, *(str(key.relative_to(half)) for key in (half / "etc/ssh").glob("ssh_host_*"))):
        path = half / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    (half / "etc/cloud/cloud.cfg.d/90-rig.cfg").write_text(CONFIG, encoding="utf-8")
    world.provider.delete_machine(machine)
    half.rename(target)
    return target


@dataclass(frozen=True)
class Guest:
    """A machine as its vendor wants it. private: address and length of its network's prefix; volumes: folders."""

    id: str
    name: str
    address: str
    address6: str = ""
    private: str = ""
    user_data: str = ""
    volumes: tuple[Path, ...] = ()


class CloudImage:
    """Makes guests on a bridge of providers/local. `options`: those of the provider local, without `layer`."""

    def __init__(self, options: Mapping[str, object], layers: Sequence[Path]) -> None:
        self.settings = parse({**options, "layer": [str(layer) for layer in layers]})
        self.guests: dict[str, Guest] = {}
        self._provider = _Provider(self.settings, self.guests)

    def addresses(self) -> Iterable[str]:
        first = self.settings.subnet.network_address
        return (str(first + offset) for offset in range(FIRST, LAST + 1))

    @property
    def prefix6(self) -> IPv6Network:
        """The /48 of which guests have a /64 each; the bridge's own is the first of them."""
        return self.settings.subnet6.supernet(new_prefix=48)

    def network6(self, number: int) -> str:
        """The n-th /64, from 1 on."""
        base = int(self.prefix6.network_address) + (number << 64)
        return str(IPv6Network((base, 64)))

    def create(self, guest: Guest) -> Machine:
        """Make it, or start it when it is there. Returns when it has begun to boot."""
        self.guests[guest.name] = guest
        machine = self._provider.create_machine(DEPLOYMENT, MachineSpec(guest.name, ("all",)))
        if guest.address6:
            # Without IPv6 on this computer there is nothing to route.
            command = ["ip", "-6", "route", "replace", str(self.prefix6), "dev", self.settings.bridge]
            subprocess.run(command, check=False, capture_output=True, timeout=10)
        return machine

    def start(self, name: str) -> None:
        self.create(self.guests[name])

    def stop(self, name: str) -> None:
        """As a press of its button; it keeps its disk."""
        for machine in self._named(name):
            self._provider.stop_machine(machine)

    def delete(self, name: str) -> None:
        for machine in self._named(name):
            self._provider.delete_machine(machine)
        self.guests.pop(name, None)

    def close(self) -> None:
        for machine in self._provider.list_machines(DEPLOYMENT):
            self._provider.delete_machine(machine)

    def _named(self, name: str) -> list[Machine]:
        return [machine for machine in self._provider.list_machines(DEPLOYMENT) if machine.name == name]


class _Provider(LocalProvider):
    """Local machines with the addresses that a vendor gave them and the seed of its user data."""

    def __init__(self, settings: Settings, guests: Mapping[str, Guest]) -> None:
        super().__init__(settings, DEPLOYMENT)
        self._guests = guests

    def _reserve(self, deployment: Deployment, spec: MachineSpec) -> Record:
        record = super()._reserve(deployment, spec)
        return self._records.save(replace(record, address=self._guests[spec.name].address, address6=""))

    def _start(self, record: Record) -> None:
        folder, guest = self._records.of(record.name), self._guests[record.name]
        if not processes.runs(folder):
            self._mount(record)
            for name, text in seed(guest, self.settings).items():
                path = folder / "root" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            for volume in guest.volumes[:1]:
                where = folder / "root/srv/data"
                where.mkdir(parents=True, exist_ok=True)
                volume.mkdir(parents=True, exist_ok=True)
                if str(where) not in host.mounts_below(folder):
                    host.run("mounting the volume", ["mount", "--bind", str(volume), str(where)])
        super()._start(record)


def seed(guest: Guest, settings: Settings) -> dict[str, str]:
    """Path below the machine's root -> content."""
    metadata = {"instance-id": guest.id, "local-hostname": guest.name}
    network = ""
    if guest.private:
        network += f"[Address]\nAddress={guest.private}\n"
    if guest.address6:
        whole = settings.subnet6.supernet(new_prefix=48)
        network += f"[Address]\nAddress={guest.address6}/64\nDuplicateAddressDetection=none\n"
        network += f"[Route]\nDestination={whole}\n"
    return {
        "var/lib/cloud/seed/nocloud/user-data": guest.user_data or "#cloud-config\n{}\n",
        "var/lib/cloud/seed/nocloud/meta-data": json.dumps(metadata) + "\n",
        "etc/systemd/network/10-host0.network.d/vendor.conf": network,
    }
