"""A `migrate` that runs while a test looks: where it is, what goes wrong then, and that there are never two that serve."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.killing import Event, alive, family
from tests.e2e.moving import Moving, Site

# Seconds that a move may take until it is where a fault waits for it.
SLOWEST = 400


class Attempt:
    """`migrate`, begun. old, new: the places; words: of the verb."""

    def __init__(self, moving: Moving, old: str, new: str, *words: str) -> None:
        self.moving, self.old, self.new = moving, old, new
        self.events: list[Event] = []
        self.err = ""
        self._process = moving.operator.start("migrate", "--yes", *words)
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_err, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.events.append(json.loads(line))

    def _read_err(self) -> None:
        assert self._process.stderr
        self.err = self._process.stderr.read()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def site(self, side: str) -> Site | None:
        """Where the side's machine is, once there is one."""
        try:
            return self.moving.site(self.old if side == "old" else self.new)
        except AssertionError:
            return None

    def said(self, stage: str, status: str = "start") -> bool:
        return any(
            one["kind"] == "stage" and one["text"] == stage and one.get("status") == status
            for one in list(self.events)
        )

    def state(self, side: str, name: str) -> dict[str, Any]:
        """A state file of the move on a side's machine."""
        site = self.site(side)
        return site.moving(name) if site else {}

    def until(self, reached: Callable[[Attempt], bool], bound: float = SLOWEST, pause: float = 0.005) -> bool:
        """Whether it came so far before it ended. pause: seconds between two looks."""
        deadline = time.monotonic() + bound
        while not reached(self):
            if self.ended:
                return reached(self)
            assert time.monotonic() < deadline, (
                f"not reached in {bound} s: {[one.get('text') for one in self.events[-5:]]}"
            )
            time.sleep(pause)
        return True

    def end(self, bound: float = SLOWEST) -> int:
        """Its exit code."""
        try:
            code = self._process.wait(bound)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end: {[one.get('text') for one in self.events[-8:]]}") from None
        for reader in self._readers:
            reader.join(10)
        return code

    @property
    def error(self) -> Event:
        """What it said at its end."""
        return self.events[-1] if self.events else {}

    def kill(self) -> None:
        """kill -9 of the operator's process; what it had started here ends with it."""
        started = family(self._process.pid)
        self._process.kill()
        self._process.wait(20)
        deadline = time.monotonic() + 10
        while any(map(alive, started)):
            assert time.monotonic() < deadline, "children of the killed run go on"
            time.sleep(0.05)

    def kill_engines(self) -> None:
        """kill -9 of the engine's processes only."""
        for process, _ in family(self._process.pid)[1:]:
            os.kill(process, signal.SIGKILL)


class Looking:
    """Sees at every machine, several times a second, whether its database takes writes. both: moments at which two did."""

    def __init__(self, moving: Moving) -> None:
        self.moving, self.both, self.looks = moving, list[str](), 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Looking:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join(60)

    def _look(self) -> None:
        sites: list[tuple[Site, int]] = []
        found = 0.0
        while not self._ended.wait(0.2):
            if time.monotonic() - found > 2:
                sites, found = [(one, one.leader) for one in self.moving.all()], time.monotonic()
            ready = [site.name for site, leader in sites if leader and site.postmaster(leader) == "ready"]
            self.looks += 1
            if len(ready) > 1 and len(sure := self._sure()) > 1:
                self.both.append(f"{time.time():.1f}: {sure}")

    def _sure(self) -> list[str]:
        """Of the databases themselves: a file may be left of one that was killed."""
        try:
            return self.moving.primaries()
        except (OSError, AssertionError, subprocess.SubprocessError):
            # A machine that goes away while it is asked.
            return []


def pressure() -> float:
    """Percent of the last minute in which something here waited for a processor."""
    return float(Path("/proc/pressure/cpu").read_text().split("avg60=")[1].split()[0])


def live(moving: Moving, bound: float) -> str:
    """The one place that serves, and whose machine answers by the public name's address; waits for it."""
    deadline = time.monotonic() + bound
    while True:
        found = moving.serving()
        assert len(found) <= 1, f"two serve: {found}"
        if found and moving.site(found[0]).answer() == 200:
            return found[0]
        assert time.monotonic() < deadline, f"nobody serves within {bound:.0f} s: {found}"
        time.sleep(0.5)
