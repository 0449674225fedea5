"""The rig's carrier against a client that somebody else wrote (smpp34's)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import smpp34

from tests.rig.smpp_carrier import Carrier, obey
from tests.rig.smpp_text import concatenation, decode_text


@pytest.fixture
def carrier(tmp_path: Path) -> Iterator[Carrier]:
    with Carrier("stack", "secret", store=tmp_path / "carrier", report_after=0.01) as made:
        yield made


def client(carrier: Carrier, password: str = "secret") -> smpp34.Client:
    return smpp34.Client(
        "127.0.0.1", carrier.port, "stack", password, bind_type="TRX", connect_timeout_ms=3000
    )


def test_a_message_is_recorded_and_reported(carrier: Carrier, tmp_path: Path) -> None:
    async def scenario() -> tuple[str | None, bytes]:
        smsc = await client(carrier).connect()
        sent = await smsc.submit_sm("491701234567", b"Code 1", source_addr="Demo", registered_delivery=1)
        report = await asyncio.wait_for(smsc.next(), 5)
        assert isinstance(report, smpp34.DeliverSmEvent)
        await smsc.unbind()
        return sent.message_id, report.short_message

    message_id, report = asyncio.run(scenario())
    received = carrier.wait_message()
    assert (received.sender, received.recipient, received.text) == ("Demo", "491701234567", "Code 1")
    assert received.ids == (message_id,)
    assert f"id:{message_id} ".encode() in report and b"stat:DELIVRD" in report
    line = (tmp_path / "carrier" / "messages.jsonl").read_text(encoding="utf-8")
    assert json.loads(line)["text"] == "Code 1"


def test_parts_are_joined_before_they_are_decoded(carrier: Carrier) -> None:
    text = "Ж" * 66 + "😀" + "Ж"
    data = text.encode("utf-16-be")

    async def scenario() -> None:
        smsc = await client(carrier).connect()
        # The cut goes through the middle of the surrogate pair.
        for number, part in ((2, data[134:]), (1, data[:134])):
            header = bytes([5, 0, 3, 9, 2, number])
            await smsc.submit_sm(
                "491701234567", header + part, source_addr="Demo", esm_class=0x40, data_coding=8
            )

    asyncio.run(scenario())
    received = carrier.wait_message()
    assert (received.text, received.parts) == (text, 2)


def test_a_report_waits_for_whoever_binds_next(carrier: Carrier) -> None:
    """As carriers do: a service that was restarted between a message and its report hears of it."""

    async def submit() -> str | None:
        smsc = await client(carrier).connect()
        sent = await smsc.submit_sm("491701234567", b"Code 2", source_addr="Demo", registered_delivery=1)
        await smsc.unbind()
        return sent.message_id

    async def listen() -> bytes:
        smsc = await client(carrier).connect()
        report = await asyncio.wait_for(smsc.next(), 5)
        assert isinstance(report, smpp34.DeliverSmEvent)
        await smsc.unbind()
        return report.short_message

    message_id = asyncio.run(submit())
    assert f"id:{message_id} ".encode() in asyncio.run(listen())
    # It was acknowledged: nobody gets it a second time.
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(listen(), 1))
    assert not carrier.owed


def test_a_wrong_password_is_refused(carrier: Carrier) -> None:
    with pytest.raises(Exception, match=r"(?i)bind|0x0000000D|refus|closed"):
        asyncio.run(asyncio.wait_for(_connect(client(carrier, "wrong")), 10))
    assert carrier.bound == 0


async def _connect(made: smpp34.Client) -> None:
    await made.connect()


@pytest.mark.parametrize(("fault", "status"), [("throttle", 0x58), ("reject", 0x45), ("temporary", 0x8)])
def test_faults_answer_with_their_status(carrier: Carrier, fault: str, status: int) -> None:
    async def scenario() -> int:
        smsc = await client(carrier).connect()
        carrier.fault = fault
        answer = await smsc.submit_sm("491701234567", b"x", source_addr="Demo")
        return answer.command_status

    assert asyncio.run(scenario()) == status
    assert carrier.messages == []


def test_it_dies_and_rises_at_the_same_port(carrier: Carrier) -> None:
    async def scenario() -> None:
        smsc = await client(carrier).connect()
        await asyncio.to_thread(carrier.die)
        ended = await asyncio.wait_for(smsc.next(), 5)
        assert isinstance(ended, smpp34.Disconnected)

    asyncio.run(scenario())
    port = carrier.port
    obey(carrier, "rise")
    assert carrier.port == port
    asyncio.run(asyncio.wait_for(_connect(client(carrier)), 5))


def test_a_phone_writes(carrier: Carrier) -> None:
    async def scenario() -> tuple[bytes, int]:
        smsc = await client(carrier).connect()
        await asyncio.to_thread(obey, carrier, 'inbound 491701234567 4900001 "Tschüß ✓"')
        event = await asyncio.wait_for(smsc.next(), 5)
        assert isinstance(event, smpp34.DeliverSmEvent)
        return event.short_message, event.data_coding

    assert decode_text(*asyncio.run(scenario())) == "Tschüß ✓"


def test_headers_and_alphabets() -> None:
    assert concatenation(bytes([0, 3, 7, 3, 2])) == (7, 3, 2)
    assert concatenation(bytes([8, 4, 1, 2, 3, 2])) == (258, 3, 2)
    assert concatenation(bytes([5, 4, 0, 0, 0, 0])) == (0, 1, 1)
    assert decode_text(b"\x00\x1b\x65 \x1b\x3c\x11", 0) == "@€ [_"
    with pytest.raises(ValueError, match="not understood"):
        obey(Carrier("a", "b"), "dance")
