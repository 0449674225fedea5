"""Kannel's two HTTP interfaces: smsbox's sendsms and bearerbox's status."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx

from .config import Config
from .phone import valid_sender
from .store import Message

# Which events are reported: 1 delivered, 2 not delivered, 4 buffered, 8 taken by the carrier, 16 refused by it.
REPORT_MASK = 31
# Seconds that an answer about the carriers counts.
STATUS_AGE = 1.0
CATCH = "catch"

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f]")


@dataclass(frozen=True)
class Status:
    """What bearerbox says. alive: it answers. online: the smsc-ids that are bound."""

    alive: bool = False
    online: frozenset[str] = frozenset()
    queued: int = 0
    at: float = field(default=0.0, compare=False)


class Unreachable(Exception):
    """smsbox does not answer."""


class Kannel:
    """A client of the Kannel on this machine."""

    def __init__(self, config: Config, http: httpx.AsyncClient) -> None:
        self._config = config
        self._http = http
        self._status = Status()

    @property
    def names(self) -> tuple[str, ...]:
        """The smsc-ids in order of preference."""
        if self._config.catch_dir:
            return (CATCH,)
        return tuple(carrier.name for carrier in self._config.carriers)

    async def status(self, fresh: bool = False) -> Status:
        """Which carriers are online; at most STATUS_AGE seconds old."""
        now = time.monotonic()
        if not fresh and now - self._status.at < STATUS_AGE:
            return self._status
        try:
            tree = await self._admin("status.xml")
        except (httpx.HTTPError, ElementTree.ParseError):
            self._status = Status(at=now)
            return self._status
        online = frozenset(
            (smsc.findtext("id") or "").strip()
            for smsc in tree.iterfind(".//smscs/smsc")
            if (smsc.findtext("status") or "").startswith("online")
        )
        self._status = Status(True, online, int(tree.findtext(".//sms/storesize") or 0), now)
        return self._status

    async def stored_recipients(self) -> frozenset[str] | None:
        """Recipients of everything in bearerbox's store, or None when it does not say."""
        try:
            tree = await self._admin("store-status.xml")
        except (httpx.HTTPError, ElementTree.ParseError):
            return None
        return frozenset((item.text or "").strip() for item in tree.iter("receiver"))

    async def _admin(self, page: str) -> ElementTree.Element:
        kannel = self._config.kannel
        answer = await self._http.get(
            f"{kannel.status_url}/{page}", params={"password": kannel.password}, timeout=3.0
        )
        answer.raise_for_status()
        text = answer.text.strip()
        if not text.startswith("<?xml"):
            raise ElementTree.ParseError("no XML: bearerbox refused the question")
        # store-status.xml prints messages one after the other, without an element around them, and the texts in
        # them are URL-encoded but may hold control characters of binary messages.
        prolog, _, rest = text.partition("?>")
        return ElementTree.fromstring(f"{prolog}?><all>{_CONTROL.sub('', rest)}</all>")

    def sender_for(self, message: Message, carrier: str) -> str:
        """What the message is sent as: the carrier's own sender where it has one."""
        for known in self._config.carriers:
            if known.name == carrier and known.sender:
                return known.sender
        return message.sender if valid_sender(message.sender) else self._config.sender

    async def submit(self, message: Message, carrier: str) -> tuple[bool, str]:
        """Hand a message over. Returns whether Kannel keeps it, and its words; raises Unreachable."""
        kannel, config = self._config.kannel, self._config
        report = (
            f"http://127.0.0.1:{config.internal_port}/{config.internal_token}/report"
            f"?sid={message.sid}&type=%d&carrier=%i&reply=%A"
        )
        values = {
            "username": kannel.user,
            "password": kannel.password,
            "smsc": carrier,
            "from": self.sender_for(message, carrier),
            "to": message.recipient,
            "text": message.body or "",
            "charset": "UTF-8",
            "coding": "2" if message.encoding == "ucs2" else "0",
            "validity": str(max(1, int((message.expires - time.time()) / 60))),
            "dlr-mask": str(REPORT_MASK),
            "dlr-url": report,
        }
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items())
        try:
            answer = await self._http.get(f"{kannel.sendsms_url}?{query}", timeout=20.0)
        except httpx.HTTPError as error:
            raise Unreachable(f"smsbox does not answer: {type(error).__name__}") from error
        # "0: Accepted for delivery" or "3: Queued for later delivery"
        return answer.status_code == 202 and answer.text[:1] in ("0", "3"), answer.text[:80]
