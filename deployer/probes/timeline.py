"""A timeline of any length in some thousand entries: the calm is thinned out, what happened stays."""

from __future__ import annotations

from collections import deque

# seconds since the start, seconds of waiting, whether the answer was good
Entry = tuple[float, float, bool]

# Seconds of waiting from which a request is worth to be remembered.
NOTABLE = 1.0
# Calm entries before and after a notable one that are kept with it: ten seconds at ten a second.
AROUND = 100


class Thinned:
    """At most `limit` entries: when there are more, of each two neighbours the worse one stays."""

    def __init__(self, limit: int) -> None:
        self._limit, self._stride = limit, 1
        self._kept: list[Entry] = []
        self._held: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self._held.append(entry)
        if len(self._held) < self._stride:
            return
        self._kept.append(max(self._held, key=_badness))
        self._held.clear()
        if len(self._kept) > self._limit:
            pairs = [self._kept[i : i + 2] for i in range(0, len(self._kept), 2)]
            self._kept = [max(pair, key=_badness) for pair in pairs]
            self._stride *= 2

    def entries(self) -> list[Entry]:
        return [*self._kept, *([max(self._held, key=_badness)] if self._held else [])]


class Timeline:
    """What is notable (failed, or waited long) with what came just before and after it, and the calm apart from it."""

    def __init__(self, limit: int = 1000) -> None:
        self._notable, self._calm = Thinned(limit), Thinned(limit)
        self._recent: deque[Entry] = deque()
        self._after = 0

    def add(self, at: float, wait: float, ok: bool) -> None:
        entry = (round(at, 3), round(wait, 3), ok)
        if not ok or wait >= NOTABLE:
            for before in self._recent:
                self._notable.add(before)
            self._recent.clear()
            self._notable.add(entry)
            self._after = AROUND
        elif self._after:
            self._after -= 1
            self._notable.add(entry)
        else:
            self._recent.append(entry)
            if len(self._recent) > AROUND:
                self._calm.add(self._recent.popleft())

    def entries(self) -> tuple[Entry, ...]:
        """In the order of their beginning."""
        return tuple(sorted([*self._notable.entries(), *self._recent, *self._calm.entries()]))


def _badness(entry: Entry) -> tuple[bool, float]:
    return not entry[2], entry[1]
