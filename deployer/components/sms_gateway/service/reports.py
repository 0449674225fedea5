"""What Kannel tells us, on a listener of its own on loopback: delivery reports, inbound messages, the catch store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .config import Config
from .guard import same
from .phone import mask
from .sender import Sender
from .store import Store
from .webhooks import Webhooks

log = logging.getLogger("sms_gateway.reports")

# Kannel's events (%d) by name.
DELIVERED, UNDELIVERED, BUFFERED, TAKEN, REFUSED = 1, 2, 4, 8, 16
KINDS = {
    DELIVERED: "delivered",
    UNDELIVERED: "undelivered",
    BUFFERED: "buffered",
    TAKEN: "sent",
    REFUSED: "refused",
}
# What a carrier's final word (SMPP 3.4, appendix B) is in Twilio's codes.
CODES = {"EXPIRED": 30003, "REJECTD": 30007, "UNDELIV": 30003, "DELETED": 30008, "UNKNOWN": 30008}

# Twilio's own words, so that apps written for it find what they expect.
STOP = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"})
START = frozenset({"START", "UNSTOP"})

# Days that caught messages are kept, and seconds between a caught message and its report.
CATCH_DAYS = 7
CATCH_REPORT_AFTER = 0.5


def query(request: Request) -> dict[str, bytes]:
    """The query's values as bytes: Kannel sends UTF-16 and reports in any charset, percent-encoded."""
    pairs = parse_qsl(
        request.scope["query_string"].decode("latin-1"), keep_blank_values=True, encoding="latin-1"
    )
    return {name: value.encode("latin-1") for name, value in pairs}


def decoded(values: dict[str, bytes], name: str = "text") -> str:
    """The text of a message, by the charset that Kannel names beside it."""
    charset = values.get("charset", b"").decode("ascii", "replace") or "UTF-8"
    if values.get("coding") == b"2" and charset.upper() not in ("UTF-8", "UTF8"):
        charset = "utf-16-be"
    try:
        return values.get(name, b"").decode(charset, "replace")
    except LookupError:
        return values.get(name, b"").decode("utf-8", "replace")


class Reports:
    """The handlers. Each answers 2xx only after what it was told is on the disk; Kannel asks again otherwise."""

    def __init__(
        self, config: Config, store: Store, sender: Sender, webhooks: Webhooks, http: httpx.AsyncClient
    ) -> None:
        self._config = config
        self._store = store
        self._sender = sender
        self._webhooks = webhooks
        self._http = http
        self._tasks: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/{token}/report", self.report),
                Route("/{token}/inbound", self.inbound),
                Route("/{token}/catch", self.catch),
            ]
        )

    def _forbidden(self, request: Request) -> Response | None:
        if same(request.path_params["token"], self._config.internal_token):
            return None
        return PlainTextResponse("no", status_code=403)

    async def report(self, request: Request) -> Response:
        """A delivery report about one of our messages."""
        if refusal := self._forbidden(request):
            return refusal
        values = {name: value.decode("utf-8", "replace") for name, value in query(request).items()}
        sid, carrier = values.get("sid", ""), values.get("carrier", "")
        kind = int(values.get("type") or 0)
        # The rest of a report is not kept: it holds the first characters of the message.
        reply = values.get("reply", "")
        found = re.search(r"\bstat:(\w{1,12})", reply)
        stat = found.group(1).upper() if found else reply.partition("/")[2][:40] if kind == REFUSED else ""
        found = re.search(r"\berr:(\w{1,8})", reply)
        await asyncio.to_thread(
            self._store.change,
            "INSERT INTO reports (sid, at, kind, carrier, stat, err) VALUES (?, ?, ?, ?, ?, ?)",
            (sid, time.time(), KINDS.get(kind, str(kind)), carrier, stat, found.group(1) if found else ""),
        )
        if kind == REFUSED:
            log.warning("%s: refused by %s: %s", sid, carrier or "Kannel", stat)
            await self._sender.refused(sid, carrier)
        elif kind in (DELIVERED, UNDELIVERED, TAKEN):
            error = CODES.get(stat, 30008) if kind == UNDELIVERED else 0
            message = await asyncio.to_thread(self._store.advance, sid, KINDS[kind], error, carrier)
            if message:
                log.info("%s to %s: %s by %s", sid, mask(message.recipient), message.status, carrier)
                await self._webhooks.status(message)
        return PlainTextResponse("")

    async def inbound(self, request: Request) -> Response:
        """A message from a phone."""
        if refusal := self._forbidden(request):
            return refusal
        values = query(request)
        sender, recipient = (_number(values.get(name, b"")) for name in ("from", "to"))
        body = decoded(values)
        carrier = values.get("carrier", b"").decode("utf-8", "replace")
        # Kannel's id of the message: told twice, it is kept once.
        sid = "SM" + hashlib.md5(values.get("id", b""), usedforsecurity=False).hexdigest()
        new = await asyncio.to_thread(
            self._store.change,
            "INSERT OR IGNORE INTO inbound (sid, at, sender, recipient, body, carrier) VALUES (?, ?, ?, ?, ?, ?)",
            (sid, time.time(), sender, recipient, body, carrier),
        )
        if not new:
            return PlainTextResponse("")
        log.info("%s: inbound from %s by %s", sid, mask(sender), carrier)
        word = body.strip().strip(".!").upper()
        if word in STOP or word in START:
            await asyncio.to_thread(self._store.opt, sender, word in STOP)
        if self._config.policy.inbound_url:
            form = {
                "AccountSid": self._config.account_sid,
                "ApiVersion": "2010-04-01",
                "Body": body,
                "From": sender,
                "MessageSid": sid,
                "NumMedia": "0",
                "NumSegments": "1",
                "SmsMessageSid": sid,
                "SmsSid": sid,
                "SmsStatus": "received",
                "To": recipient,
            }
            await self._webhooks.queue(self._config.policy.inbound_url, form)
        return PlainTextResponse("")

    async def catch(self, request: Request) -> Response:
        """A message that would have gone to a carrier: into the store on this machine."""
        if refusal := self._forbidden(request):
            return refusal
        folder = self._config.catch_dir
        if folder is None:
            return PlainTextResponse("no catch here", status_code=404)
        values = query(request)
        caught = {
            "to": _number(values.get("to", b"")),
            "from": values.get("from", b"").decode("utf-8", "replace"),
            "text": decoded(values),
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        await asyncio.to_thread(write_caught, folder, caught)
        if message_id := report_id(values):
            task = asyncio.create_task(self._report_caught(values, message_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return PlainTextResponse("Sent.", status_code=202)

    async def _report_caught(self, values: dict[str, bytes], message_id: str) -> None:
        """Tell Kannel "delivered" as a carrier would; it knows the message's id a moment after our answer."""
        kannel = self._config.kannel
        ask = {
            "username": kannel.user,
            "password": kannel.password,
            "from": values.get("from", b"").decode("utf-8", "replace"),
            "to": values.get("to", b"").decode("utf-8", "replace"),
            "text": "stat:DELIVRD err:000",
            "dlr-mask": str(DELIVERED),
            "dlr-mid": message_id,
        }
        for _ in range(5):
            await asyncio.sleep(CATCH_REPORT_AFTER)
            try:
                answer = await self._http.get(f"http://127.0.0.1:{kannel.catch_port}/report", params=ask)
            except httpx.HTTPError:
                continue
            if answer.text.startswith("Sent"):
                return


def report_id(values: dict[str, bytes]) -> str:
    """The id under which Kannel waits for a report; it stands in the URL that it asks to be called."""
    query = values.get("dlr-url", b"").decode("latin-1").partition("?")[2]
    return dict(parse_qsl(query)).get("dlr-mid", "")


def write_caught(folder: Path, caught: dict[str, str]) -> None:
    """One JSON file a message, on the disk when this returns; files older than CATCH_DAYS go."""
    name = f"{time.time():017.6f}-{os.urandom(4).hex()}.json"
    temporary = folder / f".{name}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(caught, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / name)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    for old in folder.glob("*.json"):
        if old.stat().st_mtime < time.time() - CATCH_DAYS * 86400:
            old.unlink(missing_ok=True)


def _number(value: bytes) -> str:
    """A number as carriers write it (with or without a plus, or 00) in the form we keep."""
    text = value.decode("utf-8", "replace").strip()
    digits = text.removeprefix("+")
    if not digits.isdigit() or len(digits) < 9:
        return text
    return "+" + digits.removeprefix("00")
