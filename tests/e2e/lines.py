"""What one client sees of a service: each request with its wait, through the public name, from an address of its own."""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

import dns.exception
import dns.resolver

from tests.e2e.doors import Answer

# Seconds that a client waits for an answer.
PATIENCE = 60.0
# Long polls may be cut and begin anew; they are counted apart.
POLL = "poll"


@dataclass(frozen=True)
class Seen:
    """One request. at: seconds since 1970, when it began; wait: seconds until its answer was whole, or it failed.

    error: why there was no answer, "" when there was one.
    """

    kind: str
    at: float
    wait: float
    path: str
    status: int = 0
    error: str = ""

    @property
    def failed(self) -> bool:
        # The answer to the first question of a sign-up is 401 by the protocol.
        asked = self.status == 401 and self.path.endswith("/register")
        return bool(self.error) or (self.status >= 400 and not asked)

    def __str__(self) -> str:
        what = self.error or str(self.status)
        return f"{self.kind} {self.path} after {self.wait:.1f} s at {self.at:.1f}: {what}"


@dataclass
class Log:
    """Of all clients."""

    seen: list[Seen] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, one: Seen) -> None:
        with self._lock:
            self.seen.append(one)

    def failed(self) -> list[Seen]:
        return [one for one in self.seen if one.failed and one.kind != POLL]

    def longest(self, since: float = 0, kind: str = "") -> float:
        """Seconds of the longest wait, long polls apart."""
        asked = [one for one in self.seen if one.kind == kind or (not kind and one.kind != POLL)]
        return max((one.wait for one in asked if one.at + one.wait >= since), default=0.0)


class Line:
    """A client's connection, which has the request of the class Doors. Not for two threads at once.

    server: the DNS server that is asked for each new connection, as a client does whose cache is empty; source: the
    client's own address; kept: one connection for many requests, as browsers do it.
    """

    def __init__(self, log: Log, server: str, ca: str, source: str, kind: str, *, kept: bool = True) -> None:
        self.log, self.kind, self.kept, self.source = log, kind, kept, source
        self._context = ssl.create_default_context(cadata=ca)
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers, self._resolver.lifetime = [server], 10
        self._open: dict[str, http.client.HTTPSConnection] = {}

    def request(
        self,
        method: str,
        url: str,
        body: object = None,
        *,
        token: str = "",
        headers: dict[str, str] | None = None,
        kind: str = "",
    ) -> Answer:
        """body: bytes are sent as they stand, anything else as JSON. Raises OSError; a request is never sent twice."""
        parts = urllib.parse.urlsplit(url)
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) else None
        if body is not None and data is None:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        at, kind = time.time(), kind or self.kind
        try:
            connection = self._connection(str(parts.hostname))
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException, dns.exception.DNSException) as error:
            self.close()
            why = f"{type(error).__name__}: {error}"
            self.log.add(Seen(kind, at, time.time() - at, parts.path, error=why))
            raise OSError(f"{method} {parts.path}: {why}") from error
        self.log.add(Seen(kind, at, time.time() - at, parts.path, answer.status))
        if not self.kept:
            self.close()
        named = {key.lower(): value for key, value in answer.getheaders()}
        return Answer(answer.status, named, content)

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._open = {}

    def _connection(self, host: str) -> http.client.HTTPSConnection:
        """The one that is open, unless the other side has closed it meanwhile: then nothing is lost by a new one."""
        known = self._open.get(host)
        if known and known.sock and not select.select([known.sock], [], [], 0)[0]:
            return known
        if known:
            known.close()
        made = http.client.HTTPSConnection(host, 443, timeout=PATIENCE, context=self._context)
        address = str(self._resolver.resolve(host, "A")[0])
        plain = socket.create_connection((address, 443), PATIENCE, (self.source, 0))
        made.sock = self._context.wrap_socket(plain, server_hostname=host)
        self._open[host] = made
        return made
