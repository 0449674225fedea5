"""OpenMarket's SMS API v4 ("mobile terminate", JSON), as Matrix' Sydent speaks it.

Sydent wants any 2xx with a Location whose last part is the ticket, and reads `error` of a JSON answer otherwise.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import policy
from .app_state import State
from .phone import mask
from .twilio import MAX_BODY, json_object, read

log = logging.getLogger("sms_gateway.openmarket")

PATH = "/sms/v4/mt"


def error(status: int, code: str, text: str) -> JSONResponse:
    """An error in OpenMarket's shape."""
    headers = {"WWW-Authenticate": 'Basic realm="sms"'} if status == 401 else None
    return JSONResponse({"error": {"code": code, "description": text}}, status, headers=headers)


class OpenMarket:
    """The one route of this dialect."""

    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        return [Route(PATH, self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response:
        """Accept a message: 202 once it is on the disk."""
        address = request.client.host if request.client else ""
        if self._state.guard.blocked(address):
            return error(429, "throttled", "too many requests with wrong credentials")
        if self._state.guard.user(request.headers.get("authorization", "")) != self._state.config.user:
            self._state.guard.failed(address)
            return error(401, "unauthorized", "wrong user or password")
        raw = await read(request, MAX_BODY)
        if raw is None:
            return error(413, "too_large", "the request is too large")
        mobile = (json_object(raw) or {}).get("mobileTerminate")
        if not isinstance(mobile, dict):
            return error(400, "invalid_request", "mobileTerminate is missing")
        message, destination, source = (
            _section(mobile, name) for name in ("message", "destination", "source")
        )
        if message.get("type", "text") != "text":
            return error(400, "invalid_request", "only messages of type text are sent")
        recipient = str(destination.get("address", ""))
        # Its own clients leave the plus away.
        if recipient.isdigit():
            recipient = "+" + recipient
        sender = str(source.get("address", ""))
        if sender.isdigit() and len(sender) > 8:
            sender = "+" + sender
        try:
            kept = await policy.accept(
                self._state.config,
                self._state.store,
                api="openmarket",
                recipient=recipient,
                body=str(message.get("content", "")),
                sender=sender,
            )
        except policy.Rejected as problem:
            log.info("refused for %s: %s", mask(recipient), problem.reason)
            status = 429 if problem.reason in ("number", "prefix", "day") else 400
            return error(status, problem.reason, problem.text)
        log.info("%s: accepted for %s", kept.sid, mask(kept.recipient))
        self._state.wake()
        return Response(status_code=202, headers={"Location": f"{PATH}/{kept.sid}", "X-Request-Id": kept.sid})


def _section(mobile: dict[str, Any], name: str) -> dict[str, Any]:
    value = mobile.get(name)
    return value if isinstance(value, dict) else {}
