"""People who write through the public name all the time, each write numbered."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.components.moving.machines import HOST


class Crowd:
    """acknowledged: numbers whose write was answered with 200. failed: what was answered otherwise, in words."""

    def __init__(self, address: str, numbers: Iterator[int], people: int = 4) -> None:
        self.address = address
        self.acknowledged: list[int] = []
        self.failed: list[str] = []
        self.longest = 0.0
        self._number = numbers
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._write, daemon=True) for _ in range(people)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(90)

    def _write(self) -> None:
        while not self._over.wait(0.05):
            number = next(self._number)
            began = time.monotonic()
            try:
                status = post(self.address, number)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{number}: {type(error).__name__}: {error}")
                continue
            if status == 200:
                self.acknowledged.append(number)
            else:
                self.failed.append(f"{number}: {status}")
            self.longest = max(self.longest, time.monotonic() - began)


def post(address: str, number: int, timeout: float = 60) -> int:
    """One write over HTTPS to the machine, under the public name. Returns the status."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(HOST, timeout=timeout, context=context)
    connection._create_connection = lambda *_, **__: socket.create_connection((address, 443), timeout)  # type: ignore[attr-defined]
    try:
        connection.request("POST", "/write", body=str(number))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def stored(side: Any) -> list[int]:
    """What a side's database has."""
    text = side.shell.run("runuser -u postgres -- psql -XAtq -d notes -c 'SELECT n FROM writes ORDER BY n'")
    return [int(line) for line in text.split()]
