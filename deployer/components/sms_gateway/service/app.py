"""The service put together: public routes, Kannel's routes, and the loops between them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .app_state import State
from .config import Config
from .guard import Guard
from .kannel import Kannel
from .openmarket import OpenMarket
from .records import Records, Unavailable
from .reports import Reports
from .sender import Sender
from .store import Store
from .twilio import Twilio
from .verification import Verification
from .webhooks import Webhooks

SPOOL = "spool.db"


class Service:
    """Everything that lives as long as the process. `run()` for ever; `public` and `internal` are ASGI apps."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.store = Store(config.state / SPOOL)
        # No proxy of the environment: it would see bodies and tokens, and loopback must not go through one.
        self.http = httpx.AsyncClient(trust_env=False, timeout=10.0)
        self.kannel = Kannel(config, self.http)
        self.webhooks = Webhooks(config, self.store, self.http)
        self.sender = Sender(config, self.store, self.kannel, self.webhooks)
        self.records = Records(config, self.store)
        guard = Guard({config.account_sid: config.auth_token, config.user: config.password})
        self._state = State(config, self.store, self.records, self.kannel, guard, self.sender.wake)
        self.public = Starlette(
            routes=[
                Route("/health", self.health),
                Route("/inbound", self.inbound),
                *Twilio(self._state).routes(),
                *OpenMarket(self._state).routes(),
                *Verification(self._state).routes(),
            ]
        )
        self.internal = Reports(config, self.store, self.sender, self.webhooks, self.http).app()

    async def run(self) -> None:
        """The loops. One that ends takes the process with it, and systemd starts it anew."""
        await asyncio.gather(self.sender.run(), self.webhooks.run(), self.records.run())

    async def close(self) -> None:
        await self.http.aclose()
        self.store.close()

    def _refusal(self, request: Request) -> Response | None:
        address = request.client.host if request.client else ""
        guard = self._state.guard
        if guard.blocked(address):
            return JSONResponse({"error": "too many wrong guesses"}, 429)
        if guard.user(request.headers.get("authorization", "")) is None:
            guard.failed(address)
            return JSONResponse(
                {"error": "wrong user or password"}, 401, {"WWW-Authenticate": 'Basic realm="sms"'}
            )
        return None

    async def health(self, request: Request) -> Response:
        """200 "ok"; 200 "degraded" when a carrier is away; 503 "failed" without Kannel or PostgreSQL."""
        if refusal := self._refusal(request):
            return refusal
        status, database, counts = await asyncio.gather(
            self.kannel.status(), self.records.alive(), asyncio.to_thread(self.store.counts)
        )
        names = self.kannel.names
        carriers: list[dict[str, Any]] = [{"name": name, "online": name in status.online} for name in names]
        well = status.alive and database
        bound = bool(carriers) and all(carrier["online"] for carrier in carriers)
        return JSONResponse(
            {
                "status": ("ok" if bound else "degraded") if well else "failed",
                "kannel": status.alive,
                "database": database,
                "carriers": carriers,
                "queue": counts,
            },
            200 if well else 503,
        )

    async def inbound(self, request: Request) -> Response:
        """Inbound messages, newest first: ?limit=50&before=SID pages on."""
        if refusal := self._refusal(request):
            return refusal
        try:
            limit = min(max(int(request.query_params.get("limit", 50)), 1), 500)
        except ValueError:
            return JSONResponse({"error": "limit must be a number"}, 400)
        before = request.query_params.get("before", "")
        where = "WHERE (at, sid) < (SELECT at, sid FROM inbound WHERE sid = %s)" if before else ""
        sql = (
            'SELECT sid, at, sender AS "from", recipient AS "to", body AS text, carrier FROM inbound '
            f"{where} ORDER BY at DESC, sid DESC LIMIT %s"
        )
        try:
            rows = await asyncio.to_thread(self.records.rows, sql, (*([before] if before else []), limit))
        except Unavailable:
            return JSONResponse({"error": "the record is not available; try again"}, 503)
        return JSONResponse({"inbound": [{**row, "at": row["at"].isoformat()} for row in rows]})
