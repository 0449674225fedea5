"""What goes wrong on demand, and the log of calls that says where.

A call's index counts from 0 since the last `calls.clear()`. Polls count once, as the first of them: those of one action,
and one resource asked for again and again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

BEFORE, AFTER = "before", "after"


class Dropped(Exception):
    """The connection is closed without an answer."""


@dataclass(frozen=True)
class Call:
    index: int
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.index} {self.method} {self.path}"


class Calls:
    """Every call, polls once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._polled: set[str] = set()
        self.all: list[Call] = []

    def clear(self) -> None:
        with self._lock:
            self.all = []
            self._polled = set()

    def note(self, method: str, path: str) -> Call | None:
        """The call with its index; None for one more poll."""
        with self._lock:
            if method == "GET" and re.search(r"/\d+$", path):
                last = self.all[-1] if self.all else None
                if path in self._polled or (last and (last.method, last.path) == (method, path)):
                    return None
                if "/actions/" in path:
                    self._polled.add(path)
            call = Call(len(self.all), method, path)
            self.all.append(call)
            return call

    def __len__(self) -> int:
        return len(self.all)

    def matching(self, method: str, pattern: str) -> list[Call]:
        return [call for call in self.all if call.method == method and re.fullmatch(pattern, call.path)]


@dataclass
class Fault:
    """One rule. at: index of the call, None for any; times: how often it strikes, None for always.

    It strikes before the work is done, or after it was done and before the answer. Then `hook` is called, and the
    answer is the error, or with status 0 the connection is closed.
    """

    when: str = BEFORE
    at: int | None = None
    method: str = ""
    path: str = ""
    status: int = 500
    code: str = "server_error"
    message: str = "the rig wants it so"
    times: int | None = 1
    hook: Callable[[], None] | None = None
    struck: int = 0

    def hits(self, when: str, call: Call) -> bool:
        return (
            self.when == when
            and (self.at is None or self.at == call.index)
            and (not self.method or self.method == call.method)
            and (not self.path or re.fullmatch(self.path, call.path) is not None)
            and (self.times is None or self.struck < self.times)
        )


@dataclass
class Faults:
    """Set on the fake as `fake.faults`; `clear` makes the vendor well again."""

    rules: list[Fault] = field(default_factory=list)
    # Kind -> seconds for which a new resource is not listed.
    lag: dict[str, float] = field(default_factory=dict)
    # All calls are refused with 429.
    limited: bool = False

    def clear(self) -> None:
        self.rules.clear()
        self.lag.clear()
        self.limited = False

    def error(self, status: int, code: str, **how: object) -> Fault:
        """Answer with an error; see Fault for `how` (at, method, path, when, times, message)."""
        return self._add(Fault(status=status, code=code, **how))  # type: ignore[arg-type]

    def reset(self, **how: object) -> Fault:
        """Close the connection, by default after the work was done."""
        return self._add(Fault(**{"when": AFTER, **how}, status=0))  # type: ignore[arg-type]

    def kill(self, at: int, when: str, hook: Callable[[], None]) -> Fault:
        """Call `hook`, which ends the client, at one call, and close the connection."""
        return self._add(Fault(when=when, at=at, status=0, hook=hook))

    def _add(self, fault: Fault) -> Fault:
        self.rules.append(fault)
        return fault

    def strike(self, when: str, call: Call | None) -> Fault | None:
        """The fault that strikes now, if one does."""
        for fault in self.rules if call else ():
            if fault.hits(when, call):  # type: ignore[arg-type]
                fault.struck += 1
                return fault
        return None
