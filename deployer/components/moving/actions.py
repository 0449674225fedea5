"""What flows ask of the programs on the machines of a move: commands to send, and the meaning of their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROGRAM = "/usr/local/lib/deploy/moving/move.py"


@dataclass(frozen=True)
class Standby:
    """The new side's database. state: "none", "running" (it is being copied), "streaming" or "failed".

    done, total: bytes of the copy. lag: bytes behind the primary, None while it does not stream.
    """

    state: str = "none"
    phase: str = ""
    done: int = 0
    total: int = 0
    lag: int | None = None
    error: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """The files of one machine. passes: how often they were all compared; last_seconds: how long that took."""

    state: str = "none"
    passes: int = 0
    bytes: int = 0
    last_seconds: float = 0.0
    error: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """What the machines compared or met on the way. Its text is for the operator."""

    text: str
    good: bool = True

    def __str__(self) -> str:
        return self.text if self.good else f"NOT GOOD: {self.text}"


@dataclass(frozen=True)
class Cutover:
    """state: "none", "running", "done", "failed" or "unknown" (both sides are closed, and the old one's word is missing).

    permit: "none", "asked" or "given". seconds: of each phase that ended. held_at, served_at: seconds since 1970.
    bytes: of the database, of the files' passes, and of those in the pause.
    """

    state: str = "none"
    id: str = ""
    phase: str = ""
    permit: str = "none"
    seconds: Mapping[str, float] = field(default_factory=dict)
    held_at: float = 0.0
    served_at: float = 0.0
    checks: tuple[Check, ...] = ()
    error: Mapping[str, str] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def pause(self) -> float:
        """Seconds that requests were held."""
        return max(self.served_at - self.held_at, 0.0) if self.held_at and self.served_at else 0.0


@dataclass(frozen=True)
class Fence:
    """The old side's word. state: "none", "armed", "held", "fenced", "permitted" or "reopened"."""

    state: str = "none"
    id: str = ""
    why: str = ""


@dataclass(frozen=True)
class Follow:
    """The old side after the move, as the new one's standby. state: "none", "running", "streaming", "failed"."""

    state: str = "none"
    lag: int | None = None
    error: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """All that one machine says of the move."""

    standby: Standby = Standby()
    files: Files = Files()
    cutover: Cutover = Cutover()
    fence: Fence = Fence()
    follow: Follow = Follow()


def command(verb: str) -> str:
    """A verb, as move.py itself tells them. cutover wants its request on standard input."""
    return f"python3 {PROGRAM} {verb}"


def cutover_request(id: str, max_pause: float, *, old_is_dead: bool) -> str:
    """For standard input of `cutover`. The same id again attaches to the same work. max_pause: seconds."""
    return json.dumps({"id": id, "max_pause": max_pause, "old_is_dead": old_is_dead})


def status(body: Mapping[str, Any]) -> Status:
    """The answer of `status`."""
    standby, files, cutover = (body.get(name) or {} for name in ("standby", "files", "cutover"))
    fence, follow = body.get("fence") or {}, body.get("follow") or {}
    return Status(
        Standby(
            str(standby.get("state") or "none"),
            str(standby.get("phase") or ""),
            int(standby.get("done_bytes") or 0),
            int(standby.get("total_bytes") or 0),
            _count(standby.get("lag_bytes")),
            _error(standby),
        ),
        Files(
            str(files.get("state") or "none"),
            int(files.get("passes") or 0),
            int(files.get("bytes") or 0),
            float(files.get("last_seconds") or 0),
            _error(files),
        ),
        Cutover(
            str(cutover.get("state") or "none"),
            str(cutover.get("id") or ""),
            str(cutover.get("phase") or ""),
            str(cutover.get("permit") or "none"),
            {str(name): float(value) for name, value in (cutover.get("seconds") or {}).items()},
            float(cutover.get("held_at") or 0),
            float(cutover.get("served_at") or 0),
            tuple(map(_check, cutover.get("checks") or ())),
            _error(cutover),
            {str(name): int(value) for name, value in (cutover.get("bytes") or {}).items()},
        ),
        Fence(str(fence.get("state") or "none"), str(fence.get("id") or ""), str(fence.get("why") or "")),
        Follow(str(follow.get("state") or "none"), _count(follow.get("lag_bytes")), _error(follow)),
    )


def _check(one: Any) -> Check:
    """one: {"name", "good", "text"}."""
    if not isinstance(one, Mapping):
        return Check(str(one))
    return Check(f"{one.get('name')}: {one.get('text')}", bool(one.get("good", True)))


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _error(body: Mapping[str, Any]) -> dict[str, str]:
    found = body.get("error") or {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, Mapping) else {}
