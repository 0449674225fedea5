"""Backups of the database into a repository, and what a repository needs before. Not a program."""

from __future__ import annotations

import fcntl
import pwd
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import archiving
import database_conf
import pgbackrest
from pgbackrest import Failed, iso, now

LOCK = Path("/run/deploy-backups-database.lock")
# Seconds that a backup may take, and that one waits for another.
BOUND = 12 * 3600
# Backups are due this much earlier (days), so that an hourly timer does not move them on by an hour each day.
EARLY = 0.03


def stanza(wanted: Mapping[str, Any], name: str, bound: float = 60) -> None:
    """Make the stanza, or see that the one there is ours, within `bound` seconds. Raises Failed."""
    one = pgbackrest.repository(wanted, name)
    if one["kind"] == "path":
        _place(Path(one["path"]), one["database_key"])
    what = f"making the database's place in the repository {name}"
    pgbackrest.good(what, conf(name), "stanza-create", timeout=bound)


def _place(path: Path, key: str) -> None:
    """The folders below a mounted disk, the last one for postgres. The disk itself must be there."""
    if not path.is_dir():
        raise Failed("looking for the repository's folder", f"{path} is not there", "mount its disk")
    for part in key.split("/"):
        path = path / part
        path.mkdir(mode=0o755, exist_ok=True)
        # restic may have made it before, for itself alone.
        path.chmod(0o755)
    user = pwd.getpwnam("postgres")
    pgbackrest.folder(path, 0o750, user.pw_uid, user.pw_gid)


def conf(name: str) -> Path:
    return database_conf.CONF / f"{name}.conf"


def bring_in(wanted: Mapping[str, Any], name: str, patience: float = 120, bound: float = 60) -> None:
    """Put a repository that is out into the archiving. Raises Failed, and notes why, when it does not work.

    patience: seconds to wait for another run that asks it, which a dead one keeps busy; bound: for its answer.
    """
    with open(f"/run/deploy-backups-{name}.lock", "a") as lock:
        _wait(lock, f"asking the repository {name}", patience)
        if not archiving.read(wanted)["repositories"][name]["archiving"]:
            _bring_in(wanted, name, bound)


def _bring_in(wanted: Mapping[str, Any], name: str, bound: float) -> None:
    try:
        stanza(wanted, name, bound)
    except Failed as error:
        why = error.error["why"]

        def note(repositories: dict[str, Any]) -> None:
            entry = repositories[name]
            if not entry["out_since"]:
                entry["out_since"] = iso(now())
            if not entry["in_since"] and entry["out_why"].startswith(archiving.NEVER):
                entry["out_why"] = f"{archiving.NEVER}: {why}"

        archiving.update(wanted, note)
        raise

    def change(repositories: dict[str, Any]) -> None:
        if not repositories[name]["archiving"]:
            gaps = [{**gap, "last": gap["last"] or last} for gap in repositories[name]["gaps"]]
            repositories[name].update(
                archiving=True, out_since="", out_why="", in_since=iso(now()), gaps=gaps
            )

    last = archiving.newest()

    archiving.update(wanted, change)


def kind_due(
    policy: Mapping[str, Any], entry: Mapping[str, Any], backups: Mapping[str, str], at: float
) -> str:
    """ "full", "diff", or "" when nothing is due. backups: times of the last "full" and of the last "any"; "" for none."""
    if entry["needs_full"] or not backups["full"]:
        return "full"
    day = 86400.0
    if at - pgbackrest.parse(backups["full"]).timestamp() >= (policy["full"] - EARLY) * day:
        return "full"
    if at - pgbackrest.parse(backups["any"]).timestamp() >= (policy["differential"] - EARLY) * day:
        return "diff"
    return ""


def last_backups(found: Mapping[str, Any]) -> dict[str, str]:
    """When the last good ones ended: {"full", "diff", "any"}, "" for none."""
    times: dict[str, str] = {"full": "", "diff": "", "any": ""}
    for one in found["backup"]:
        if one.get("error"):
            continue
        ended = iso(one["timestamp"]["stop"])
        times[one["type"]] = max(times.get(one["type"], ""), ended)
        times["any"] = max(times["any"], ended)
    return times


def create(wanted: Mapping[str, Any], name: str, kind: str) -> dict[str, Any]:
    """One backup. kind: "full", "diff" or "auto" (full when one is due or needed, else differential)."""
    what = f"backing up the database to {name}"
    if not wanted["generation"]:
        raise Failed(what, "this deployment is not live", "make it live: see docs/backups.md")
    pgbackrest.repository(wanted, name)
    entry = archiving.read(wanted)["repositories"][name]
    if not entry["archiving"]:
        try:
            bring_in(wanted, name)
        except Failed as error:
            raise Failed(what, error.error["why"], error.error["next"]) from None
        entry = archiving.read(wanted)["repositories"][name]
    if kind == "auto":
        due = kind_due(wanted["policy"], entry, last_backups(pgbackrest.info(conf(name))), time.time())
        kind = due or "diff"
    if kind == "diff" and entry["needs_full"]:
        raise Failed(what, "its WAL has a gap, so it needs a full backup first", "use the type full")
    began = time.monotonic()
    with open(LOCK, "a") as lock:
        _wait(lock, what, BOUND)
        waited = time.monotonic() - began
        _newest_timeline()
        words = ["backup", f"--type={kind}", "--archive-timeout=180"]
        pgbackrest.good(what, conf(name), *words, timeout=BOUND)
    made = pgbackrest.info(conf(name))["backup"][-1]

    def change(repositories: dict[str, Any]) -> None:
        now_in = repositories[name]["in_since"]
        if kind == "full" and repositories[name]["archiving"] and iso(made["timestamp"]["start"]) >= now_in:
            repositories[name].update(needs_full=False, returns=0)

    archiving.update(wanted, change)
    return {
        "repository": name,
        "type": made["type"],
        "label": made["label"],
        "at": iso(made["timestamp"]["stop"]),
        "seconds": round(time.monotonic() - began - waited, 1),
        "size": made["info"]["size"],
        "stored": made["info"]["repository"]["delta"],
    }


# pgBackRest compares the WAL's timeline with that of the last checkpoint, which comes minutes after a promotion.
CHECKPOINT = """\
SELECT 'CHECKPOINT' WHERE NOT pg_is_in_recovery() AND (SELECT timeline_id FROM pg_control_checkpoint())
  <> (SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int) \\gexec
"""


def _newest_timeline() -> None:
    """Where it does not work, pgBackRest says why."""
    pgbackrest.as_postgres(["psql", "-XAtq", "-d", "postgres"], timeout=600, stdin=CHECKPOINT)


def create_due(wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is due in each repository, one after the other. An entry with "error" for each that failed."""
    found = []
    for one in wanted["repositories"]:
        name = one["name"]
        try:
            entry = archiving.read(wanted)["repositories"][name]
            if not entry["archiving"]:
                why = f"it is out of the archiving since {entry['out_since']}: {entry['out_why']}"
                raise Failed(f"backing up the database to {name}", why, "see its vendor; it is asked again")
            last = last_backups(pgbackrest.info(conf(name)))
            kind = kind_due(wanted["policy"], entry, last, time.time())
            if kind:
                found.append(create(wanted, name, kind))
        except Failed as error:
            found.append({"repository": name, "error": error.error})
    return found


def _wait(lock: Any, what: str, bound: float) -> None:
    deadline = time.monotonic() + bound
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Failed(
                    what, "another run of it is at work", "see `systemctl status deploy-backups-database`"
                ) from None
            time.sleep(1)
