"""Puts files back: beside their places first, looked at there, then swapped. Run by a transient unit.

Killed at any moment, the same request again goes on or starts over without harm. What stood in a place before is kept
as NAME.before-ID. A request with "until": "checked" stops before the swap, and the same one without it does that;
"instead": id of a restore that this one takes the place of.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ground import PROGRAMS, STATE, Failure, alone, read, run, write
from places import beside
from restoring_work import BOUND, FULL, RECORD, Restore

UNIT = "deploy-restore-files.service"
REQUEST = Path("/run/deploy-restore/files.json")
# Phases in which what fails is mostly the repository's fault, and what is not.
READING = ("choosing snapshots", "fetching files", "checking files")


def start(request: dict[str, Any]) -> dict[str, Any]:
    """Begin what is asked for, unless it is under way or done. Returns what `restore-status` prints."""
    known = read(RECORD, {}) or {}
    same = known.get("id") == request["id"]
    ended = ("checked", "done") if request.get("until") == "checked" else ("done",)
    if same and known.get("state") in ended:
        return known
    if active():
        if same and known.get("state") == "running":
            return known
        if not same and known.get("id") != request.get("instead"):
            raise Failure(
                "restoring files", f"another restore ({known.get('id')}) is under way", "wait for its end"
            )
        # One that is given up, or a unit in its last breath.
        run("ending the former restore", ["systemctl", "stop", UNIT], timeout=120)
    REQUEST.parent.mkdir(mode=0o700, exist_ok=True)
    write(REQUEST, request)
    if known.get("id") != request["id"]:
        _discard(request["data"], str(known.get("id") or ""))
        known = {"id": request["id"]}
    write(RECORD, {**known, "state": "running", "phase": "starting", "error": None}, 0o644)
    subprocess.run(["systemctl", "reset-failed", UNIT], capture_output=True, timeout=30)
    words = ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", f"--property=RuntimeMaxSec={BOUND}"]
    words += ["--property=Nice=5", "/usr/bin/python3", "-B", str(PROGRAMS / "files.py"), "restore-work"]
    run("starting the restore of files", words, timeout=60)
    return status()


def _discard(data: list[dict[str, Any]], name: str) -> None:
    """What an earlier restore fetched and never put in place."""
    if not name:
        return
    for item in data:
        new = beside(Path(item["where"]), name)
        if new.is_dir():
            shutil.rmtree(new, ignore_errors=True)
        else:
            new.unlink(missing_ok=True)
    for folder in (STATE / "restoring").glob(f"{name}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def active() -> bool:
    done = subprocess.run(["systemctl", "is-active", UNIT], capture_output=True, text=True, timeout=30)
    return done.stdout.strip() in ("active", "activating", "deactivating")


def status() -> dict[str, Any]:
    """state: none, running, done or failed. One that was killed is "failed", and goes on when asked for again."""
    known: dict[str, Any] = read(RECORD, {}) or {"state": "none"}
    if known.get("state") == "running" and not active():
        known = read(RECORD, {}) or known
        if known.get("state") == "running":
            body = {
                "what": "restoring files",
                "why": f"it was ended while {known.get('phase')}",
                "next": "the same request again goes on",
            }
            known = {**known, "state": "failed", "error": body}
    return known


def work() -> int:
    """The unit's own work."""
    with alone("restore-files", 5) as free:
        if not free:
            return 0
        request = read(REQUEST)
        if not isinstance(request, dict):
            print("there is no request", file=sys.stderr)
            return 1
        # It holds the repository's keys.
        REQUEST.unlink()
        restore = Restore(request)
        try:
            restore.work()
            return 0
        except Failure as failure:
            body = dict(failure.body)
            if restore.record["phase"] in READING:
                # Another repository may have what this one lacks.
                body["elsewhere"] = True
        except (OSError, ValueError, KeyError) as error:
            body = {
                "what": f"restoring files ({restore.record['phase']})",
                "why": f"{type(error).__name__}: {error}",
                "next": "mend it and send the same request again; what was there before is untouched or beside it",
            }
        if FULL in body["why"].lower():
            body = {"what": body["what"], "why": "the disk is full: the files need room beside what is there"}
            body["next"] = (
                "make room or take a larger disk, then run the same restore again; what was there is untouched"
            )
        restore.record |= {"state": "failed", "error": body}
        with contextlib.suppress(OSError):
            restore.save()
        print(f"{body['what']}: {body['why']}", file=sys.stderr)
        return 1
