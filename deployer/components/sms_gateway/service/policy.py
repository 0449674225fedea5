"""Whether a message may be accepted, and its acceptance: the one door for every dialect."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass

import phonenumbers

from . import phone
from .config import Config
from .store import Capped, Message, Store
from .text import MAX_SEGMENTS, shape

# Seconds that a message may wait for a carrier when the app does not say: Twilio's own longest.
VALIDITY = 36_000


@dataclass(frozen=True)
class Rejected(Exception):
    """A message is not accepted. reason is one of the keys below; each dialect has its own code for it.

    "recipient", "country", "costly", "sender", "empty", "long", "opted-out", "number", "prefix", "day"
    """

    reason: str
    text: str


async def accept(
    config: Config,
    store: Store,
    *,
    api: str,
    recipient: str,
    body: str,
    sender: str = "",
    service: str = "",
    callback: str = "",
    validity: int = VALIDITY,
) -> Message:
    """Check a message against the policy and keep it. On return it is on the disk. Raises Rejected."""
    policy = config.policy
    try:
        number = phone.destination(recipient, policy.countries)
    except phone.Refused as error:
        reason = "recipient" if error.reason == "invalid" else error.reason
        raise Rejected(reason, str(error)) from error
    # The operator's own is taken as it is: carriers have their forms for it, and an app says what it was told.
    if sender and sender != config.sender and not phone.valid_sender(sender):
        raise Rejected(
            "sender", "a sender is a number in E.164 form, a short code, or up to 11 letters and digits"
        )
    if not body:
        raise Rejected("empty", "a message needs a text")
    form = shape(body)
    if form.segments > MAX_SEGMENTS:
        raise Rejected("long", f"the text needs {form.segments} segments, more than {MAX_SEGMENTS}")
    message = Message(
        sid="SM" + secrets.token_hex(16),
        api=api,
        sender=sender or config.sender,
        recipient=number,
        body=body,
        encoding=form.encoding,
        segments=form.segments,
        expires=time.time() + validity,
        service=service,
        callback=callback,
    )
    caps = (
        ("number", number, policy.per_number),
        ("prefix", prefix(number, policy.prefix_digits), policy.per_prefix),
        ("day", "", policy.per_day),
    )

    def keep() -> Message:
        if store.opted_out(number):
            raise Rejected("opted-out", "the recipient has asked for no more messages (STOP)")
        try:
            store.accept(message, caps, held=store.holding())
        except Capped as error:
            raise Rejected(error.kind, f"{error} for today (UTC)") from error
        kept = store.message(message.sid)
        assert kept is not None
        return kept

    return await asyncio.to_thread(keep)


def prefix(number: str, digits: int) -> str:
    """The first digits of a number, country code included: what a pumped range has in common."""
    return number.lstrip("+")[:digits]


def country(number: str) -> str:
    """ISO code of a number's country, for the log."""
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number, None)) or "?"
    except phonenumbers.NumberParseException:
        return "?"
