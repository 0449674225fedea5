"""Restores the database from a repository, beside what is there, and swaps it in when it was checked.

    database_restore.py work      what the transient unit deploy-restore-database runs; the request lies in REQUEST

Request: {"id", "repository": {...}, "target": {"kind": "latest"} | {"kind": "time", "time"}, "amcheck", "until", "instead"}.
The cluster 17/main must be stopped; it is renamed to 17/main.before-ID at the very end. Whatever happens before leaves
it untouched. Killed anywhere, the same request does the rest. until: "checked" stops before the renaming, and the same
request without it does that. instead: id of a restore that this one takes the place of.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import database_server
import pgbackrest
from database_choice import FOLDER, PLACE, PRIVATE, RESTORED, Choice, Here
from database_fetch import Fetch
from pgbackrest import Failed

REQUEST = FOLDER / "database.json"
STATE = pgbackrest.STATE / "restore-database.json"
UNIT = "deploy-restore-database.service"
# Phases in which what fails is mostly the repository's fault.
_READING = ("look", "copy", "replay", "check")


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
                    self.choice.look()
                fetch = Fetch(self.choice, self.note)
                with self.phase("copy"):
                    fetch.copy_first_good()
                server = database_server.Server(RESTORED, PRIVATE)
                with self.phase("replay"):
                    fetch.replay(server)
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
