"""What happens, as data. The CLI draws it, `--json` prints it, tests read it. Never holds a secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """kind: "stage" | "step" | "machine" | "change" | "probe" | "warning" | "notice" | "log" | "summary".

    text: one line for a person; machine: where; data: the same for a program.
    status: "start", "ok", "changed", "failed" or "".
    """

    kind: str
    text: str
    machine: str = ""
    status: str = ""
    # seconds that it took
    seconds: float | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        full = {
            "kind": self.kind,
            "text": self.text,
            "machine": self.machine,
            "status": self.status,
            "seconds": self.seconds,
            "data": self.data,
        }
        return {key: value for key, value in full.items() if value not in ("", None, {})}


Sink = Callable[[Event], None]


def discard(event: Event) -> None:
    """A sink that shows nothing."""
