"""The public doors of a deployment, as a person's programs use them: HTTPS by name, without a shortcut inside."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import urllib.parse
from dataclasses import dataclass
from typing import Any


class Connection(http.client.HTTPSConnection):
    """HTTPS to an address, under a name: what DNS would do, where there is no DNS for the name."""

    def __init__(self, name: str, address: str, context: ssl.SSLContext, timeout: float = 40) -> None:
        super().__init__(name, 443, timeout=timeout, context=context)
        self._address, self._named = address, context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, 443), self.timeout)
        self.sock = self._named.wrap_socket(plain, server_hostname=self.host)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Doors:
    """address: where all names lead; ca: PEM certificates to trust."""

    address: str
    ca: str

    def request(
        self,
        method: str,
        url: str,
        body: object = None,
        *,
        token: str = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """body: bytes are sent as they stand, anything else as JSON."""
        parts = urllib.parse.urlsplit(url)
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) else None
        if body is not None and data is None:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        context = ssl.create_default_context(cadata=self.ca)
        connection = Connection(str(parts.hostname), self.address, context)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request(method, path or "/", data, sent)
            answer = connection.getresponse()
            headers_in = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, headers_in, answer.read())
        finally:
            connection.close()
