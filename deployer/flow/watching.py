"""What the public meets while something is done to the service: asked through its names, ten times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from deployer.core.events import Event, Sink
from deployer.probes.series import PACES, Figures, Names, Pace, Series, Target

__all__ = ["PACES", "Figures", "Pace", "Target", "Watch", "Watched"]

# Seconds that the end of a watch waits for requests that are under way.
SETTLE = 5.0


@dataclass(frozen=True)
class Watched:
    """started, ended: seconds since 1970. https: what counts; others: the same of smtp and sms_api."""

    started: float
    ended: float
    https: Figures
    others: Mapping[str, Figures]

    @property
    def pause(self) -> float:
        return self.https.pause

    @property
    def failed(self) -> int:
        return self.https.failed

    def to_json(self) -> dict[str, Any]:
        """The figures of https beside `started` and `ended`; those of the other kinds in `others`."""
        return {
            "started": self.started,
            "ended": self.ended,
            **self.https.to_json(),
            "others": {kind: figures.to_json() for kind, figures in self.others.items()},
        }


class Watch:
    """Watches from `with` to its end; `result()` also in between. Several targets of one kind are asked in turn.

    sink: told, from other threads, of the first failure and of silence that is over. ca_pem: CAs that are trusted besides
    the system's. Never raises for what it meets, and holds nobody up: the end waits SETTLE seconds at most.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        sink: Sink,
        ca_pem: str | None = None,
        paces: Mapping[str, Pace] = PACES,
    ) -> None:
        kinds: dict[str, None] = dict.fromkeys(target.probe.kind for target in targets)
        self._ca_pem = ca_pem
        self._began, self.started = time.monotonic(), time.time()
        names, told = Names(), threading.Lock()

        def tell(event: Event) -> None:
            with told:
                sink(event)

        self._series = {
            kind: Series([t for t in targets if t.probe.kind == kind], paces[kind], ca_pem, names, tell)
            for kind in kinds
        }

    def __enter__(self) -> Watch:
        from deployer.probes.connection import context

        # Made before anything is measured.
        context(self._ca_pem)
        self._began, self.started = time.monotonic(), time.time()
        for series in self._series.values():
            series.start(self._began, self.started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for series in self._series.values():
            series.stop()
        # Whoever stops for an error wants to know of it at once.
        last = time.monotonic() + (0 if error else SETTLE)
        for series in self._series.values():
            series.settle(last)

    def result(self) -> Watched:
        """What was met so far."""
        figures = {kind: series.figures() for kind, series in self._series.items()}
        ended = self.started + max(
            (series.until() - self._began for series in self._series.values()), default=0.0
        )
        https = figures.pop("https", Figures())
        return Watched(round(self.started, 3), round(ended, 3), https, figures)
