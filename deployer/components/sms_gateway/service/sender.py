"""Moves messages from our spool to Kannel, best carrier first, and takes back what got lost on the way."""

from __future__ import annotations

import asyncio
import logging
import time

from .config import Config
from .kannel import Kannel, Unreachable
from .phone import mask
from .store import Message, Store
from .webhooks import Webhooks

log = logging.getLogger("sms_gateway.sender")

# Seconds between two looks at the queue without a new message, and at what lies with Kannel.
PAUSE = 1.0
LOOK_AFTER = 15.0
# Seconds after which a message that neither a carrier nor Kannel's store knows is handed over again.
LOST_AFTER = 60.0
# Kannel says no to a submission: seconds until the next try.
RETRY = 5.0
# Twilio's codes: 30036 validity period expired, 30008 unknown error.
EXPIRED = 30036
REFUSED = 30008


class Sender:
    """The loop. `wake()` when there is a new message."""

    def __init__(self, config: Config, store: Store, kannel: Kannel, webhooks: Webhooks) -> None:
        self._store = store
        self._kannel = kannel
        self._webhooks = webhooks
        self._new = asyncio.Event()
        self._looked = 0.0

    def wake(self) -> None:
        self._new.set()

    async def run(self) -> None:
        """For ever. A failure is logged and tried again: the messages are on the disk."""
        while True:
            try:
                sent = await self.once()
            except Unreachable as error:
                log.warning("messages wait: %s", error)
                sent = 0
                await asyncio.sleep(PAUSE)
            except Exception:
                log.exception("handing messages to Kannel failed; trying again")
                sent = 0
            if not sent:
                try:
                    await asyncio.wait_for(self._new.wait(), PAUSE)
                except TimeoutError:
                    pass
            self._new.clear()

    async def once(self) -> int:
        """Hand over what is due. Returns how many messages Kannel took."""
        await self._expire()
        if time.monotonic() - self._looked > LOOK_AFTER:
            self._looked = time.monotonic()
            await self._recover()
        due = await asyncio.to_thread(self._store.due)
        if not due:
            return 0
        results = [await self._hand_over(message) for message in due]
        return sum(results)

    async def _hand_over(self, message: Message) -> bool:
        status = await self._kannel.status()
        carrier = choose(self._kannel.names, status.online, message.refused_by)
        if carrier is None:
            return False
        taken, words = await self._kannel.submit(message, carrier)
        if taken:
            await asyncio.to_thread(self._store.handed_over, message.sid, carrier)
            return True
        log.warning("%s to %s: Kannel did not take it: %s", message.sid, mask(message.recipient), words)
        await asyncio.to_thread(self._store.again, message.sid, RETRY)
        return False

    async def _expire(self) -> None:
        for sid in await asyncio.to_thread(self._store.expired):
            message = await asyncio.to_thread(self._store.advance, sid, "failed", EXPIRED)
            if message:
                log.warning("%s to %s: expired before a carrier took it", sid, mask(message.recipient))
                await self._webhooks.status(message)

    async def _recover(self) -> None:
        """Hand over again what Kannel has lost: its spool is not synced, and a report can die with smsbox."""
        silent = await asyncio.to_thread(self._store.in_flight, LOST_AFTER)
        if not silent:
            return
        stored = await self._kannel.stored_recipients()
        if stored is None:
            return
        for message in silent:
            if not {message.recipient, message.recipient.lstrip("+")} & stored:
                log.warning(
                    "%s to %s: lost in Kannel, handing it over again", message.sid, mask(message.recipient)
                )
                await asyncio.to_thread(self._store.again, message.sid)

    async def refused(self, sid: str, carrier: str) -> None:
        """A carrier refused a message for good: the next one gets it, until none is left."""
        message = await asyncio.to_thread(self._store.message, sid)
        if message is None or message.body is None:
            return
        refused_by = tuple(dict.fromkeys((*message.refused_by, carrier)))
        if set(self._kannel.names) - set(refused_by):
            await asyncio.to_thread(self._store.again, sid, 0.0, refused_by)
            self.wake()
            return
        failed = await asyncio.to_thread(self._store.advance, sid, "failed", REFUSED, carrier)
        if failed:
            await self._webhooks.status(failed)


def choose(names: tuple[str, ...], online: frozenset[str], refused_by: tuple[str, ...]) -> str | None:
    """The first carrier in order of preference that is bound and has not refused this message."""
    for name in names:
        if name in online and name not in refused_by:
            return name
    return None
