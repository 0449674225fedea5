"""What a restore asks of the programs on a machine: requests to send, and the meaning of their answers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deployer.components.backups.actions import PROGRAMS
from deployer.core.component import Data

# The programs that restore, by what they restore.
PARTS = {"database": "database.py", "files": "files.py"}


@dataclass(frozen=True)
class Target:
    """The moment to come back to. time: ISO 8601, UTC, "" for the newest. point: the files' recovery point, "" for the
    newest before the time."""

    time: str = ""
    point: str = ""

    def to_json(self) -> dict[str, str]:
        return {"kind": "time", "time": self.time} if self.time else {"kind": "latest"}


@dataclass(frozen=True)
class Progress:
    """state: "none" before it was ever asked for, "running", "checked" (all of it lies beside its place), "done" or
    "failed". seconds: of each phase that ended.

    recovered_to: the last moment of the database, or the point of the files. lacks: what is named but not there.
    damaged: what was found damaged on the way, where an older backup served instead. error: what, why and next of a
    failure. elsewhere: another repository may have what was missing or damaged.
    """

    state: str
    phase: str = ""
    done: int = 0
    total: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    recovered_to: str = ""
    checks: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    error: Mapping[str, str] = field(default_factory=dict)
    elsewhere: bool = False


def request(
    id: str,
    repository: Mapping[str, object],
    target: Target,
    data: Sequence[Data],
    *,
    hold_queues: bool,
    amcheck: bool,
    final: bool = True,
    instead: str = "",
    mark: str = "",
) -> str:
    """The request of one restore, for standard input: it holds keys. The same id again attaches to the same work.

    final: put it in place; otherwise it ends when all of it was checked. instead: id of a restore that is given up.
    mark: a file that the files' part writes before it puts anything in place, for the app to see.
    """
    body = {
        "id": id,
        "repository": dict(repository),
        "target": target.to_json(),
        "point": target.point,
        "data": [asdict(item) for item in data if item.kind != "postgres"],
        "hold_queues": hold_queues,
        "amcheck": amcheck,
        "until": "" if final else "checked",
        "instead": instead,
        "mark": mark,
    }
    return json.dumps(body)


def _check(one: Any) -> str:
    """A check in words; each program has its own keys besides the name."""
    if not isinstance(one, Mapping):
        return str(one)
    rest = ", ".join(
        f"{value}" if key == "text" else f"{key} {value}"
        for key, value in one.items()
        if key not in ("name", "good")
    )
    return f"{one.get('name')}: {rest}" if rest else str(one.get("name"))


def start(part: str) -> str:
    return f"python3 {PROGRAMS}/{PARTS[part]} restore"


def status(part: str) -> str:
    return f"python3 {PROGRAMS}/{PARTS[part]} restore-status"


def progress(body: Mapping[str, Any]) -> Progress:
    """The answer of `status`."""
    error = body.get("error") or {}
    return Progress(
        state=str(body.get("state", "none")),
        phase=str(body.get("phase") or ""),
        done=int(body.get("done_bytes") or 0),
        total=int(body.get("total_bytes") or 0),
        seconds={str(key): float(value) for key, value in (body.get("seconds") or {}).items()},
        recovered_to=str(body.get("recovered_to") or ""),
        checks=tuple(_check(one) for one in body.get("checks") or ()),
        lacks=tuple(map(str, body.get("lacks") or ())),
        damaged=tuple(map(str, body.get("damaged") or ())),
        error={str(key): str(value) for key, value in error.items()} if isinstance(error, Mapping) else {},
        elsewhere=isinstance(error, Mapping) and bool(error.get("elsewhere")),
    )


# --- the app ---


def release() -> str:
    """Puts back the app as it was built; `release_request` goes to its standard input."""
    return f"python3 {PROGRAMS}/files.py release"


def release_request(repository: Mapping[str, object], where: str) -> str:
    return json.dumps({"repository": dict(repository), "where": where})


def named(data: str) -> str:
    """What the database names below an app's data, a path a line; where the database is."""
    return f"python3 {PROGRAMS}/files.py named --data {shlex.quote(data)}"


def missing(data: str, point: str) -> str:
    """Which of the paths on its standard input are not there; where the files are. point: what they are restored to."""
    return f"python3 {PROGRAMS}/files.py missing --data {shlex.quote(data)} --point {shlex.quote(point)}"


# --- moments ---


def whole_since() -> str:
    """From when on a repository has everything without a gap; `whole_since_request` goes to its standard input."""
    return f"python3 {PROGRAMS}/database.py whole-since"


def whole_since_request(repository: Mapping[str, object]) -> str:
    return json.dumps({"repository": dict(repository), "target": Target().to_json()})
