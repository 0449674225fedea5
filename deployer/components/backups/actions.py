"""What flows ask of the backups' programs on machines: commands to send, and the meaning of their answers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.resources import service_file

PROGRAMS = "/usr/local/lib/deploy/backups"
STATE = "/var/lib/deploy/backups"
# Bytes of a state file that are read; they hold a few lines for each repository.
LARGEST = 1 << 20


@dataclass(frozen=True)
class Archive:
    """The database in one repository, as `database.py status` tells it.

    archiving: WAL goes there; out_since, out_why: since when and why not; needs_full: it counts again with the next
    full backup. last_full, last_diff, newest_commit: ISO 8601, UTC, "" for none; newest_commit was read back from the
    repository, lag is its age in seconds. size: bytes. error: why the repository could not be asked.
    """

    name: str
    archiving: bool = False
    out_since: str = ""
    out_why: str = ""
    needs_full: bool = False
    last_full: str = ""
    last_diff: str = ""
    size: int = 0
    newest_wal: str = ""
    newest_commit: str = ""
    lag: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Snapshots:
    """The files of one machine in one repository. last: its newest point; age: seconds; points: how many there are."""

    name: str
    machine: str
    last: str = ""
    age: float | None = None
    points: int = 0
    size: int = 0
    error: str = ""


@dataclass(frozen=True)
class Point:
    """A time that files can be restored to. machines: whose snapshots carry it."""

    at: str
    machines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Damage:
    """Something in a repository that is not as it was written."""

    what: str
    why: str


@dataclass(frozen=True)
class Queue:
    """kind: "mail" or "sms"; held: nothing leaves it until it is released; waiting: messages in it."""

    kind: str
    held: bool
    waiting: int
    # One-time codes whose time was over, which were dropped.
    dropped: int = 0


# --- commands ---


def create_database(repository: str, type: str = "auto") -> str:
    """A backup of the database into one repository. type: "full", "diff", or "auto" for what the policy says."""
    return _program("database.py", "create", "--repository", repository, "--type", type)


def database_status() -> str:
    return _program("database.py", "status")


def verify_database(repository: str) -> str:
    return _program("database.py", "verify", "--repository", repository)


def create_files(point: str) -> str:
    """Snapshots of this machine's files in all repositories. point: the time that they are tagged with."""
    return _program("files.py", "create", "--point", point)


def files_status() -> str:
    return _program("files.py", "status")


def verify_files(repository: str) -> str:
    return _program("files.py", "verify", "--repository", repository)


def points(repository: str) -> str:
    return _program("files.py", "points", "--repository", repository)


def queue_status() -> str:
    return _program("queue.py", "status")


def release_queue(kinds: Sequence[str]) -> str:
    """kinds: "mail", "sms"."""
    return _program("queue.py", "release", *(f"--{kind}" for kind in kinds))


def prune_program() -> str:
    """A Python program that takes its request (JSON) on standard input: see service/prune.py."""
    return service_file("backups", "prune.py")


def state_script() -> str:
    """A bash script that prints all state files of the machine as one JSON line, for `parse_state`."""
    return f"exec python3 - <<'DEPLOY_STATE'\n{_READ_STATE}\nDEPLOY_STATE\n"


_READ_STATE = f"""
import glob, json, os
found = {{}}
for path in glob.glob("{STATE}/*.json"):
    try:
        with open(path) as file:
            found[os.path.basename(path)[:-5]] = json.loads(file.read({LARGEST}))
    except (OSError, ValueError):
        pass
print(json.dumps(found))
"""


def _program(name: str, *arguments: str) -> str:
    return shlex.join(["python3", f"{PROGRAMS}/{name}", *arguments])


# --- answers ---


def answer(what: str, machine: str, code: int, out: str, err: str) -> Mapping[str, Any]:
    """The JSON object that a program printed last. Raises DeployError, in the program's own words, when it failed."""
    body = last_object(out)
    if code == 0 and body is not None:
        return body
    error = (body or {}).get("error") or last_object(err) or {}
    error = error.get("error", error) if isinstance(error, Mapping) else {"why": str(error)}
    if isinstance(error, str):
        error = {"why": error}
    lines = [line for line in err.strip().splitlines() if line.strip()]
    fallback = lines[-1].strip() if lines else f"it ended with {code} and said nothing"
    raise DeployError(
        str(error.get("what") or what),
        str(error.get("why") or fallback),
        str(error.get("next") or "see what it wrote: deploy logs backups"),
        machine=machine,
        detail="\n".join(lines[-8:-1]) if not error.get("why") else "",
    )


def last_object(text: str) -> Mapping[str, Any] | None:
    """The JSON object of a program's output: all of it, or else its last line that is one, behind lines of progress."""
    for candidate in (text, *reversed(text.strip().splitlines()[-20:])):
        try:
            body = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(body, dict):
            return body
    return None


def archives(body: Mapping[str, Any]) -> tuple[Archive, ...]:
    """The answer of `database_status`."""
    return tuple(
        Archive(
            name=str(one["name"]),
            archiving=bool(one.get("archiving")),
            out_since=str(one.get("out_since") or ""),
            out_why=str(one.get("out_why") or ""),
            needs_full=bool(one.get("needs_full")),
            last_full=str(one.get("last_full") or ""),
            last_diff=str(one.get("last_diff") or ""),
            size=int(one.get("size") or 0),
            newest_wal=str(one.get("newest_wal") or ""),
            newest_commit=str(one.get("newest_commit") or ""),
            lag=_number(one.get("lag_seconds")),
            error=_words(one.get("error")),
        )
        for one in body.get("repositories") or ()
    )


def snapshots(body: Mapping[str, Any], machine: str) -> tuple[Snapshots, ...]:
    """The answer of `files_status`."""
    return tuple(
        Snapshots(
            name=str(one["name"]),
            machine=machine,
            last=str(one.get("last_point") or ""),
            age=_number(one.get("age_seconds")),
            points=int(one.get("points") or 0),
            size=int(one.get("size") or 0),
            error=_words(one.get("error")),
        )
        for one in body.get("repositories") or ()
    )


def listed_points(body: Mapping[str, Any]) -> tuple[Point, ...]:
    """The answer of `points`, the oldest first."""
    found = [Point(str(one["point"]), tuple(one.get("machines") or ())) for one in body.get("points") or ()]
    return tuple(sorted(found, key=lambda point: point.at))


def damages(body: Mapping[str, Any]) -> tuple[Damage, ...]:
    """The answer of `verify_database` and `verify_files`: empty when all is as it was written."""
    return tuple(
        Damage(str(one.get("what", "")), _words(one.get("why"))) for one in body.get("damaged") or ()
    )


def queues(body: Mapping[str, Any]) -> tuple[Queue, ...]:
    """The answer of `queue_status` and `release_queue`."""
    return tuple(
        Queue(kind, bool(one.get("held")), int(one.get("waiting") or 0), int(one.get("dropped") or 0))
        for kind in ("mail", "sms")
        if isinstance(one := body.get(kind), Mapping)
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _words(value: Any) -> str:
    """An error of a program: a text, or {what, why, next}."""
    if isinstance(value, Mapping):
        return ": ".join(str(value[key]) for key in ("what", "why") if value.get(key))
    return str(value or "")
