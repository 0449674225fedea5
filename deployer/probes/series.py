"""A probe asked again and again: each request in a thread and on a connection of its own, its name resolved anew.

A request that waits stops none of those after it, and a switch of DNS is seen when others see it.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from deployer.core.component import Probe
from deployer.core.events import Event, Sink
from deployer.core.probe import Result
from deployer.probes import one
from deployer.probes.timeline import Timeline

# Seconds until a name that this computer does not know is asked for again.
AGAIN = 5.0
# Failures that are kept one by one; all are counted.
FAILURES = 200
# An operator is told of a failure at most so often (seconds), and of silence when it was this much longer than the pace.
TELL, SILENCE = 5.0, 1.0


@dataclass(frozen=True)
class Pace:
    """every: seconds between two requests; most: that many may be under way; bound: seconds for each."""

    every: float
    most: int
    bound: float = 40.0


PACES: Mapping[str, Pace] = {"https": Pace(0.1, 40), "smtp": Pace(5, 8), "sms_api": Pace(5, 8)}


@dataclass(frozen=True)
class Target:
    """probe: of the kind https, smtp or sms_api (`look.outside` gives them).

    address: says where its name is now, for when this computer does not know the name (a rehearsal, a hosts file); ""
    when nobody knows. None: the probe's own address. resolve: False asks `address` only.
    """

    probe: Probe
    address: Callable[[], str] | None = None
    resolve: bool = True

    @property
    def name(self) -> str:
        """The public name that it is asked by."""
        args = self.probe.args
        return (
            str(args["hostname"]) if self.probe.kind == "smtp" else urlsplit(str(args["url"])).hostname or ""
        )


@dataclass(frozen=True)
class Failure:
    """at: seconds since 1970 at which it was begun; wait: seconds until it failed; why: in a line."""

    at: float
    wait: float
    name: str
    why: str


@dataclass(frozen=True)
class Figures:
    """What one kind of probe met. All in seconds; moments are seconds since 1970.

    requests: that ended; failed: of those, by status 500 and above, another answer than the probe's, an error of the
    connection, or no answer within the bound; open: had not ended when the watch did. skipped: not begun since too
    many were under way; late: not begun since this computer was too slow.
    pause: the longest time between two successive good answers, whenever they were asked for; it counts from the
    beginning of the watch, and to its end. longest_wait: of one request, from its connection to its whole answer.
    waits: percentile -> wait. timeline: [seconds since the start, wait, whether it was good], of many the worst.
    """

    requests: int = 0
    failed: int = 0
    open: int = 0
    skipped: int = 0
    late: int = 0
    pause: float = 0.0
    pause_at: float = 0.0
    longest_wait: float = 0.0
    longest_wait_at: float = 0.0
    waits: Mapping[str, float] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    timeline: tuple[tuple[float, float, bool], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "waits": dict(self.waits),
            "failures": [vars(one) for one in self.failures],
            "timeline": [list(one) for one in self.timeline],
        }


class Names:
    """The system's resolver. While it does not know a name, one request in AGAIN seconds asks it and the others go on
    at once: a resolver that takes its time to say no would otherwise be measured as the service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._next: dict[str, float] = {}

    def address(self, name: str) -> str:
        """The address (IPv4 where it has one), or ""."""
        now = time.monotonic()
        with self._lock:
            if name not in self._known:
                if now < self._next.get(name, 0.0):
                    return ""
                self._next[name] = now + AGAIN
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            found = []
        with self._lock:
            (self._known.add if found else self._known.discard)(name)
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        return str(found[0][4][0]) if found else ""


class Series:
    """The requests of one kind."""

    def __init__(
        self,
        targets: Sequence[Target],
        pace: Pace,
        ca_pem: str | None,
        names: Names,
        tell: Sink,
    ) -> None:
        self._targets, self._pace, self._ca_pem, self._names, self._tell = targets, pace, ca_pem, names, tell
        self._over = threading.Event()
        # Guards all below, and is notified when a request ends.
        self._changed = threading.Condition()
        self._flying: dict[int, float] = {}
        self._waits = array("f")
        self._failures: list[Failure] = []
        self._timeline = Timeline()
        self._failed = self._skipped = self._late = 0
        self._pause, self._pause_began = 0.0, 0.0
        self._longest, self._longest_began = 0.0, 0.0
        self._began = self._good = self._epoch = 0.0
        self._stopped: float | None = None
        self._told = -math.inf
        self._bad = False

    def start(self, began: float, epoch: float) -> None:
        self._began = self._good = self._pause_began = self._longest_began = began
        self._epoch = epoch
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Nothing is begun any more."""
        self._over.set()
        with self._changed:
            self._stopped = time.monotonic()

    def settle(self, last: float) -> None:
        """Wait until `last` (monotonic) for what is under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._flying, max(last - time.monotonic(), 0))

    def until(self) -> float:
        """The end, or now (monotonic)."""
        return time.monotonic() if self._stopped is None else self._stopped

    def _run(self) -> None:
        due, number = self._began, 0
        while not self._over.is_set():
            self._begin(number)
            number += 1
            due += self._pace.every
            missed = int(max(time.monotonic() - due, 0) // self._pace.every)
            self._late += missed
            due += missed * self._pace.every
            self._over.wait(max(due - time.monotonic(), 0))

    def _begin(self, number: int) -> None:
        with self._changed:
            if len(self._flying) >= self._pace.most:
                self._skipped += 1
                return
            self._flying[number] = time.monotonic()
        target = self._targets[number % len(self._targets)]
        try:
            # Not a pool: its threads are waited for when the program ends, and one may hang in the resolver.
            threading.Thread(target=self._ask, args=(number, target), name="watch", daemon=True).start()
        except RuntimeError:
            # This computer has no thread left.
            with self._changed:
                del self._flying[number]
                self._late += 1

    def _ask(self, number: int, target: Target) -> None:
        began = time.monotonic()
        try:
            address = self._address(target)
            began = time.monotonic()
            if address:
                args = {**target.probe.args, "address": address}
                result = one(replace(target.probe, args=args, timeout=self._pace.bound), self._ca_pem)
            else:
                why = f"{target.name} does not resolve, and no address is known"
                result = Result(target.probe.name, False, why, 0.0)
        except Exception as error:
            # A mistake of ours or of `address` is no reason to stop counting.
            result = Result(target.probe.name, False, f"{type(error).__name__}: {error}", 0.0)
        events = self._ended(number, began, result)
        for event in events:
            self._tell(event)

    def _address(self, target: Target) -> str:
        if target.resolve and (found := self._names.address(target.name)):
            return found
        return target.address() if target.address else str(target.probe.args.get("address", ""))

    def _ended(self, number: int, began: float, result: Result) -> list[Event]:
        with self._changed:
            now = time.monotonic()
            wait = now - began
            del self._flying[number]
            self._changed.notify_all()
            self._waits.append(wait)
            self._timeline.add(began - self._began, wait, result.ok)
            if wait > self._longest:
                self._longest, self._longest_began = wait, began
            if not result.ok:
                return self._fell(now, began, wait, result)
            silence, bad = now - self._good, self._bad
            if silence > self._pause:
                self._pause, self._pause_began = silence, self._good
            self._good, self._bad = now, False
            if silence < SILENCE + 2 * self._pace.every and not bad:
                return []
            return [Event("notice", f"{result.name} answers again, after {silence:.1f} s")]

    def _fell(self, now: float, began: float, wait: float, result: Result) -> list[Event]:
        self._failed += 1
        if len(self._failures) < FAILURES:
            at = round(self._moment(began), 3)
            self._failures.append(Failure(at, round(wait, 3), result.name, result.detail[:300]))
        first, self._bad = not self._bad, True
        if not first or now - self._told < TELL:
            return []
        self._told = now
        return [Event("probe", f"{result.name}: {result.detail}", status="failed")]

    def _moment(self, at: float) -> float:
        return self._epoch + at - self._began

    def figures(self) -> Figures:
        with self._changed:
            until = self.until()
            pause, pause_began = self._pause, self._pause_began
            if until - self._good > pause:
                pause, pause_began = until - self._good, self._good
            longest, longest_began = self._longest, self._longest_began
            now = time.monotonic()
            for began in self._flying.values():
                if now - began > longest:
                    longest, longest_began = now - began, began
            return Figures(
                requests=len(self._waits),
                failed=self._failed,
                open=len(self._flying),
                skipped=self._skipped,
                late=self._late,
                pause=round(pause, 3),
                pause_at=round(self._moment(pause_began), 3),
                longest_wait=round(longest, 3),
                longest_wait_at=round(self._moment(longest_began), 3),
                waits=percentiles(self._waits),
                failures=tuple(self._failures),
                timeline=self._timeline.entries(),
            )


def percentiles(waits: Sequence[float]) -> dict[str, float]:
    """Percentile -> wait, by the nearest rank; {} of none."""
    ordered = sorted(waits)
    if not ordered:
        return {}
    return {str(p): round(ordered[math.ceil(p / 100 * len(ordered)) - 1], 3) for p in (50, 95, 99)}
