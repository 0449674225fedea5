"""From the spool to a carrier and back: order of preference, refusals, losses, reports, callbacks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, quote

import pytest
from starlette.testclient import TestClient
from twilio.request_validator import RequestValidator

from deployer.components.sms_gateway.service import policy, webhooks
from deployer.components.sms_gateway.service.app import Service
from deployer.components.sms_gateway.service.kannel import Unreachable
from deployer.components.sms_gateway.service.sender import choose
from deployer.components.sms_gateway.service.store import Message
from tests.components.sms_gateway.service import INTERNAL, TOKEN, FakeKannel, made

TO = "+491701234567"
CALLBACK = "http://127.0.0.1:8000/status?x=1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Service, FakeKannel]]:
    service, kannel = made(tmp_path)
    yield service, kannel
    service.store.close()


def accept(service: Service, body: str = "Code 1", **more: str) -> Message:
    return asyncio.run(
        policy.accept(
            service.config, service.store, api="twilio", recipient=TO, body=body, callback=CALLBACK, **more
        )
    )


def step(service: Service) -> int:
    return asyncio.run(service.sender.once())


def report(service: Service, sid: str, kind: int, carrier: str = "first", reply: str = "") -> int:
    with TestClient(service.internal) as kannel:
        query = f"sid={sid}&type={kind}&carrier={carrier}&reply={quote(reply)}"
        return kannel.get(f"/{INTERNAL}/report?{query}").status_code


def state(service: Service, sid: str) -> Message:
    message = service.store.message(sid)
    assert message is not None
    return message


def callbacks(service: Service, kannel: FakeKannel) -> list[dict[str, str]]:
    asyncio.run(service.webhooks.once())
    return [dict(parse_qsl(request.content.decode())) for request in kannel.callbacks]


def test_the_first_carrier_that_is_bound() -> None:
    names = ("a", "b", "c")
    assert choose(names, frozenset("abc"), ()) == "a"
    assert choose(names, frozenset("bc"), ()) == "b"
    assert choose(names, frozenset("bc"), ("b",)) == "c"
    assert choose(names, frozenset(), ()) is None


def test_the_operators_own_sender_is_taken_as_it_is(world: tuple[Service, FakeKannel]) -> None:
    """An app says what its template told it; ten digits without a country's plus are nobody else's to use."""
    service, _ = world
    service.config = replace(service.config, sender="4915100001")
    assert accept(service, sender="4915100001").sender == "4915100001"
    with pytest.raises(policy.Rejected, match="a sender is a number"):
        accept(service, sender="4915100002")


def test_the_text_is_kept_until_a_carrier_has_taken_it(world: tuple[Service, FakeKannel]) -> None:
    service, kannel = world
    sid = accept(service, "Code ✓").sid
    assert step(service) == 1
    (sent,) = kannel.submitted
    assert (sent["smsc"], sent["to"], sent["from"], sent["text"]) == ("first", TO, "Demo", "Code ✓")
    assert (sent["coding"], sent["charset"], sent["dlr-mask"]) == ("2", "UTF-8", "31")
    assert (state(service, sid).status, state(service, sid).body) == ("sending", "Code ✓")
    report(service, sid, 8, reply="ACK/")
    assert (state(service, sid).status, state(service, sid).body) == ("sent", None)
    report(service, sid, 1, reply="id:1 sub:001 stat:DELIVRD err:000 text:Code")
    assert state(service, sid).status == "delivered"
    # A late word changes nothing.
    report(service, sid, 2, reply="stat:UNDELIV err:001")
    assert state(service, sid).status == "delivered"
    rows = service.store.rows("SELECT kind, stat, err FROM reports ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("sent", "", ""),
        ("delivered", "DELIVRD", "000"),
        ("undelivered", "UNDELIV", "001"),
    ]
    assert "Code" not in json.dumps([dict(row) for row in service.store.rows("SELECT * FROM reports")])


def test_a_dead_first_carrier_and_a_sender_of_the_second_s_own(world: tuple[Service, FakeKannel]) -> None:
    service, kannel = world
    kannel.online = ["second"]
    accept(service)
    assert step(service) == 1
    assert (kannel.submitted[0]["smsc"], kannel.submitted[0]["from"]) == ("second", "4900002")


def test_without_a_carrier_it_waits(world: tuple[Service, FakeKannel]) -> None:
    service, kannel = world
    kannel.online = []
    sid = accept(service).sid
    assert step(service) == 0
    assert state(service, sid).status == "queued" and kannel.submitted == []


def test_a_refusal_goes_to_the_next_carrier_and_fails_at_the_last(world: tuple[Service, FakeKannel]) -> None:
    service, kannel = world
    sid = accept(service).sid
    step(service)
    report(service, sid, 16, "first", "NACK/0x00000045/Submit failed")
    assert (state(service, sid).status, state(service, sid).refused_by) == ("queued", ("first",))
    step(service)
    assert [sent["smsc"] for sent in kannel.submitted] == ["first", "second"]
    report(service, sid, 16, "second", "NACK/0x00000045/Submit failed")
    assert (state(service, sid).status, state(service, sid).error) == ("failed", 30008)
    assert state(service, sid).body is None
    assert callbacks(service, kannel)[-1]["MessageStatus"] == "failed"


def test_kannel_away_or_unwilling_loses_nothing(world: tuple[Service, FakeKannel]) -> None:
    service, kannel = world
    sid = accept(service).sid
    kannel.answer = (503, "3: Temporary")
    assert step(service) == 0
    assert state(service, sid).status == "queued"
    service.store.again(sid)
    asyncio.run(service.kannel.status())
    kannel.alive = False
    with pytest.raises(Unreachable):
        step(service)
    kannel.alive, kannel.answer = True, (202, "0: Accepted for delivery")
    assert step(service) == 1


def test_what_kannel_lost_is_handed_over_again(world: tuple[Service, FakeKannel]) -> None:
    service, kannel = world
    sid = accept(service).sid
    step(service)
    service.store.change("UPDATE messages SET handed_over = handed_over - 61")
    kannel.stored = [TO.lstrip("+")]
    service.sender._looked = -1000.0
    step(service)
    assert len(kannel.submitted) == 1, "it is in Kannel's store"
    kannel.stored = []
    service.sender._looked = -1000.0
    step(service)
    assert len(kannel.submitted) == 2
    assert state(service, sid).status == "sending"


def test_what_nobody_takes_in_its_time_fails(world: tuple[Service, FakeKannel]) -> None:
    service, kannel = world
    kannel.online = []
    sid = accept(service).sid
    service.store.change("UPDATE messages SET expires = 1")
    step(service)
    assert (state(service, sid).status, state(service, sid).error) == ("failed", 30036)
    assert callbacks(service, kannel)[0]["ErrorCode"] == "30036"


def test_held_messages_wait_for_their_release(world: tuple[Service, FakeKannel]) -> None:
    service, _ = world
    service.store.change("INSERT INTO settings VALUES ('hold', '1')")
    accept(service)
    assert step(service) == 0
    assert service.store.counts() == {"queued": 0, "held": 1, "sending": 0}


def test_everything_accepted_is_there_after_a_restart(tmp_path: Path) -> None:
    service, _ = made(tmp_path)
    sid = accept(service).sid
    # No close: the process was killed.
    again, _ = made(tmp_path)
    assert state(again, sid).body == "Code 1"
    assert step(again) == 1


def test_callbacks_are_signed_as_twilio_s_validator_wants(world: tuple[Service, FakeKannel]) -> None:
    service, kannel = world
    sid = accept(service).sid
    step(service)
    report(service, sid, 8)
    report(service, sid, 1, reply="stat:DELIVRD")
    forms = callbacks(service, kannel)
    assert [form["MessageStatus"] for form in forms] == ["sent", "delivered"]
    assert forms[0]["MessageSid"] == sid and forms[0]["To"] == TO
    for request, form in zip(kannel.callbacks, forms, strict=True):
        signed = request.headers["x-twilio-signature"]
        assert RequestValidator(TOKEN).validate(CALLBACK, form, signed)
        assert request.headers["host"] == "127.0.0.1:8000"


def test_a_callback_is_tried_again_and_follows_no_redirect(world: tuple[Service, FakeKannel]) -> None:
    service, kannel = world
    for status in (500, 302):
        kannel.callback_status = status
        kannel.callbacks.clear()
        asyncio.run(service.webhooks.queue(CALLBACK, {"MessageSid": f"SM{status}"}))
        asyncio.run(service.webhooks.once())
        assert len(kannel.callbacks) == 1
    rows = service.store.rows("SELECT tries FROM webhooks")
    assert [row["tries"] for row in rows] == [1, 1]
    service.store.change("UPDATE webhooks SET next_try = 0, made = made - 90000")
    asyncio.run(service.webhooks.once())
    assert service.store.rows("SELECT * FROM webhooks") == []


@pytest.mark.parametrize(
    ("host", "address", "scheme", "allowed"),
    [
        ("app.example", "203.0.114.5", "https", True),
        ("app.example", "203.0.114.5", "http", False),
        ("app.example", "10.0.0.5", "http", True),
        ("app.example", "127.0.0.1", "https", False),
        ("app.example", "::ffff:127.0.0.1", "https", False),
        ("app.example", "169.254.169.254", "http", False),
        ("app.example", "0.0.0.0", "http", False),
        ("127.0.0.1", "127.0.0.1", "http", True),
        ("localhost", "127.0.0.1", "http", True),
    ],
)
def test_where_a_named_host_may_lead(
    monkeypatch: pytest.MonkeyPatch, host: str, address: str, scheme: str, allowed: bool
) -> None:
    async def resolve() -> str:
        async def answer(*unused: object, **more: object) -> list[tuple[object, ...]]:
            return [(0, 0, 0, "", (address, 443))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
        return await webhooks.resolve(host, 443, scheme)

    if allowed:
        assert asyncio.run(resolve()) == address
    else:
        with pytest.raises(webhooks.NotAllowed):
            asyncio.run(resolve())


def inbound(service: Service, text: str, identity: str = "1", sender: str = "491701234567") -> None:
    with TestClient(service.internal) as kannel:
        query = (
            f"id={identity}&from={sender}&to=4900001&text={quote(text)}&coding=0&charset=UTF-8&carrier=first"
        )
        assert kannel.get(f"/{INTERNAL}/inbound?{query}").status_code == 200


def test_inbound_is_kept_once_and_forwarded(tmp_path: Path) -> None:
    service, kannel = made(tmp_path, policy={"callback_hosts": ["127.0.0.1"], "inbound_url": CALLBACK})
    inbound(service, "Grüße ✓")
    inbound(service, "Grüße ✓")
    (row,) = service.store.rows("SELECT * FROM inbound")
    assert (row["sender"], row["recipient"], row["body"]) == (TO, "4900001", "Grüße ✓")
    (form,) = callbacks(service, kannel)
    assert (form["Body"], form["From"], form["SmsStatus"]) == ("Grüße ✓", TO, "received")


def test_stop_and_unstop(world: tuple[Service, FakeKannel]) -> None:
    service, _ = world
    inbound(service, " Stop. ", "1")
    assert service.store.opted_out(TO)
    inbound(service, "do not stop", "2")
    inbound(service, "unstop", "3")
    assert not service.store.opted_out(TO)


def test_kannel_s_door_needs_its_token(world: tuple[Service, FakeKannel]) -> None:
    service, _ = world
    with TestClient(service.internal) as kannel:
        for path in ("report?sid=SM1&type=1", "inbound?from=1&to=2", "catch?to=1"):
            assert kannel.get(f"/wrong/{path}").status_code == 403


def test_the_catch_keeps_texts_in_any_alphabet(tmp_path: Path) -> None:
    folder = tmp_path / "caught"
    folder.mkdir()
    service, _ = made(tmp_path, catch_dir=str(folder))
    with TestClient(service.internal) as kannel:
        wide = quote("Код 1 😀".encode("utf-16-be"))
        for text, more in (
            (wide, "coding=2&charset=UTF-16BE"),
            ("Code%20%E2%82%AC", "coding=0&charset=UTF-8"),
        ):
            answer = kannel.get(f"/{INTERNAL}/catch?to=%2B491701234567&from=Demo&text={text}&{more}")
            assert (answer.status_code, answer.text) == (202, "Sent.")
    caught = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    assert [item["text"] for item in caught] == ["Код 1 😀", "Code €"]
    assert caught[0]["to"] == TO and caught[0]["from"] == "Demo"
    assert set(caught[0]) == {"to", "from", "text", "at"}
    assert service.kannel.names == ("catch",)
