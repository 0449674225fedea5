"""The same stack at two clouds: planned, brought up on real machines, found by name, mended, and taken away whole.

The vendors are the rig's; their servers are machines whose first boot is cloud-init with our user data. Names are in the
rig's DNS (RFC 2136), certificates from its ACME CA, and mail is judged by the receiving server.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.query
import dns.update
import pytest

from deployer.core.machine import Deployment
from deployer.core.provider import Listing, Resource
from deployer.flow import registry
from tests.e2e import vendors
from tests.e2e.conftest import Deployed, project
from tests.e2e.doors import Doors
from tests.e2e.hands import OPENED, SSH, AtAmazon, AtHetzner, Hand, kept_out, rows
from tests.e2e.matrix import Person, number, signs_up_and_talks
from tests.e2e.scratch import within
from tests.rig import cloudimage
from tests.rig.aws.fake import CREDENTIALS, REGION, FakeAws
from tests.rig.hetzner import FakeHetzner
from tests.rig.hetzner.machines import RealMachines
from tests.rig.mail_receiver import MailReceiver
from tests.rig.smpp_carrier import Carrier
from tests.rig.world import CARRIER_A, GATEWAY, MAIL, World

# A blocklist; its own test entry (RFC 5782) is in the rig's DNS.
LIST = "bl.social.test"
DOCTOR = 'doctor: {{resolvers: [{dns}], blocklists: [{list}], mail_servers: ["{mail}"]}}\n'


@dataclass
class Cloud(Deployed):
    """A deployment at a vendor. left: everything at the vendor with our labels; hand: in its console."""

    receiver: MailReceiver
    carrier: Carrier
    ca: str
    left: Callable[[], list[Resource]]
    hand: Hand
    rig: World
    # Who has signed up, if anybody has.
    person: Person | None = None

    @property
    def doors(self) -> Doors:
        return Doors(self.address("app"), self.ca)


@pytest.fixture(scope="module")
def machines(rig: World, package_layer: Path) -> RealMachines:
    """What the vendors' servers are: Debian with cloud-init, and the run's packages to save the time."""
    options = {**rig.options, "nameservers": [rig.internet.address]}
    made = RealMachines(options, [package_layer, cloudimage.build(rig)], rig.folder / "volumes")
    vendors.reachable6(rig, made)
    return made


@pytest.fixture(scope="module", params=["hetzner", pytest.param("aws", marks=pytest.mark.long)])
def cloud(
    request: pytest.FixtureRequest,
    rig: World,
    machines: RealMachines,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cloud]:
    vendor = str(request.param)
    folder = tmp_path_factory.mktemp(vendor)
    environment = dict(vendors.ENVIRONMENT)
    fake: FakeHetzner | FakeAws
    if vendor == "hetzner":
        fake = vendors.hetzner(rig, machines)
        environment["HCLOUD_TOKEN"] = fake.token
        section = f"{{location: fsn1, endpoint: {fake.endpoint}}}"
    else:
        fake = vendors.aws(rig, machines)
        environment |= CREDENTIALS
        section = f"{{region: {REGION}, endpoint: {fake.endpoint}}}"
    domain = f"{vendor}.social.test"
    more = DOCTOR.format(dns=rig.internet.address, list=LIST, mail=MAIL)
    text = vendors.inventory(rig, vendor, section, more=more)
    rig.set_records([{"name": f"2.0.0.127.{LIST}", "type": "A", "value": "127.0.0.2"}])
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

    name = f"{vendor}-all-1"
    hand = AtHetzner(name, fake) if isinstance(fake, FakeHetzner) else AtAmazon(name, fake)
    try:
        with (
            MailReceiver(
                (MAIL, 25), rig.internet.address, folder / "mail", domains=("mailbox.test",)
            ) as receiver,
            Carrier(*vendors.ACCOUNT, host=CARRIER_A, port=2775) as carrier,
        ):
            summary = operator.good("up", "--yes").result
            yield Cloud(operator, domain, summary, receiver, carrier, rig.acme_ca, left, hand, rig)
    finally:
        fake.stop() if isinstance(fake, FakeHetzner) else fake.close()
        shutil.rmtree(folder, ignore_errors=True)


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
    cloud.person = someone
    verdict = cloud.receiver.wait_for(address).verdict
    assert (verdict.spf, verdict.dkim, verdict.dmarc) == ("pass", "pass", "pass"), verdict
    assert verdict.ehlo_matches and verdict.ptr == f"mail.{cloud.domain}", verdict


def test_nothing_is_left_to_do(cloud: Cloud) -> None:
    assert cloud.operator.good("up", "--yes").result["changed"] == 0
    assert cloud.operator.good("plan", "--exit-code").result["changes"] == []


def test_doctor_finds_what_is_well_and_what_is_not(cloud: Cloud) -> None:
    """Of a deployment that runs. The rig has one DNS vendor, and no reverse names for IPv6."""
    run = cloud.operator.run("doctor", timeout=60)
    found = run.result["findings"]
    assert run.code == 1 and run.result["seconds"] < 25
    bad = {(one["id"], one["where"]) for one in found if one["status"] == "fail"}
    six = {(one["id"], one["where"]) for one in found if one["id"] == "mail.reverse" and ":" in one["where"]}
    assert bad == {("dns.vendors", "social.test"), *six}, [one for one in found if one["status"] == "fail"]
    assert all(one["next"] for one in found if one["status"] in ("fail", "warn"))
    well = {one["id"] for one in found if one["status"] == "ok"}
    assert well >= {
        "vendor.credentials",
        "vendor.ready",
        "vendor.quota",
        "vendor.price",
        "machine.ssh",
        "machine.clock",
        "machine.disk",
        "tls.own",
        "tls.public",
        "mail.port25",
        "mail.reverse",
        "mail.ehlo",
        "mail.blocklist",
        "sms.carrier",
        "dns.records",
        "dns.ttl",
    }, [one for one in found if one["status"] != "ok"]
    (price,) = [one["found"] for one in found if one["id"] == "vendor.price"]
    assert "a month: exists" in price


def test_what_was_changed_by_hand_at_the_vendor_is_seen_and_mended(cloud: Cloud) -> None:
    """A rule, a label, the reverse name, and two records, of which one is gone."""
    hand, domain = cloud.hand, cloud.domain
    labels = hand.labels()
    hand.open_port()
    hand.unlabel()
    elsewhere = f"elsewhere.{domain}"
    hand.rename(elsewhere)
    within(10, "the vendor's new reverse name", lambda: hand.reverse() == elsewhere)
    update = dns.update.UpdateMessage("social.test")
    update.replace(f"sms.{domain}.", 60, "A", GATEWAY)
    update.delete(f"_dmarc.{domain}.")
    dns.query.tcp(update, cloud.rig.internet.address, timeout=10)
    planned = cloud.operator.run("plan", "--exit-code")
    assert planned.code == 3
    seen = rows(planned.result["changes"])
    (wall,) = (detail for row, detail in seen.items() if row.startswith("firewall "))
    assert f"- tcp/{OPENED} from " in wall and "+" not in wall
    (label,) = (detail for row, detail in seen.items() if row.startswith("machine "))
    assert label == f"without the label deploy-stack={labels['deploy-stack']}"
    address = cloud.address("app")
    assert seen[f"dns reverse name of {address}"] == f"{elsewhere} -> mail.{domain}"
    assert GATEWAY in seen[f"dns sms.{domain} A"] and f"dns _dmarc.{domain} TXT" in seen
    assert len(seen) == 5
    assert cloud.operator.good("up", "--yes").result["changed"] == 5
    assert OPENED not in hand.ports() and hand.labels() == labels and hand.reverse() == f"mail.{domain}"
    assert cloud.operator.good("plan", "--exit-code").result["changes"] == []


def test_up_opens_ssh_again_that_was_closed_at_the_vendor(cloud: Cloud) -> None:
    with kept_out(cloud.hand, cloud.address("app")):
        assert cloud.operator.good("up", "--yes").result["changed"] == 1
    assert SSH in cloud.hand.ports()
    assert cloud.operator.good("plan", "--exit-code").result["changes"] == []


@pytest.mark.long
def test_a_new_machine_takes_the_kept_volume_with_its_data(cloud: Cloud) -> None:
    sql = "runuser -u postgres -- psql -XAtq -d sms_gateway -c"
    machine, first = cloud.hand.name, cloud.hand.id()
    cloud.operator.on(machine, f"{sql} 'CREATE TABLE precious AS SELECT 42 AS n'")
    cloud.operator.good("down", "--yes")
    assert {resource.kind for resource in cloud.left()} == {"volume"}
    cloud.summary = cloud.operator.good("up", "--yes").result
    assert cloud.hand.id() != first
    assert cloud.operator.on(machine, f"{sql} 'SELECT n FROM precious'").strip() == "42"
    assert cloud.operator.good("plan", "--exit-code").result["changes"] == []
    if cloud.person:
        cloud.person.doors = cloud.doors
        cloud.person.log_in()


def test_down_leaves_nothing_at_the_vendor(cloud: Cloud) -> None:
    """Machines go at once, volumes with data only by the stack's name."""
    stack = cloud.domain.split(".")[0]
    cloud.operator.good("down", "--yes")
    assert {resource.kind for resource in cloud.left()} <= {"volume"}
    cloud.operator.good("down", "--yes", "--destroy-data", stack)
    assert cloud.left() == []
