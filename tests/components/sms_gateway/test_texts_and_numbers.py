"""Alphabets, segments, numbers, and the guard at the door."""

from __future__ import annotations

import pytest

from deployer.components.sms_gateway.service import guard, phone
from deployer.components.sms_gateway.service.policy import prefix
from deployer.components.sms_gateway.service.text import shape
from tests.components.sms_gateway.service import basic


@pytest.mark.parametrize(
    ("text", "encoding", "segments"),
    [
        ("", "gsm", 1),
        ("x" * 160, "gsm", 1),
        ("x" * 161, "gsm", 2),
        ("x" * 306, "gsm", 2),
        ("x" * 307, "gsm", 3),
        ("€" * 80, "gsm", 1),
        ("€" * 81, "gsm", 2),
        # 152 and an escape pair do not fit 153: the pair goes to the next one.
        ("x" * 152 + "€" + "x" * 152, "gsm", 3),
        ("Ж" * 70, "ucs2", 1),
        ("Ж" * 71, "ucs2", 2),
        ("Ж" * 134, "ucs2", 2),
        ("😀" * 35, "ucs2", 1),
        ("😀" * 36, "ucs2", 2),
        ("😀" * 67, "ucs2", 3),
    ],
)
def test_segments(text: str, encoding: str, segments: int) -> None:
    assert shape(text) == (encoding, segments)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("491701234567", "invalid"),
        ("+0491701234567", "invalid"),
        ("+49170", "invalid"),
        ("+999123456789", "invalid"),
        ("+4917012345678901234", "invalid"),
        ("+449098790000", "costly"),
        ("+881612345678", "costly"),
        ("+870773111632", "costly"),
        ("+18005551234", "costly"),
        ("+33612345678", "country"),
    ],
)
def test_numbers_that_are_not_sent_to(number: str, reason: str) -> None:
    with pytest.raises(phone.Refused) as refused:
        phone.destination(number, ("DE", "GB", "US"))
    assert refused.value.reason == reason


def test_numbers_that_are() -> None:
    assert phone.destination("+491701234567") == "+491701234567"
    assert phone.destination("+33612345678", ()) == "+33612345678"


@pytest.mark.parametrize("sender", ["+4917012345", "12345", "Demo", "A1", "My Shop"])
def test_senders(sender: str) -> None:
    assert phone.valid_sender(sender)


@pytest.mark.parametrize("sender", ["", "12", "123456789", "TwelveLetter", "Grüße", "a\nb", "+0123456789"])
def test_no_senders(sender: str) -> None:
    assert not phone.valid_sender(sender)


def test_masks_and_prefixes() -> None:
    assert phone.mask("+491701234567") == "+49…67"
    assert prefix("+491701234567", 7) == "4917012"


def test_the_guard_forgets_after_its_window_and_takes_an_ipv6_network_as_one_place() -> None:
    now = [0.0]
    door = guard.Guard({"app": "secret", "none": ""}, clock=lambda: now[0])
    assert door.user(basic("app", "secret")["Authorization"]) == "app"
    assert door.user(basic("none", "")["Authorization"]) is None
    assert door.user("Basic !!!") is None and door.user("") is None
    for host in range(guard.GUESSES):
        door.failed(f"2001:db8::{host}")
    assert door.blocked("2001:db8::ffff") and not door.blocked("2001:db8:1::1")
    now[0] = guard.WINDOW + 1
    assert not door.blocked("2001:db8::ffff")
