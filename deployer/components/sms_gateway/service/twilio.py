"""Twilio's Messages API, version 2010-04-01, as its own clients speak it.

Source: https://www.twilio.com/docs/messaging/api/message-resource and /docs/api/errors. The text of a message is
shown while the message waits and is empty afterwards: it is not kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import policy, webhooks
from .app_state import State
from .phone import mask
from .records import Unavailable
from .store import FINAL, Message

log = logging.getLogger("sms_gateway.twilio")

VERSION = "2010-04-01"
MAX_BODY = 65_536
MAX_TEXT = 1600
PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_OFFSET = 100_000

# Our reasons as (HTTP status, Twilio's code).
CODES = {
    "recipient": (400, 21211),
    "costly": (400, 21408),
    "country": (400, 21408),
    "sender": (400, 21212),
    "empty": (400, 21602),
    "long": (400, 21617),
    "opted-out": (400, 21610),
    "number": (429, 20429),
    "prefix": (429, 20429),
    "day": (429, 20429),
}


def error(status: int, code: int, message: str) -> JSONResponse:
    """An error in Twilio's shape."""
    headers = {"WWW-Authenticate": 'Basic realm="Twilio API"'} if status == 401 else None
    more = f"https://www.twilio.com/docs/errors/{code}"
    return JSONResponse(
        {"code": code, "message": message, "more_info": more, "status": status}, status, headers=headers
    )


class Twilio:
    """The routes below /2010-04-01/Accounts/SID."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._base = f"/{VERSION}/Accounts/{state.config.account_sid}/Messages"

    def routes(self) -> list[Route]:
        base = f"/{VERSION}/Accounts/{{account}}/Messages"
        return [
            Route(f"{base}.json", self.create, methods=["POST"]),
            Route(f"{base}.json", self.list, methods=["GET"]),
            Route(f"{base}/{{sid}}.json", self.fetch, methods=["GET"]),
        ]

    def _refusal(self, request: Request) -> Response | None:
        address = request.client.host if request.client else ""
        if self._state.guard.blocked(address):
            return error(429, 20429, "Too many requests with wrong credentials")
        user = self._state.guard.user(request.headers.get("authorization", ""))
        if user is None:
            self._state.guard.failed(address)
            return error(401, 20003, "Authenticate")
        account = self._state.config.account_sid
        if user != account or request.path_params["account"] != account:
            return error(404, 20404, f"The requested resource {request.url.path} was not found")
        return None

    async def create(self, request: Request) -> Response:
        """Accept a message: 201 once it is on the disk."""
        if refusal := self._refusal(request):
            return refusal
        raw = await read(request, MAX_BODY)
        if raw is None:
            return error(413, 20001, "The request is too large")
        form = dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True))
        recipient = form.get("To", "")
        if not recipient:
            return error(400, 21604, "A 'To' phone number is required.")
        service, sender = form.get("MessagingServiceSid", ""), form.get("From", "")
        if not service and not sender:
            return error(400, 21603, "A 'From' phone number is required.")
        if len(form.get("Body", "")) > MAX_TEXT:
            return error(400, 21617, f"The concatenated message body exceeds the {MAX_TEXT} character limit.")
        callback = form.get("StatusCallback", "")
        if callback:
            try:
                webhooks.allowed(callback, self._state.config.policy.callback_hosts)
            except webhooks.NotAllowed as problem:
                return error(400, 21609, f"The 'StatusCallback' URL is not allowed: {problem}.")
        validity = form.get("ValidityPeriod", str(policy.VALIDITY))
        if not validity.isdigit() or not 1 <= int(validity) <= policy.VALIDITY:
            return error(400, 20001, f"ValidityPeriod must be 1 to {policy.VALIDITY} seconds.")
        try:
            message = await policy.accept(
                self._state.config,
                self._state.store,
                api="twilio",
                recipient=recipient,
                body=form.get("Body", ""),
                sender=sender,
                service=service,
                callback=callback,
                validity=int(validity),
            )
        except policy.Rejected as problem:
            log.info("refused for %s: %s", mask(recipient), problem.reason)
            status, code = CODES[problem.reason]
            return error(status, code, f"{problem.text}: {recipient}")
        log.info("%s: accepted for %s", message.sid, mask(message.recipient))
        self._state.wake()
        return JSONResponse(self._shown(message), 201)

    async def fetch(self, request: Request) -> Response:
        """One message, outbound or inbound."""
        if refusal := self._refusal(request):
            return refusal
        sid = request.path_params["sid"]
        message = await asyncio.to_thread(self._state.store.message, sid)
        if message is not None:
            return JSONResponse(self._shown(message))
        try:
            rows = await asyncio.to_thread(self._state.records.rows, f"{_ALL} WHERE sid = %s", (sid,))
        except Unavailable:
            return error(503, 20503, "The message record is not available; try again")
        if not rows:
            return error(404, 20404, f"The requested resource {request.url.path} was not found")
        return JSONResponse(self._recorded(rows[0]))

    async def list(self, request: Request) -> Response:
        """Messages, newest first, as far as they are in the record; filters To, From."""
        if refusal := self._refusal(request):
            return refusal
        asked = request.query_params
        try:
            size = min(max(int(asked.get("PageSize", PAGE_SIZE)), 1), MAX_PAGE_SIZE)
            page = max(int(asked.get("Page", 0)), 0)
        except ValueError:
            return error(400, 20001, "Page and PageSize must be numbers")
        if page * size > MAX_OFFSET:
            return error(400, 20006, "The page is out of range")
        conditions, values = [], []
        for name, column in (("To", "recipient"), ("From", "sender")):
            if asked.get(name):
                conditions.append(f"{column} = %s")
                values.append(asked[name])
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"{_ALL}{where} ORDER BY created DESC, sid LIMIT %s OFFSET %s"
        try:
            rows = await asyncio.to_thread(self._state.records.rows, sql, (*values, size + 1, page * size))
        except Unavailable:
            return error(503, 20503, "The message record is not available; try again")
        filters = {name: asked[name] for name in ("To", "From") if asked.get(name)}

        def uri(number: int) -> str:
            return f"{self._base}.json?{urlencode({**filters, 'PageSize': size, 'Page': number})}"

        return JSONResponse(
            {
                "messages": [self._recorded(row) for row in rows[:size]],
                "page": page,
                "page_size": size,
                "start": page * size,
                "end": page * size + min(len(rows), size) - 1 if rows else 0,
                "uri": uri(page),
                "first_page_uri": uri(0),
                "previous_page_uri": uri(page - 1) if page else None,
                "next_page_uri": uri(page + 1) if len(rows) > size else None,
            }
        )

    def _shown(self, message: Message) -> dict[str, object]:
        status = message.status
        return self._resource(
            {
                "sid": message.sid,
                "body": message.body or "",
                "created": datetime.fromtimestamp(message.created, UTC),
                "updated": datetime.fromtimestamp(message.updated, UTC),
                "sender": message.sender,
                "recipient": message.recipient,
                "segments": message.segments,
                "service": message.service,
                "status": "accepted" if status == "queued" and message.service else status,
                "error": message.error,
            }
        )

    def _recorded(self, row: Mapping[str, Any]) -> dict[str, object]:
        return self._resource(row)

    def _resource(self, row: Mapping[str, Any]) -> dict[str, object]:
        status = row["status"]
        sent = (
            format_datetime(row["updated"].astimezone(UTC)) if status in FINAL or status == "sent" else None
        )
        uri = f"{self._base}/{row['sid']}.json"
        return {
            "account_sid": self._state.config.account_sid,
            "api_version": VERSION,
            "body": row["body"],
            "date_created": format_datetime(row["created"].astimezone(UTC)),
            "date_sent": sent,
            "date_updated": format_datetime(row["updated"].astimezone(UTC)),
            "direction": "inbound" if status == "received" else "outbound-api",
            "error_code": row["error"] or None,
            "error_message": None,
            "from": row["sender"],
            "messaging_service_sid": row["service"] or None,
            "num_media": "0",
            "num_segments": str(row["segments"]),
            "price": None,
            "price_unit": None,
            "sid": row["sid"],
            "status": status,
            "subresource_uris": {"media": f"{self._base}/{row['sid']}/Media.json"},
            "to": row["recipient"],
            "uri": uri,
        }


_ALL = """SELECT * FROM (
  SELECT sid, '' AS body, created, updated, sender, recipient, segments, service, status, error FROM messages
  UNION ALL
  SELECT sid, body, at, at, sender, recipient, 1, '', 'received', 0 FROM inbound
) AS all_messages"""


async def read(request: Request, limit: int) -> bytes | None:
    """The request's body, or None when it is longer than `limit` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)


def json_object(raw: bytes) -> dict[str, Any] | None:
    """A JSON object, or None."""
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
