"""A Bluesky network of one's own, through its public doors, with the outside world around it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.atproto import Person, good, meet
from tests.e2e.conftest import Deployed, local_section, project
from tests.e2e.doors import Doors
from tests.e2e.matrix import number, picture
from tests.e2e.operator import Operator
from tests.e2e.scratch import console, nothing_to_do, within
from tests.rig.mail_receiver import MailReceiver
from tests.rig.smpp_carrier import Carrier
from tests.rig.world import CARRIER_A, MAIL, World

# Its database driver is compiled on the machine, which takes minutes.
pytestmark = pytest.mark.long

DOMAIN = "sky.social.test"
INVENTORY = """\
provider: local
machines:
- roles: [all]
catch: false
acme: {{directories: ["{directory}"], email: ops@{domain}, trusted_ca: acme.crt}}
carriers:
- {{name: a, host: {a}, port: 2775, system_id: one, password: "${{CARRIER_A}}"}}
dns:
- {{provider: rfc2136, zone: social.test, host: {dns}}}
"""


@dataclass
class Network(Deployed):
    receiver: MailReceiver
    carrier: Carrier
    ca: str
    machine: Path

    @property
    def doors(self) -> Doors:
        return Doors(self.address("app"), self.ca)

    def console(self, command: str) -> str:
        return console(self.machine, command)

    def person(self) -> Person:
        digits = number()
        return Person(
            self.doors,
            self.domain,
            mail=f"reader{digits}@mailbox.test",
            number=f"+44{digits.removeprefix('0')}",
            mailbox=self._mail,
            phone=self._sms,
        )

    def _mail(self, address: str) -> str:
        found = within(
            30,
            f"mail to {address}",
            lambda: [one for one in self.receiver.received() if address in one.recipients],
        )
        return str(found[-1].text)

    def _sms(self, to: str) -> str:
        digits = to.removeprefix("+")
        found = within(
            30,
            f"SMS to {to}",
            lambda: [one for one in self.carrier.messages if one.recipient.endswith(digits)],
        )
        return str(found[-1].text)


@pytest.fixture(scope="module")
def network(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("sky")
    text = INVENTORY.format(directory=rig.directory, domain=DOMAIN, a=CARRIER_A, dns=rig.internet.address)
    operator = project(
        folder / "project", DOMAIN, "local", text + local_section(rig, package_layer), folder / "home", "sky"
    )
    operator.environment = {"CARRIER_A": "secreta1"}
    (operator.folder / "stack.yaml").write_text(
        f"name: sky\ndomain: {DOMAIN}\napp: bluesky\nsettings: {{registration: open}}\n", encoding="utf-8"
    )
    (operator.folder / "acme.crt").write_text(rig.acme_ca, encoding="utf-8")
    with (
        MailReceiver(
            (MAIL, 25), rig.internet.address, folder / "mail", domains=("mailbox.test",)
        ) as receiver,
        Carrier("one", "secreta1", host=CARRIER_A, port=2775) as carrier,
    ):
        summary = operator.good("up", "--yes", timeout=1800).result
        machine = rig.folder / "machines" / "machines" / "sky-all-1"
        yield Network(operator, DOMAIN, summary, receiver, carrier, rig.acme_ca, machine)
        operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


def signed_up(network: Network) -> Person:
    someone = network.person()
    good(someone.sign_up())
    return someone


def test_two_people_meet(network: Network) -> None:
    """Mail and telephone proven, a post with a picture, a follow, a like: seen in the timeline, told to its author."""
    one, other = signed_up(network), signed_up(network)
    one.confirm_mail()
    assert one.mail_confirmed()
    code = one.send_code()
    wrong = one.verify_phone(f"{(int(code) + 1) % 1_000_000:06d}")
    assert (wrong.status, wrong.json()["error"]) == (400, "InvalidCode"), wrong.body
    assert good(one.verify_phone(code))["token"]
    meet(one, other, picture())


def test_a_handle_says_whose_it_is(network: Network) -> None:
    """By HTTPS under the handle itself: the proxy gets a certificate for it when somebody asks, and for no other name."""
    someone = signed_up(network)
    answer = network.doors.request("GET", f"https://{someone.handle}/.well-known/atproto-did")
    assert (answer.status, answer.body.decode()) == (200, someone.did)
    with pytest.raises(OSError):
        network.doors.request("GET", f"https://nobody.{DOMAIN}/.well-known/atproto-did")


def test_the_directory_is_read_by_all_and_written_by_its_own(network: Network) -> None:
    someone = signed_up(network)
    document = good(network.doors.request("GET", f"https://plc.{DOMAIN}/{someone.did}"))
    assert document["service"][0]["serviceEndpoint"] == f"https://{DOMAIN}"
    assert network.doors.request("POST", f"https://plc.{DOMAIN}/{someone.did}", {}).status == 403


def test_a_database_that_was_away_for_half_a_minute(network: Network) -> None:
    """Everything serves again within a minute, without a hand; what was written meanwhile is seen."""
    one, other = signed_up(network), signed_up(network)
    meet(one, other, picture(), "before")
    network.console("systemctl stop postgresql@17-main")
    # The PDS keeps its own books.
    meanwhile = one.post("meanwhile")
    time.sleep(30)
    network.console("systemctl start postgresql@17-main")
    began = time.monotonic()
    other.until(
        60,
        "post of the time without a database",
        lambda: (
            other.ask("app.bsky.feed.getTimeline").status == 200
            and meanwhile["uri"] in [item["uri"] for item in other.timeline()]
        ),
    )
    assert time.monotonic() - began < 60
    within(60, "green probes", lambda: green(network.operator))


def green(operator: Operator) -> bool:
    return all(probe["ok"] for probe in operator.run("status").result["probes"])


def test_nothing_is_left_to_do(network: Network) -> None:
    nothing_to_do(network.operator)
    began = time.monotonic()
    summary = network.operator.good("up", "--yes").result
    print(f"\nunchanged: {time.monotonic() - began:.1f} s")
    assert not summary["changes"]


def test_the_caretaker_gets_another_password(network: Network) -> None:
    """The first account, with the bundle's password; a code of an invitation is its to give."""
    caretaker = network.person()
    caretaker.name, caretaker.password = "caretaker", network.operator.secret("app/admin_password")
    caretaker.log_in()
    assert caretaker.did.startswith("did:plc:")
