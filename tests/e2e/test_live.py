"""The public service with the outside world around it: names, certificates, mail that others check, carriers."""

from __future__ import annotations

import http.server
import json
import queue
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator

import pytest
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from tests.e2e.conftest import Live
from tests.e2e.matrix import Person, number, signs_up_and_talks
from tests.rig.mail_receiver import Received
from tests.rig.world import GATEWAY, World


def within(seconds: float, what: str, found: Callable[[], object]) -> object:
    """Wait until `found` gives something; a failure says what was waited for."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(0.1)
    return result


def mail_to(live: Live, address: str) -> Received:
    found = within(
        30, f"mail to {address}", lambda: [m for m in live.receiver.received() if address in m.recipients]
    )
    assert isinstance(found, list)
    last: Received = found[-1]
    return last


def sms_to(live: Live, digits: str, carrier: int | None = None) -> str:
    """Text of the newest SMS to a number that ends in `digits`, at either carrier or at one."""
    carriers = live.carriers if carrier is None else (live.carriers[carrier],)
    found = within(
        30,
        f"SMS to ...{digits}",
        lambda: [m for one in carriers for m in one.messages if m.recipient.endswith(digits)],
    )
    assert isinstance(found, list)
    return str(found[-1].text)


def person(live: Live) -> Person:
    digits = number()
    return Person(
        live.doors,
        live.domain,
        mail=f"reader{digits}@mailbox.test",
        number=digits,
        mailbox=lambda to: mail_to(live, to).text,
        phone=lambda number: sms_to(live, number.removeprefix("0")),
    )


def test_a_person_signs_up_and_talks(live: Live) -> None:
    someone = person(live)
    signs_up_and_talks(someone)
    verdict = mail_to(live, someone.mail).verdict
    assert (verdict.spf, verdict.dkim, verdict.dmarc) == ("pass", "pass", "pass"), verdict


@pytest.mark.parametrize("missing", ["open_link", "enter_code"])
def test_neither_proof_can_be_left_out(live: Live, missing: str) -> None:
    answer = person(live).sign_up(**{missing: False})
    assert answer.status == 401 and "access_token" not in answer.json(), answer.body


# --- Twilio's own client ---


class Callbacks(http.server.BaseHTTPRequestHandler):
    received: queue.Queue[tuple[str, dict[str, str], str]] = queue.Queue()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
        self.received.put(
            (f"http://{self.headers['Host']}{self.path}", form, self.headers["X-Twilio-Signature"])
        )
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def callback_url(rig: World) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer((GATEWAY, 0), Callbacks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://callback.social.test:{server.server_port}/status"
    server.shutdown()


@pytest.fixture
def twilio(live: Live, names: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Client, str]:
    """Twilio's client, pointed at the stack's own gateway; and the token that signs callbacks."""
    config = live.operator.on("live-app-mail-sms-1", "cat /etc/deploy/sms_gateway/config.json")
    sid = json.loads(config)["account_sid"]
    token = live.operator.secret("sms_gateway/auth_token")
    ca = tmp_path_factory.mktemp("twilio") / "ca.pem"
    ca.write_text(live.ca, encoding="utf-8")
    transport = TwilioHttpClient(timeout=20)
    transport.session.verify = str(ca)
    # The environment may name another bundle, which requests would prefer.
    transport.session.trust_env = False
    client = Client(sid, token, http_client=transport)
    client.api.base_url = f"https://sms.{live.domain}"
    return client, token


def test_twilios_client_sends_and_gets_a_signed_report(
    live: Live, twilio: tuple[Client, str], callback_url: str
) -> None:
    client, token = twilio
    message = client.messages.create(
        to="+447700900461", from_="+4915100001", body="hello", status_callback=callback_url
    )
    assert message.sid.startswith("SM")
    assert sms_to(live, "7700900461") == "hello"
    statuses = set()
    while "delivered" not in statuses:
        url, form, signature = Callbacks.received.get(timeout=30)
        assert RequestValidator(token).validate(url, form, signature), form
        assert form["MessageSid"] == message.sid
        statuses.add(form["MessageStatus"])
    assert client.messages(message.sid).fetch().status == "delivered"


def send(twilio: tuple[Client, str], to: str, body: str) -> None:
    twilio[0].messages.create(to=to, from_="+4915100001", body=body)


def test_a_dead_carrier_is_passed_by(live: Live, twilio: tuple[Client, str]) -> None:
    first = live.carriers[0]
    first.die()
    try:
        send(twilio, "+447700900462", "by the second")
        assert sms_to(live, "7700900462", carrier=1) == "by the second"
    finally:
        first.rise()
        first.wait_bound(60)


def test_with_every_carrier_dead_it_waits_through_a_restart(live: Live, twilio: tuple[Client, str]) -> None:
    first, second = live.carriers
    first.die()
    second.die()
    try:
        send(twilio, "+447700900463", "patience")
        live.operator.restart("live-app-mail-sms-1")
    finally:
        first.rise()
        second.rise()
    assert sms_to(live, "7700900463") == "patience"
    live.operator.good("up", "--yes")
