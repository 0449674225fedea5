"""A person who writes without pause: each message has a number and the moment at which the server took it."""

from __future__ import annotations

import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from itertools import count

from tests.e2e.matrix import API, Person, picture
from tests.e2e.operator import Operator

# Of so many messages one is a picture.
PICTURES = 5


@dataclass
class Writer:
    """taken: number -> when the server had acknowledged it (seconds since 1970). pictures: number -> (uri, bytes)."""

    person: Person
    room: str
    every: float = 0.3
    taken: dict[int, float] = field(default_factory=dict)
    pictures: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    refused: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Writer:
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        assert self._thread
        self._thread.join(60)

    def _write(self) -> None:
        for number in count(1):
            while not self._ended.is_set():
                try:
                    self._one(number)
                    break
                except (OSError, AssertionError, ValueError):
                    self.refused += 1
                    self._ended.wait(0.5)
            if self._ended.wait(self.every):
                return

    def _one(self, number: int) -> None:
        content: dict[str, object] = {"msgtype": "m.text", "body": f"number {number}"}
        if number % PICTURES == 0:
            data = picture()
            uri = self.person.upload(data, "image/png")
            content = {"msgtype": "m.image", "body": f"number {number}", "url": uri}
        self.person.say(self.room, content)
        self.taken[number] = time.time()
        if number % PICTURES == 0:
            self.pictures[number] = (uri, data)

    def wait_for(self, number: int, bound: float = 120) -> None:
        """Until so many were taken."""
        deadline = time.monotonic() + bound
        while number not in self.taken:
            assert time.monotonic() < deadline, f"{len(self.taken)} of {number} were taken in {bound} s"
            time.sleep(0.1)


def unhindered(operator: Operator, machine: str, person: Person) -> None:
    """No limit on how often this person may write, as an admin would lift it. Before the first message."""
    row = f"'@{person.name}:{person.domain}', 0, 0"
    sql = f"INSERT INTO ratelimit_override (user_id, messages_per_second, burst_count) VALUES ({row})"
    operator.on(machine, f'runuser -u postgres -- psql -XAtq -d synapse -c "{sql}"')


def numbers(person: Person, room: str) -> dict[int, dict[str, object]]:
    """number -> content of all numbered messages of the room."""
    found: dict[int, dict[str, object]] = {}
    start = ""
    for _ in range(200):
        path = f"{API}/rooms/{urllib.parse.quote(room)}/messages?dir=b&limit=100{start}"
        answer = person.call("GET", path, token=person.token)
        assert answer.status == 200, answer.body
        page = answer.json()
        for event in page["chunk"]:
            body = str(event.get("content", {}).get("body", ""))
            if event["type"] == "m.room.message" and body.startswith("number "):
                found[int(body.split()[1])] = event["content"]
        if not page["chunk"] or "end" not in page:
            return found
        start = f"&from={urllib.parse.quote(page['end'])}"
    raise AssertionError("the room does not end")


def nothing_between_is_missing(found: dict[int, dict[str, object]]) -> int:
    """The last number; all before it must be there."""
    assert found, "no message came back"
    last = max(found)
    assert sorted(found) == list(range(1, last + 1)), (
        f"of 1 to {last}: {sorted(set(range(1, last + 1)) - set(found))}"
    )
    return last
