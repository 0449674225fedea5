"""The same stack at two clouds: planned, brought up on real machines, found by name, mended, and taken away whole.

The vendors are the rig's; their servers are machines whose first boot is cloud-init with our user data. Names are in the
rig's DNS (RFC 2136), certificates from its ACME CA, and mail is judged by the receiving server.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployer.core.machine import Deployment
from deployer.core.provider import Listing, Resource
from deployer.flow import registry
from tests.e2e.conftest import Deployed, project
from tests.e2e.doors import Doors
from tests.e2e.matrix import Person, number, signs_up_and_talks
from tests.rig import cloudimage
from tests.rig.aws.fake import CREDENTIALS, REGION, FakeAws
from tests.rig.hetzner import FakeHetzner
from tests.rig.hetzner.machines import RealMachines
from tests.rig.mail_receiver import MailReceiver
from tests.rig.smpp_carrier import Carrier
from tests.rig.world import CARRIER_A, MAIL, World

INVENTORY = """\
provider: {vendor}
machines:
- roles: [all]
{vendor}: {section}
catch: false
acme: {{directories: ["{directory}"], email: ops@social.test, trusted_ca: acme.crt}}
dns:
- {{provider: rfc2136, zone: social.test, host: {dns}}}
carriers:
- {{name: a, host: {carrier}, port: 2775, system_id: one, password: "${{CARRIER}}"}}
sms: {{sender: "4915100001"}}
"""


@dataclass
class Cloud(Deployed):
    """A deployment at a vendor. left: everything at the vendor with our labels."""

    receiver: MailReceiver
    carrier: Carrier
    ca: str
    left: Callable[[], list[Resource]]
    # Somebody opens a port at the vendor's own firewall, by hand.
    meddle: Callable[[], None]

    @property
    def doors(self) -> Doors:
        return Doors(self.address("app"), self.ca)


@pytest.fixture(scope="module")
def machines(rig: World, package_layer: Path) -> RealMachines:
    """What the vendors' servers are: Debian with cloud-init, and the run's packages to save the time."""
    options = {**rig.options, "nameservers": [rig.internet.address]}
    made = RealMachines(options, [package_layer, cloudimage.build(rig)], rig.folder / "volumes")
    # The certificate authority looks for AAAA first, and each server has a /64 of its own.
    rig.shell.run(f"ip -6 route replace {made.image.prefix6} dev host0")
    return made


@pytest.fixture(scope="module", params=["hetzner", "aws"])
def cloud(
    request: pytest.FixtureRequest,
    rig: World,
    machines: RealMachines,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cloud]:
    vendor = str(request.param)
    folder = tmp_path_factory.mktemp(vendor)
    environment = {"CARRIER": "secretc1"}
    fake: FakeHetzner | FakeAws
    if vendor == "hetzner":
        fake = FakeHetzner(machines).start()
        fake.reverse = lambda address, name: (
            rig.set_reverse(address, name) if name and "." in address else None
        )
        environment["HCLOUD_TOKEN"] = fake.token
        section = f"{{location: fsn1, endpoint: {fake.endpoint}}}"
    else:
        fake = FakeAws(machines)
        fake.behaviour.extras.reverse = rig.set_reverse
        environment |= CREDENTIALS
        section = f"{{region: {REGION}, endpoint: {fake.endpoint}}}"
    domain = f"{vendor}.social.test"
    text = INVENTORY.format(
        vendor=vendor, section=section, directory=rig.directory, dns=rig.internet.address, carrier=CARRIER_A
    )
    operator = project(folder / "project", domain, vendor, text, folder / "home", vendor)
    operator.environment = environment
    (operator.folder / "acme.crt").write_text(rig.acme_ca, encoding="utf-8")

    def left() -> list[Resource]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            options = {"endpoint": fake.endpoint}
            provider = registry.provider_module(vendor).make(options, Deployment(vendor, vendor))
            assert isinstance(provider, Listing)
            return list(provider.resources())

    def meddle() -> None:
        open_by_hand(fake)

    try:
        with (
            MailReceiver(
                (MAIL, 25), rig.internet.address, folder / "mail", domains=("mailbox.test",)
            ) as receiver,
            Carrier("one", "secretc1", host=CARRIER_A, port=2775) as carrier,
        ):
            summary = operator.good("up", "--yes").result
            yield Cloud(operator, domain, summary, receiver, carrier, rig.acme_ca, left, meddle)
    finally:
        fake.stop() if isinstance(fake, FakeHetzner) else fake.close()
        shutil.rmtree(folder, ignore_errors=True)


def open_by_hand(fake: FakeHetzner | FakeAws) -> None:
    if isinstance(fake, FakeHetzner):
        with fake.store.lock:
            for wall in fake.store.tables["firewalls"].values():
                rule = {"direction": "in", "protocol": "tcp", "port": "8448", "source_ips": ["0.0.0.0/0"]}
                wall["rules"].append({**wall["rules"][0], **rule})
        return
    for group in fake.backend().describe_security_groups():
        if "deploy-stack" in {
            tag["key"] for tag in fake.backend().describe_tags({"resource-id": [group.id]})
        }:
            fake.backend().authorize_security_group_ingress(
                group.id, "tcp", 8448, 8448, [{"CidrIp": "0.0.0.0/0"}]
            )


def test_a_person_signs_up_and_talks(cloud: Cloud) -> None:
    digits = number()
    address = f"reader{digits}@mailbox.test"
    someone = Person(
        cloud.doors,
        cloud.domain,
        mail=address,
        number=digits,
        mailbox=lambda to: cloud.receiver.wait_for(to).text,
        phone=lambda number: cloud.carrier.wait_message(30).text,
    )
    signs_up_and_talks(someone)
    verdict = cloud.receiver.wait_for(address).verdict
    assert (verdict.spf, verdict.dkim, verdict.dmarc) == ("pass", "pass", "pass"), verdict
    assert verdict.ehlo_matches and verdict.ptr == f"mail.{cloud.domain}", verdict


def test_nothing_is_left_to_do(cloud: Cloud) -> None:
    assert cloud.operator.good("up", "--yes").result["changed"] == 0
    assert cloud.operator.good("plan", "--exit-code").result["changes"] == []


def test_a_rule_made_by_hand_at_the_vendor_is_seen_and_mended(cloud: Cloud) -> None:
    cloud.meddle()
    assert cloud.operator.run("plan", "--exit-code").code == 3
    cloud.operator.good("up", "--yes")
    assert cloud.operator.good("plan", "--exit-code").result["changes"] == []


def test_down_leaves_nothing_at_the_vendor(cloud: Cloud) -> None:
    """Machines go at once, volumes with data only by the stack's name."""
    stack = cloud.domain.split(".")[0]
    cloud.operator.good("down", "--yes")
    assert {resource.kind for resource in cloud.left()} <= {"volume"}
    cloud.operator.good("down", "--yes", "--destroy-data", stack)
    assert cloud.left() == []
