"""What flows ask of the backups' programs on machines: commands to send, and the meaning of their answers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.resources import service_file

PROGRAMS = "/usr/local/lib/deploy/backups"
# Damaged things of one repository that are named.
FEW = 10
_ADVICE = ("restic repair", "damaged pack files", "Damaged pack files", "Fatal: repository contains errors")


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
    """What a restore brought back into a queue. kind: "mail" or "sms"; held: it waits for a release.

    waiting: messages that would be sent; expired: those of them that are too old, and would be dropped; received: SMS
    from people that the app has not seen; released (None before a release), dropped: what a release has done.
    """

    kind: str
    held: bool
    waiting: int = 0
    expired: int = 0
    received: int = 0
    released: int | None = None
    dropped: int = 0


@dataclass(frozen=True)
class Leftovers:
    """What restores left on a machine, path -> bytes on the disk. before: what stood there before one; fetched: what one
    fetched that was given up. partial: there was no time to count all of it."""

    before: Mapping[str, int] = field(default_factory=dict)
    fetched: Mapping[str, int] = field(default_factory=dict)
    partial: bool = False


# --- commands ---


def create_database(repository: str, type: str = "auto") -> str:
    """A backup of the database into one repository. type: "full", "diff", or "auto" for what the policy says."""
    return _program("database.py", "create", "--repository", repository, "--type", type)


def database_progress(repository: str) -> str:
    """How far a backup of the database is that runs now, for `progress`."""
    conf = f"--config=/etc/deploy/backups/pgbackrest/{repository}.conf"
    words = ["pgbackrest", conf, "--stanza=main", "--log-level-console=off", "--output=json", "info"]
    return shlex.join(["runuser", "-u", "postgres", "--", *words])


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
    """All contents are read, not a share of them as the timer does."""
    return _program("files.py", "verify", "--repository", repository, "--read", "100%")


def points(repository: str) -> str:
    return _program("files.py", "points", "--repository", repository)


def queue_status() -> str:
    return _program("queues.py", "status")


def release_queue(kinds: Sequence[str]) -> str:
    """kinds: "mail", "sms"."""
    return _program("queues.py", "release", *(f"--{kind}" for kind in kinds))


def prune_program() -> str:
    """A Python program that takes its request (JSON) on standard input: see service/prune.py."""
    return service_file("backups", "prune.py")


def leftovers_script(seconds: float) -> str:
    """A bash script that looks for what restores left, and counts it for at most `seconds`; for `leftovers`."""
    text = service_file("backups", "leftovers.py")
    return f"exec python3 - {seconds:g} <<'DEPLOY_LEFTOVERS'\n{text}\nDEPLOY_LEFTOVERS\n"


def _program(name: str, *arguments: str) -> str:
    return shlex.join(["python3", f"{PROGRAMS}/{name}", *arguments])


# --- answers ---


def answer(what: str, machine: str, code: int, out: str, err: str) -> Any:
    """The JSON that a program printed. Exit code 1 with an answer says that something in it is bad.

    Raises DeployError, in the program's own words, when it failed as a whole.
    """
    body = _json(out)
    error = body.get("error") if isinstance(body, dict) else None
    if body is not None and not error and code in (0, 1):
        return body
    told = error if isinstance(error, Mapping) else {"why": error}
    lines = [line for line in err.strip().splitlines() if line.strip()]
    fallback = lines[-1].strip() if lines else f"it ended with {code} and said nothing"
    raise DeployError(
        str(told.get("what") or what),
        str(told.get("why") or fallback),
        str(told.get("next") or "see what it wrote: deploy logs backups"),
        machine=machine,
        detail="" if told.get("why") else "\n".join(lines[-8:-1]),
    )


def _json(text: str) -> Any:
    """The JSON of a program's output: all of it, or else its last line that is some, behind lines of progress."""
    for candidate in (text, *reversed(text.strip().splitlines()[-20:])):
        try:
            body = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(body, dict | list):
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
            error=words(one.get("error")),
        )
        for one in body.get("repositories") or ()
    )


def progress(output: str) -> tuple[int, int] | None:
    """Bytes that were read and bytes in all, from the answer of `database_progress`; None when none is under way."""
    try:
        lock = json.loads(output, strict=False)[0]["status"]["lock"]["backup"]
        return (int(lock["size-cplt"]), int(lock["size"])) if lock["held"] else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def snapshots(body: Sequence[Mapping[str, Any]], machine: str) -> tuple[Snapshots, ...]:
    """The answer of `files_status` and `create_files`."""
    return tuple(
        Snapshots(
            name=str(one["name"]),
            machine=machine,
            last=str(one.get("last_point") or ""),
            age=_number(one.get("age_seconds")),
            points=int(one.get("snapshots") or 0),
            size=int(one.get("size") or 0),
            error=words(one.get("error")),
        )
        for one in body
    )


def listed_points(body: Sequence[Mapping[str, Any]]) -> tuple[Point, ...]:
    """The answer of `points`, the oldest first."""
    found = [Point(str(one["point"]), tuple(sorted(one.get("machines") or ()))) for one in body]
    return tuple(sorted(found, key=lambda point: point.at))


def damaged_database(body: Mapping[str, Any]) -> tuple[Damage, ...]:
    """The answer of `verify_database`: empty when all is as it was written."""
    return tuple(Damage(str(one.get("what", "")), words(one.get("why"))) for one in body.get("damaged") or ())


def damaged_files(body: Sequence[Mapping[str, Any]]) -> tuple[Damage, ...]:
    """The answer of `verify_files`."""
    found = []
    for one in body:
        if one.get("ok"):
            continue
        texts = telling(one.get("errors") or ()) or [words(one.get("error")) or "it could not be verified"]
        found += [Damage("snapshots", text) for text in texts[:FEW]]
        if len(texts) > FEW:
            found.append(Damage("snapshots", f"and {len(texts) - FEW} more"))
    return tuple(found)


def telling(errors: Sequence[object]) -> list[str]:
    """Of what restic says, what is damaged; beside it restic says that something is, and how it would be mended."""
    lines = [" ".join(str(text).split())[:200] for text in errors]
    good = [line for line in lines if line and not any(word in line for word in _ADVICE)]
    return list(dict.fromkeys(good))


def queues(body: Mapping[str, Any]) -> tuple[Queue, ...]:
    """The answer of `queue_status` and `release_queue`."""
    names = ("waiting", "expired", "received", "released", "dropped")
    return tuple(
        Queue(kind, bool(one.get("held")), **{name: int(one[name]) for name in names if name in one})
        for kind in ("mail", "sms")
        if isinstance(one := body.get(kind), Mapping)
    )


def leftovers(output: str, machine: str = "") -> Leftovers:
    """The answer of `leftovers_script`. Raises DeployError when the machine answered something else."""
    try:
        body = json.loads(output.strip().splitlines()[-1])
        before, fetched = (
            {str(path): int(size) for path, size in body[key]} for key in ("before", "fetched")
        )
        return Leftovers(before, fetched, bool(body["partial"]))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DeployError(
            "looking for what restores left",
            f"unexpected answer ({error})",
            "see whether python3 works there",
            machine=machine or None,
            detail=output[-500:],
        ) from None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def words(value: Any) -> str:
    """An error of a program: a text, or {what, why, next}."""
    if isinstance(value, Mapping):
        return ": ".join(str(value[key]) for key in ("what", "why") if value.get(key))
    return str(value or "")
