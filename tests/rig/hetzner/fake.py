"""The HTTP side: connections, tokens, the rate limit, checking, faults; what is answered is in the other files."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.rig.hetzner import description
from tests.rig.hetzner.faults import AFTER, BEFORE, Calls, Dropped, Fault, Faults
from tests.rig.hetzner.hardware import Hardware, OnPaper
from tests.rig.hetzner.request import Request, Routes
from tests.rig.hetzner.store import ApiError, Record, Store

PREFIX = "/v1"


class FakeHetzner:
    """A Hetzner Cloud API on an address of this computer.

        with FakeHetzner() as vendor:
            client = hcloud.Client(vendor.token, api_endpoint=vendor.endpoint)

    hardware: what the servers are; records only by default. `violations` collects what does not fit the vendor's
    OpenAPI description; a test should find it empty. `reverse` and `zone` are called with every change of a reverse
    name (address, name or None) and of a zone (name, its rrsets), for a rig whose DNS shall follow.
    """

    def __init__(self, hardware: Hardware | None = None, address: str = "127.0.0.1") -> None:
        from tests.rig.hetzner import addresses, keys, networks, offers, servers, volumes, walls, zones

        self.token = uuid.uuid4().hex * 2
        self.readonly_token = uuid.uuid4().hex * 2
        self.store = Store()
        self.calls = Calls()
        self.faults = Faults()
        self.hardware = hardware or OnPaper()
        self.violations: list[str] = []
        self.reverse: Callable[[str, str | None], None] = lambda address, name: None
        self.zone: Callable[[str, list[Record]], None] = lambda name, rrsets: None
        # Requests an hour, and how many are left; the vendor gives them back one by one.
        self.rate_limit = 3600
        self._used, self._since = 0.0, time.monotonic()
        self.routes = Routes()
        for module in (offers, servers, volumes, walls, networks, keys, addresses, zones):
            module.register(self.routes, self)
        self._server = ThreadingHTTPServer((address, 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}{PREFIX}"

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """No request is answered any more; machines that are left are deleted."""
        self._server.shutdown()
        self._server.server_close()
        self.store.close()
        self.hardware.close()

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    def settle(self, timeout: float = 30) -> None:
        """Wait until no action is running."""
        deadline = time.monotonic() + timeout
        while True:
            with self.store.lock:
                self.store.settle()
                running = [action.command for action in self.store.actions.values() if not action.finished]
            if not running:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"still running after {timeout:.0f} s: {', '.join(running)}")
            time.sleep(0.01)

    def labelled(self, **labels: str) -> list[str]:
        """All that carries the labels, as "kind/name"; underscores stand for dashes in their keys."""
        wanted = {key.replace("_", "-"): value for key, value in labels.items()}
        with self.store.lock:
            return [
                f"{kind}/{item['name']}"
                for kind, table in self.store.tables.items()
                for item in table.values()
                if wanted.items() <= item.get("labels", {}).items()
            ]

    @property
    def requests_left(self) -> int:
        moment = time.monotonic()
        given_back = (moment - self._since) * self.rate_limit / 3600
        self._used, self._since = max(0.0, self._used - given_back), moment
        return int(self.rate_limit - self._used)

    # --- one request ---

    def answer(self, request: Request, token: str) -> tuple[int, Record | None]:
        """Status and body. Raises Dropped when the connection shall be closed without an answer."""
        call = self.calls.note(request.method, request.path)
        if fault := self.faults.strike(BEFORE, call):
            return _strike(fault)
        try:
            self._admit(request, token)
            status, body = self._work(request)
        except ApiError as error:
            status, body = error.status, error.body
        if fault := self.faults.strike(AFTER, call):
            return _strike(fault)
        return status, body

    def _admit(self, request: Request, token: str) -> None:
        if self.faults.limited or self.requests_left <= 0:
            why = f"limit of {self.rate_limit} requests per hour reached"
            raise ApiError(429, "rate_limit_exceeded", why)
        self._used += 1
        if token not in (self.token, self.readonly_token):
            raise ApiError(401, "unauthorized", "unable to authenticate")
        if token == self.readonly_token and request.method != "GET":
            raise ApiError(401, "token_readonly", "token is only allowed to perform GET requests")

    def _work(self, request: Request) -> tuple[int, Record | None]:
        where = f"{request.method} {request.path}"
        described = description.load()
        operation = described.operation(request.method, request.path) if described else None
        if described and not operation:
            self._violated(where, ["no such path in the description"])
        elif operation and (wrong := operation.check_request(request.query, request.body)):
            self._violated(where, wrong)
            raise ApiError(422, "invalid_input", "; ".join(wrong))
        try:
            with self.store.lock:
                self.store.settle()
                status, body = self.routes.dispatch(request)
                # As they are now: the records behind it change.
                body = json.loads(json.dumps(body)) if body is not None else None
        except ApiError as error:
            status, body = error.status, error.body
        if operation and (wrong := operation.check_answer(status, body)):
            self._violated(f"answer to {where}", wrong)
        return status, body

    def _violated(self, where: str, wrong: list[str]) -> None:
        self.violations += [f"{where}: {why}" for why in wrong]


def _strike(fault: Fault) -> tuple[int, Record]:
    if fault.hook:
        fault.hook()
    if not fault.status:
        raise Dropped
    return fault.status, {"error": {"code": fault.code, "message": fault.message, "details": None}}


def _handler(fake: FakeHetzner) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Answers are small; without it each would wait for an acknowledgement.
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            path = unquote(url.path.removeprefix(PREFIX)) if url.path.startswith(PREFIX) else ""
            body: Any = json.loads(text) if text else {}
            query = parse_qs(url.query, keep_blank_values=True)
            request = Request(self.command, path, query, body)
            token = re.sub("^Bearer ", "", self.headers.get("Authorization", ""))
            try:
                status, answer = fake.answer(request, token)
            except Dropped:
                self.close_connection = True
                # With data unread or a zero linger time this is a reset, otherwise an end of the connection.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.connection.close()
                return
            self._send(status, answer, request)

        def _send(self, status: int, answer: Record | None, request: Request) -> None:
            payload = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("X-Correlation-Id", uuid.uuid4().hex[:16])
            self.send_header("RateLimit-Limit", str(fake.rate_limit))
            self.send_header("RateLimit-Remaining", str(max(0, fake.requests_left)))
            self.send_header(
                "RateLimit-Reset", str(int(time.time() + (1 - fake.requests_left / fake.rate_limit) * 3600))
            )
            if link := request.link(fake.endpoint, answer):
                self.send_header("Link", link)
            if payload:
                self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            try:
                self.wfile.write(payload)
            except OSError:
                # The client was killed; what it asked for is done.
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet: `fake.calls` is the log."""

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):
                # A client that went away in the middle, or a connection that we closed.
                self.close_connection = True

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                pass

    return Handler
