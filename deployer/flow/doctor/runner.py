"""Checks side by side, each in a thread of its own, none beyond the end that holds for all."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from deployer.core.errors import DeployError
from deployer.core.finding import Finding

Check = Callable[[], Sequence[Finding]]
_T = TypeVar("_T")


class Runner:
    """`start` checks at any time, then `finish` once."""

    def __init__(self, seconds: float) -> None:
        """seconds: for everything, counted from now."""
        self.end = time.monotonic() + seconds
        self._answers: queue.SimpleQueue[tuple[int, Sequence[Finding]]] = queue.SimpleQueue()
        # id and words of each check, by which one is named that does not end.
        self._started: list[tuple[str, str]] = []

    def left(self, most: float = float("inf")) -> float:
        """Seconds that a check may still take, at most `most`; never below a tenth."""
        return max(0.1, min(most, self.end - time.monotonic()))

    def start(self, id: str, what: str, check: Check) -> None:
        """Begin a check. id and what: for the finding if it does not end, or breaks."""
        number = len(self._started)
        self._started.append((id, what))

        def work() -> None:
            self._answers.put((number, _judged(id, what, check)))

        # Not a pool: its threads are waited for when the program ends, and one may hang in a vendor's library.
        threading.Thread(target=work, name=f"check {id}", daemon=True).start()

    def finish(self) -> list[Finding]:
        """Wait for all, at most to the end; the findings in the order in which their checks were started."""
        answers: dict[int, Sequence[Finding]] = {}
        while len(answers) < len(self._started):
            try:
                number, findings = self._answers.get(timeout=max(self.end - time.monotonic(), 0))
            except queue.Empty:
                break
            answers[number] = findings
        found: list[Finding] = []
        for number, (id, what) in enumerate(self._started):
            found += answers.get(number, (_late(id, what),))
        return found


def _judged(id: str, what: str, check: Check) -> Sequence[Finding]:
    try:
        return check()
    except DeployError as error:
        where = error.machine or ""
        return (Finding(id, "fail", what, where, f"{error.what}: {error.why}", error.next),)
    except TimeoutError:
        return (_late(id, what),)
    except Exception as error:
        # One check must not keep the others from being heard.
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return (
            Finding(id, "warn", what, found=f"could not be looked at: {text}", next="please report this"),
        )


def _late(id: str, what: str) -> Finding:
    text = "no answer within the time that doctor takes"
    return Finding(id, "warn", what, found=text, next="run it again; if it stays so, look at what it asks")


def in_background(work: Callable[[], _T]) -> Future[_T]:
    """Run it in a thread that nobody waits for when the program ends."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
