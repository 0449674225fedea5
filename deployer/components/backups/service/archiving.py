"""Which repositories get the WAL: the state that archive-push reads, and who leaves it.

Not a program. The state: {"generation": 1, "repositories": {NAME: {
    archiving   WAL goes there
    out_since, out_why   when and why it does not
    in_since    since when it does
    needs_full  its WAL has a gap: it counts again after a full backup
    returns     how often it came back without getting as far as its full backup
    gaps        stretches of WAL that it never got: [{"first", "last"}], names of segments, last "" while it is out
}}}
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import database_conf
import pgbackrest

FILE = pgbackrest.STATE / "archiving.json"
LOCK = Path("/run/deploy-backups-archiving.lock")
NEVER = "it has not answered yet"


def fresh(entry: Mapping[str, Any] | None = None) -> dict[str, Any]:
    plain = {
        "archiving": False, "out_since": "", "out_why": NEVER, "in_since": "", "needs_full": True, "returns": 0,
        "gaps": [],
    }  # fmt: skip
    return {**plain, **(entry or {})}


def fitted(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The state for these settings: another generation begins anew, repositories come and go."""
    same = state.get("generation") == wanted["generation"]
    known = state.get("repositories", {}) if same else {}
    names = [one["name"] for one in wanted["repositories"]]
    return {
        "generation": wanted["generation"],
        "repositories": {name: fresh(known.get(name)) for name in names},
    }


def read(wanted: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    return fitted(found, wanted)


def update(wanted: Mapping[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Read, change and write the state, one program at a time. change: gets the repositories."""
    with open(LOCK, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read(wanted)
        change(state["repositories"])
        text = json.dumps(state, indent=1, sort_keys=True) + "\n"
        with contextlib.suppress(OSError):
            if FILE.read_text(encoding="utf-8") == text:
                return state
        FILE.parent.mkdir(parents=True, exist_ok=True)
        # postgres reads it.
        pgbackrest.write(FILE, text, 0o644)
        return state


@dataclass(frozen=True)
class Backlog:
    """Bytes of WAL that wait: all of it, and what each repository lacks. pushed: seconds since a repository took
    something; None for never. first: the oldest segment that each lacks."""

    total: int
    lacks: Mapping[str, int]
    pushed: Mapping[str, float | None]
    first: Mapping[str, str] = field(default_factory=dict)


def measure(wanted: Mapping[str, Any], cluster: Path = pgbackrest.CLUSTER) -> Backlog:
    try:
        names = os.listdir(cluster / "pg_wal/archive_status")
    except OSError:
        names = []
    ready = {name[:-6] for name in names if name.endswith(".ready")}
    lacks, pushed, first = {}, {}, {}
    for one in wanted["repositories"]:
        done, last = _done(database_conf.work_folder(wanted, one["name"]))
        lacks[one["name"]] = len(ready - done) * pgbackrest.SEGMENT
        pushed[one["name"]] = time.time() - last if last else None
        first[one["name"]] = min((name for name in ready - done if len(name) == 24), default="")
    return Backlog(len(ready) * pgbackrest.SEGMENT, lacks, pushed, first)


def newest(cluster: Path = pgbackrest.CLUSTER) -> str:
    """The newest segment that PostgreSQL has finished; "" for none."""
    try:
        names = os.listdir(cluster / "pg_wal/archive_status")
    except OSError:
        names = []
    stems = (name.rpartition(".")[0] for name in names)
    return max((name for name in stems if len(name) == 24), default="")


def _done(work: Path) -> tuple[set[str], float]:
    """The segments whose push is noted as done, and when the last one was."""
    found, last = set(), 0.0
    with contextlib.suppress(OSError):
        for entry in os.scandir(work / f"spool/archive/{pgbackrest.STANZA}/out"):
            if entry.name.endswith(".ok"):
                found.add(entry.name[:-3])
                with contextlib.suppress(OSError):
                    last = max(last, entry.stat().st_mtime)
    return found, last


def leaving(backlog: Backlog, archiving: set[str], bound: float) -> dict[str, str]:
    """Who must leave the archiving now, and why. bound: bytes that WAL may take.

    At half of it, those that lack as much; but not the last one that still takes something. At all of it everyone that
    lacks it: backups can be made again, a full disk stops the service.
    """
    half = bound / 2
    if backlog.total < half:
        return {}
    behind = {name for name in archiving if backlog.lacks.get(name, 0) >= half}
    if backlog.total < bound and behind == archiving:
        alive = [name for name in behind if (age := backlog.pushed.get(name)) is not None and age < 60]
        if alive:
            behind -= {min(alive, key=lambda name: backlog.lacks[name])}
    mib = {name: backlog.lacks[name] >> 20 for name in behind}
    return {
        name: f"{mib[name]} MiB of WAL waited for it, of {int(bound) >> 20} MiB allowed" for name in behind
    }


def pause(returns: int) -> float:
    """Seconds until a repository that is out is asked again: longer when it keeps leaving."""
    return float(min(1800, 20 * 2 ** min(returns, 10)))
