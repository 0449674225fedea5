"""Restores the database from a repository, beside what is there, and swaps it in when it was checked.

    database_restore.py work      what the transient unit deploy-restore-database runs; the request lies in REQUEST

Request: {"id", "repository": {...}, "target": {"kind": "latest"} | {"kind": "time", "time"}, "amcheck", "until", "instead"}.
The cluster 17/main must be stopped; it is renamed to 17/main.before-ID at the very end. Whatever happens before leaves
it untouched. Killed anywhere, the same request does the rest. until: "checked" stops before the renaming, and the same
request without it does that. instead: id of a restore that this one takes the place of.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import database_server
import database_verify
import database_wal
import pgbackrest
from database_choice import FOLDER, PLACE, PRIVATE, RESTORED, Choice, Here, size, wal
from pgbackrest import Failed, parse

REQUEST = FOLDER / "database.json"
STATE = pgbackrest.STATE / "restore-database.json"
UNIT = "deploy-restore-database.service"
# Seconds.
COPY_BOUND = 24 * 3600
# Seconds for finding out which object of a backup is damaged.
LOOK_BOUND = 3600
_BEFORE = "before configured recovery target"
# Phases in which what fails is mostly the repository's fault.
_READING = ("look", "copy", "replay", "check")


class Damaged(Failed):
    """An object of a backup is not what was written."""


# --- from outside ---


def start(request: Mapping[str, Any]) -> dict[str, Any]:
    """Begin, or go on with, the restore of this request; returns its state at once."""
    for key in ("id", "repository", "target"):
        if not request.get(key):
            raise Failed(
                "starting the restore of the database", f"the request lacks {key}", "a mistake of ours"
            )
    now = status()
    same = now.get("id") == request["id"]
    if same and now["state"] in ("done", "running"):
        return now
    if same and now["state"] == "checked" and request.get("until") == "checked" and RESTORED.exists():
        return now
    if now["state"] == "running":
        if now["id"] != request.get("instead"):
            raise Failed(
                "starting the restore of the database",
                f"the restore {now['id']} is under way here",
                "wait for its end: database.py restore-status",
            )
        subprocess.run(["systemctl", "stop", UNIT], timeout=60, check=False)
        now = status()
    if not same and now.get("swapping"):
        _put_back(now["id"])
    FOLDER.mkdir(mode=0o711, exist_ok=True)
    pgbackrest.write(REQUEST, json.dumps(request), 0o600)
    if same and now.get("checked"):
        save({**now, "state": "running", "error": None})
    else:
        keep: dict[str, Any] = {name: now[name] for name in ("seconds", "swapping") if same and name in now}
        save({**empty(request["id"]), **keep})
    subprocess.run(["systemctl", "reset-failed", UNIT], stderr=subprocess.DEVNULL, timeout=30, check=False)
    done = subprocess.run(
        ["systemd-run", f"--unit={UNIT}", "--collect", "--quiet", "--property=KillMode=control-group",
         "--property=TimeoutStopSec=20", sys.executable, os.path.abspath(__file__), "work"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Failed("starting the restore of the database", done.stderr.strip(), "see `systemctl status`")
    return status()


def empty(name: str) -> dict[str, Any]:
    return {
        "id": name, "state": "running", "phase": "look", "done_bytes": 0, "total_bytes": 0, "seconds": {},
        "recovered_to": "", "backup": "", "damaged": [], "checks": [], "error": None, "checked": False,
    }  # fmt: skip


def _old(name: str) -> Path:
    """Where the former database goes."""
    return PLACE / f"main.before-{re.sub(r'[^A-Za-z0-9._-]', '-', name)}"


def _put_back(name: str) -> None:
    """A restore that was killed between its two renames and will not go on: the former database is in place again."""
    if not pgbackrest.CLUSTER.exists() and _old(name).exists():
        _old(name).rename(pgbackrest.CLUSTER)


def save(state: Mapping[str, Any]) -> None:
    STATE.parent.mkdir(parents=True, exist_ok=True)
    pgbackrest.write(STATE, json.dumps(state, indent=1) + "\n", 0o600)


def status() -> dict[str, Any]:
    """The state of the last restore; {"state": "none"} when there was none."""
    try:
        found: dict[str, Any] = json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"state": "none"}
    if found["state"] == "running" and not _active():
        # It may have ended between the two looks.
        found = json.loads(STATE.read_text(encoding="utf-8"))
        if found["state"] == "running":
            found["state"] = "failed"
            found["error"] = {
                "what": f"restoring the database ({found['phase']})",
                "why": "it was stopped: killed, or the machine was started anew",
                "next": "run the same restore again; the former database is untouched",
            }
    return found


def _active() -> bool:
    done = subprocess.run(
        ["systemctl", "show", "--property=ActiveState", "--value", UNIT],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout.strip() in ("active", "activating", "deactivating")


# --- the work ---


class Work:
    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = request
        self.choice = Choice(request)
        self.state = json.loads(STATE.read_text(encoding="utf-8"))

    def run(self) -> None:
        if self.state.get("swapping"):
            # Everything was checked; only the renaming may be missing.
            self.swap()
        else:
            if not (self.state.get("checked") and RESTORED.exists()):
                with self.phase("look"):
                    backups = self.choice.look()
                with self.phase("copy"):
                    self.copy_first_good(backups)
                server = database_server.Server(RESTORED, PRIVATE)
                with self.phase("replay"):
                    self.replay(server)
                with self.phase("check"):
                    try:
                        self.check(server)
                    finally:
                        server.stop()
                with self.phase("sync"):
                    database_server.settle(RESTORED)
                self.note(checked=True)
            if self.request.get("until") == "checked":
                shutil.rmtree(PRIVATE, ignore_errors=True)
                self.note(state="checked", phase="checked", error=None)
                return
            with self.phase("swap"):
                self.choice.stopped()
                self.note(swapping=True)
                self.swap()
        shutil.rmtree(PRIVATE, ignore_errors=True)
        self.note(state="done", phase="done", swapping=False, error=None)

    def note(self, **values: Any) -> None:
        self.state.update(values)
        save(self.state)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.note(phase=name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.state["seconds"][name] = round(time.monotonic() - began, 1)

    # --- copy ---

    def copy_first_good(self, backups: list[Mapping[str, Any]]) -> None:
        """A backup with damage gives way to the one before it: with the WAL since, it leads to the same moment."""
        for number, backup in enumerate(backups):
            self.note(backup=backup["label"], total_bytes=backup["info"]["size"])
            try:
                if number:
                    self.choice.contiguous(wal(), backup)
                self.copy(backup)
                return
            except Damaged as error:
                self.note(damaged=[*self.state["damaged"], error.error["why"]])
                if number + 1 == len(backups):
                    raise

    def copy(self, backup: Mapping[str, Any]) -> None:
        shutil.rmtree(RESTORED, ignore_errors=True)
        user = pwd.getpwnam("postgres")
        PLACE.mkdir(parents=True, exist_ok=True)
        pgbackrest.folder(RESTORED, 0o700, user.pw_uid, user.pw_gid)
        fetch = f"{os.path.dirname(os.path.abspath(__file__))}/wal-fetch {PRIVATE} %f %p"
        words = ["restore", f"--set={backup['label']}", "--archive-mode=off"]
        words += [f"--recovery-option=restore_command={fetch}"]
        if self.choice.wanted is not None:
            at = self.choice.wanted.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
            words += ["--type=time", f"--target={at}", "--target-action=promote"]
        else:
            words += ["--type=default"]
        over = threading.Event()
        counter = threading.Thread(target=self._count, args=(over,), daemon=True)
        counter.start()
        try:
            done = pgbackrest.call(self.choice.conf, *words, timeout=COPY_BOUND)
        finally:
            over.set()
            counter.join(10)
        if done.returncode:
            raise self.broken(done, backup)
        self.note(done_bytes=size(RESTORED))

    def _count(self, over: threading.Event) -> None:
        while not over.wait(2):
            self.note(done_bytes=size(RESTORED))

    def broken(self, done: subprocess.CompletedProcess[str], backup: Mapping[str, Any]) -> Failed:
        """A copy that failed: a damaged object, or the repository stopped answering."""
        label = backup["label"]
        failed = pgbackrest.failure(f"copying the backup {label} from {self.choice.repository}", done)
        if "does not answer" in failed.error["why"] or "No space left" in failed.error["why"]:
            return failed
        words = ["verify", f"--set={label}", "--output=text", "--job-retry=1"]
        looked = pgbackrest.call(self.choice.conf, *words, timeout=LOOK_BOUND, words="detail")
        bad = [f"{one['what']} {one['why']}" for one in database_verify.read(looked.stderr.splitlines())]
        if not bad:
            return failed
        why = f"damage in the repository: {'; '.join(bad[:5])}"
        return Damaged(failed.error["what"], why, "take an earlier time, or another repository")

    # --- replay ---

    def replay(self, server: database_server.Server) -> None:
        server.start()
        server.recovered(self.progress)
        if (
            self.choice.wanted
            and _BEFORE in server.error
            and server.last_time
            and parse(server.last_time) >= self.choice.wanted
        ):
            # Nothing later can be had, but nothing up to the moment itself is missing.
            server.take_what_there_is()
            server.start()
            server.recovered(self.progress)
        notes = _notes()
        # The server may have asked for more than it needed to get there.
        there = self.choice.wanted is not None and not server.error
        bad = next((one for one in notes if one["kind"] == "damaged"), None)
        if bad and not there:
            server.stop()
            raise self.choice.missing(bad["segment"], f"is damaged ({bad['why']})", server.last_time)
        if server.error:
            server.stop()
            self.unreached(server)
        self.note(recovered_to=server.last_time)

    def progress(self, server: database_server.Server) -> None:
        if self.state.get("recovered_to") != server.last_time:
            self.note(recovered_to=server.last_time)

    def unreached(self, server: database_server.Server) -> None:
        if _BEFORE in server.error:
            # The latest that can be had; the segment after it was never archived.
            reach = server.last_time or database_wal.newest_commit(
                self.choice.conf, sorted(wal())[-4:], paths=wal()
            )
            raise Failed(
                f"restoring the database from {self.choice.repository}",
                f"what it holds ends at {reach}, before {self.choice.target['time']}",
                f'restore to {reach} or to "latest", or take another repository',
            )
        raise Failed(
            f"replaying WAL from {self.choice.repository}",
            server.error,
            "take an earlier time, or another repository",
        )

    # --- check ---

    def check(self, server: database_server.Server) -> None:
        checks = server.checks(self.state["recovered_to"], bool(self.request.get("amcheck")))
        self.note(checks=checks, recovered_to=self.state["recovered_to"] or server.heartbeat)
        wrong = [f"{one['name']}: {one['text']}" for one in checks if not one["good"]]
        if wrong:
            raise Failed(
                "checking the restored database",
                "; ".join(wrong),
                "take an earlier time, or another repository; the former database is untouched",
            )

    # --- swap ---

    def swap(self) -> None:
        """Two renames. After the first one a reboot finds no 17/main: nothing starts, and this goes on."""
        old = _old(self.request["id"])
        if RESTORED.exists():
            if pgbackrest.CLUSTER.exists():
                if old.exists():
                    # Killed between the renames; an empty one was made since, where there was none.
                    shutil.rmtree(old.with_name(f"{old.name}-empty"), ignore_errors=True)
                    old = old.with_name(f"{old.name}-empty")
                pgbackrest.CLUSTER.rename(old)
            RESTORED.rename(pgbackrest.CLUSTER)
            descriptor = os.open(PLACE, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        elif not (pgbackrest.CLUSTER / "PG_VERSION").exists():
            raise Failed("swapping the databases", f"{RESTORED} is gone", "begin anew with another id")


def _notes() -> list[dict[str, str]]:
    try:
        return [json.loads(line) for line in (PRIVATE / "notes").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []


def _told(error: Failed, phase: str) -> dict[str, Any]:
    """The error as an operator reads it. elsewhere: another repository may have what this one lacks."""
    if "No space left" in error.error["why"]:
        return {
            "what": error.error["what"],
            "why": f"the disk is full: {PLACE} must hold the database and its WAL beside what is there",
            "next": "make room or take a larger disk, then run the same restore again; the former database is untouched",
        }
    if phase in _READING and not isinstance(error, Here):
        return {**error.error, "elsewhere": True}
    return error.error


def main() -> int:
    work = Work(json.loads(REQUEST.read_text(encoding="utf-8")))
    # It holds the repository's keys.
    REQUEST.unlink()
    try:
        work.run()
    except Failed as error:
        work.note(state="failed", error=_told(error, work.state["phase"]))
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        work.note(
            state="failed",
            error={"what": f"restoring the database ({work.state['phase']})", "why": text,
                   "next": f"see `journalctl -u {UNIT}`; the former database is untouched"},
        )  # fmt: skip
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
