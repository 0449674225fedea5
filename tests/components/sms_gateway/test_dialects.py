"""The public doors: Twilio's and OpenMarket's words, refusals in their own shapes, the policy behind both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient
from twilio.base.exceptions import TwilioRestException
from twilio.http import HttpClient
from twilio.http.response import Response
from twilio.rest import Client

from deployer.components.sms_gateway.service.app import Service
from tests.components.sms_gateway.service import PASSWORD, SID, TOKEN, FakeKannel, basic, made

URL = f"/2010-04-01/Accounts/{SID}/Messages.json"
TO = "+491701234567"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Service, FakeKannel, TestClient]]:
    service, kannel = made(tmp_path)
    with TestClient(service.public) as client:
        yield service, kannel, client
    service.store.close()


@pytest.fixture
def client(world: tuple[Service, FakeKannel, TestClient]) -> TestClient:
    return world[2]


def twilio(client: TestClient, headers: dict[str, str] | None = None, **form: str) -> Any:
    fields = {"To": TO, "From": "Demo", "Body": "Code 1", **form}
    return client.post(
        URL,
        data={key: value for key, value in fields.items() if value},
        headers=headers if headers is not None else basic(SID, TOKEN),
    )


def openmarket(client: TestClient, to: str = "491701234567", password: str = PASSWORD) -> Any:
    body = {
        "mobileTerminate": {
            "message": {"content": "Code 2", "type": "text"},
            "destination": {"address": to},
            "source": {"ton": 5, "address": "Testnet"},
        }
    }
    return client.post("/sms/v4/mt", json=body, headers=basic("app", password))


def test_twilio_s_answer_has_twilio_s_shape(client: TestClient) -> None:
    answer = twilio(client, Body="x" * 161)
    assert answer.status_code == 201
    found = answer.json()
    assert re.fullmatch("SM[0-9a-f]{32}", found["sid"])
    assert (
        found["status"] == "queued" and found["num_segments"] == "2" and found["direction"] == "outbound-api"
    )
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000", found["date_created"])
    assert found["to"] == TO and found["from"] == "Demo" and found["error_code"] is None
    again = client.get(found["uri"], headers=basic(SID, TOKEN))
    assert again.json() == found


def test_a_messaging_service_stands_for_the_default_sender(client: TestClient) -> None:
    found = twilio(client, From="", MessagingServiceSid="MG" + "1" * 32).json()
    assert (found["status"], found["from"], found["messaging_service_sid"]) == (
        "accepted",
        "Demo",
        "MG" + "1" * 32,
    )


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"To": ""}, 400, 21604),
        ({"To": "01701234567"}, 400, 21211),
        ({"To": "+49170"}, 400, 21211),
        ({"To": "whatsapp:+491701234567"}, 400, 21211),
        ({"To": "+881612345678"}, 400, 21408),
        ({"To": "+449098790000"}, 400, 21408),
        ({"From": ""}, 400, 21603),
        ({"From": "far too long a name"}, 400, 21212),
        ({"Body": ""}, 400, 21602),
        ({"Body": "x" * 1601}, 400, 21617),
        ({"Body": "Ж" * 671}, 400, 21617),
        ({"StatusCallback": "https://evil.example/"}, 400, 21609),
        ({"StatusCallback": "ftp://app.example/"}, 400, 21609),
        ({"StatusCallback": "https://user:pass@app.example/"}, 400, 21609),
        ({"ValidityPeriod": "36001"}, 400, 20001),
    ],
)
def test_refusals(client: TestClient, form: dict[str, str], status: int, code: int) -> None:
    answer = twilio(client, **form)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["status"] == status
    assert answer.json()["more_info"].endswith(str(code))


def test_only_allowed_countries(tmp_path: Path) -> None:
    service, _ = made(tmp_path, policy={"countries": ["DE", "AT"]})
    with TestClient(service.public) as client:
        assert twilio(client, To="+436641234567").status_code == 201
        assert twilio(client, To="+33612345678").json()["code"] == 21408
        # Across the border of one country code: Jamaica has +1, too.
        assert twilio(client, To="+18765551234").json()["code"] == 21408


def test_caps_per_number_prefix_and_day(client: TestClient) -> None:
    for _ in range(3):
        assert twilio(client).status_code == 201
    refused = twilio(client)
    assert (refused.status_code, refused.json()["code"]) == (429, 20429)
    assert "number" in refused.json()["message"]
    assert twilio(client, To="+491701234568").status_code == 201
    assert openmarket(client, "491701234569").status_code == 202
    assert "prefix" in twilio(client, To="+491701234570").json()["message"]
    for last in range(3):
        assert twilio(client, To=f"+4915112345{last}0").status_code == 201
    assert "day" in openmarket(client, "436641234567").json()["error"]["description"]


def test_caps_count_over_a_restart(tmp_path: Path) -> None:
    for _ in range(3):
        service, _ = made(tmp_path)
        with TestClient(service.public) as client:
            assert twilio(client).status_code == 201
        service.store.close()
    service, _ = made(tmp_path)
    with TestClient(service.public) as client:
        assert twilio(client).status_code == 429


def test_whoever_opted_out_gets_nothing(world: tuple[Service, FakeKannel, TestClient]) -> None:
    service, _, client = world
    service.store.opt(TO, True)
    assert twilio(client).json()["code"] == 21610
    assert openmarket(client).status_code == 400
    service.store.opt(TO, False)
    assert twilio(client).status_code == 201


def test_wrong_credentials(client: TestClient) -> None:
    for headers in ({}, basic(SID, "wrong"), basic("app", TOKEN), {"Authorization": "Bearer x"}):
        answer = twilio(client, headers)
        assert (answer.status_code, answer.json()["code"]) == (401, 20003)
        assert "basic" in answer.headers["www-authenticate"].lower()
    assert openmarket(client, password="wrong").status_code == 401
    # The other account is good, but not for this one's messages.
    assert twilio(client, basic("app", PASSWORD)).status_code == 404
    assert client.post("/sms/v4/mt", json={}, headers=basic(SID, TOKEN)).status_code == 401


def test_guessing_is_bounded(client: TestClient) -> None:
    for _ in range(20):
        assert client.get("/health", headers=basic("app", "guess")).status_code == 401
    assert client.get("/health", headers=basic("app", PASSWORD)).status_code == 429
    assert twilio(client).status_code == 429


def test_openmarket_s_answer_is_what_sydent_reads(world: tuple[Service, FakeKannel, TestClient]) -> None:
    service, _, client = world
    answer = openmarket(client)
    assert answer.status_code == 202
    ticket = answer.headers["location"].split("/")[-1]
    assert answer.headers["x-request-id"] == ticket
    message = service.store.message(ticket)
    assert message is not None
    assert (message.recipient, message.sender, message.body) == (TO, "Testnet", "Code 2")
    assert "error" in openmarket(client, "123").json()
    assert client.post("/sms/v4/mt", content=b"{", headers=basic("app", PASSWORD)).status_code == 400


def test_too_large_a_request(client: TestClient) -> None:
    assert twilio(client, Body="x" * 70_000).status_code == 413
    assert client.post("/sms/v4/mt", content=b"x" * 70_000, headers=basic("app", PASSWORD)).status_code == 413


def test_what_only_the_record_knows_waits_for_it(client: TestClient) -> None:
    answer = client.get(URL, headers=basic(SID, TOKEN))
    assert (answer.status_code, answer.json()["code"]) == (503, 20503)
    assert client.get("/inbound", headers=basic("app", PASSWORD)).status_code == 503
    # Accepting does not.
    assert twilio(client).status_code == 201


def test_health_names_what_is_wrong(world: tuple[Service, FakeKannel, TestClient]) -> None:
    _, kannel, client = world
    kannel.online = ["second"]
    answer = client.get("/health", headers=basic("app", PASSWORD))
    assert answer.status_code == 503, "no database here"
    assert answer.json() == {
        "status": "failed",
        "kannel": True,
        "database": False,
        "carriers": [{"name": "first", "online": False}, {"name": "second", "online": True}],
        "queue": {"queued": 0, "held": 0, "sending": 0},
    }
    assert client.get("/health").status_code == 401
    # The component's probes look for this text in it.
    assert '{"name":"second","online":true}' in answer.text


def test_nothing_of_kannel_s_door_is_public(client: TestClient) -> None:
    assert client.get("/internal-token/report?sid=SM1&type=1").status_code == 404


class _InProcess(HttpClient):
    """Twilio's client asks the application itself instead of the network."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    def request(self, method: str, url: str, **more: Any) -> Response:
        parts = urlsplit(url)
        answer = self._client.request(
            method,
            parts._replace(scheme="", netloc="").geturl(),
            params=more.get("params"),
            data=more.get("data"),
            headers={**(more.get("headers") or {}), **basic(*more["auth"])},
        )
        return Response(answer.status_code, answer.text)


def test_twilio_s_own_client(client: TestClient) -> None:
    twilio_client = Client(SID, TOKEN, http_client=_InProcess(client))
    message = twilio_client.messages.create(to=TO, from_="Demo", body="Code 1")
    assert (message.status, message.to, message.num_segments) == ("queued", TO, "1")
    assert message.date_created is not None
    assert twilio_client.messages(message.sid).fetch().body == "Code 1"
    with pytest.raises(TwilioRestException) as refused:
        twilio_client.messages.create(to="+881612345678", from_="Demo", body="x")
    assert (refused.value.status, refused.value.code) == (400, 21408)
