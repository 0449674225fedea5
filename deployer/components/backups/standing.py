"""How the backups of a machine stand, from the files that its programs keep there; asks no repository.

archiving.json       who gets the WAL (archiving.py)
files-NAME.json      the last snapshot in a repository (files.py)
alarm.json           what is late or has failed, a minute old at most (alarm.py)
guard.json           whether this machine may serve (guard.py)
held.json            what a restore holds (holding.py)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from deployer.components.backups.actions import telling, words
from deployer.core.errors import DeployError

STATE = "/var/lib/deploy/backups"
# Bytes of a state file that are read; they hold a few lines for each repository.
LARGEST = 1 << 20
# Seconds after which an alarm that looks every minute has stopped.
SILENT = 600
# The unit of the scheduled backups of the database.
DATABASE_UNIT = "deploy-backups-database.service"

_READ = f"""
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


def script() -> str:
    """A bash script that prints all of the machine's state files as one JSON line, for `parse`."""
    return f"exec python3 -IS - <<'DEPLOY_STATE'\n{_READ}\nDEPLOY_STATE\n"


def parse(output: str, machine: str = "") -> Mapping[str, Any]:
    """State file -> its content. Raises DeployError when the machine answered something else."""
    try:
        found: Mapping[str, Any] = json.loads(output.strip().splitlines()[-1])
        return {name: body for name, body in found.items() if isinstance(body, dict)}
    except (ValueError, IndexError, AttributeError) as error:
        raise DeployError(
            "reading how the backups stand",
            f"unexpected answer ({error})",
            "see whether python3 works there",
            machine=machine or None,
            detail=output[-500:],
        ) from None


def problems(state: Mapping[str, Any], now: float) -> list[str]:
    """What makes `status` fail: late, failed, out of the archiving, or not allowed to serve. now: the machine's clock."""
    found = []
    out = {name for name, entry in _archiving(state).items() if _left(entry)}
    for name in sorted(out):
        entry = _archiving(state)[name]
        since = f" since {entry['out_since']}" if entry.get("out_since") else ""
        found.append(f"{name} is out of the archiving of WAL{since}: {entry.get('out_why') or 'unknown why'}")
    alarm = state.get("alarm", {})
    for key, cause in sorted(alarm.get("causes", {}).items()):
        if key.removeprefix("database/") not in out:
            found.append(f"{cause['words']} (since {cause['since']})")
    if alarm and now - _seconds(alarm.get("at")) > SILENT:
        found.append(f"nobody looks after the backups since {alarm.get('at')}: deploy logs backups")
    guard = state.get("guard", {})
    if guard.get("verdict") == "superseded" and "guard" not in alarm.get("causes", {}):
        found.append(f"this machine serves nothing: {guard.get('why')}")
    return found


def degraded(state: Mapping[str, Any]) -> list[str]:
    """What is not as it should be, and which no backup is late for yet."""
    found = []
    for name, entry in sorted(_archiving(state).items()):
        if entry.get("archiving") and entry.get("needs_full"):
            found.append(f"{name} needs a full backup of the database before it counts; it is made by itself")
        elif not entry.get("archiving") and not _left(entry):
            found.append(f"{name} is not in the archiving of WAL yet: {entry.get('out_why') or 'not asked'}")
    alarm = state.get("alarm", {})
    for key, entry in sorted(state.items()):
        name = key.removeprefix("files-")
        error = entry.get("error")
        if key == name or key.startswith("files-verify-") or f"files/{name}" in alarm.get("causes", {}):
            continue
        if error:
            why = error.get("why") if isinstance(error, dict) else error
            found.append(f"files are not backed up to {name} since {entry.get('failed_since')}: {why}")
    for key, entry in sorted(state.items()):
        if key.startswith("files-verify-") and not entry.get("ok", True):
            name = key.removeprefix("files-verify-")
            why = [*telling(entry.get("errors") or ()), words(entry.get("error")), "see deploy backup verify"]
            found.append(
                f"the files' backups at {name} are damaged, as seen {entry.get('at')}: {next(filter(None, why))}"
            )
    for kind, why in sorted(alarm.get("failed", {}).items()):
        found.append(f"an alarm about backups could not be sent by {kind}: {why}")
    for host, why in sorted(alarm.get("pings", {}).items()):
        if why:
            found.append(f"the service {host}, which is to notice our end, does not answer: {why}")
    return found


def notices(state: Mapping[str, Any]) -> list[str]:
    """What the operator should know and which fails nothing."""
    held = state.get("held", {}).get("mail") or ()
    return [f"{len(held)} restored message(s) are held: deploy queue status"] if held else []


def _archiving(state: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = state.get("archiving", {}).get("repositories", {})
    return found


def _left(entry: Mapping[str, Any]) -> bool:
    """It gets no WAL, and somebody has noticed; not one that was not asked yet."""
    return not entry.get("archiving") and bool(entry.get("out_since"))


def _seconds(text: object) -> float:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
