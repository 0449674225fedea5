"""Where a move keeps what it knows on a machine, and how it is written. Standard library only; lies beside them.

Whatever decides who serves is on the disk, file and folder, before anybody is told of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ground
from ground import Failure, read

FOLDER = Path("/etc/deploy/moving")
STATE = Path("/var/lib/deploy/moving")
RUN = Path("/run/deploy-moving")
# Marks. Their being there is all that they say; drop-ins of the units ask for the first two.
CLOSED, FENCED = STATE / "closed", STATE / "fenced"
STREAMING, FORWARDING = STATE / "streaming", STATE / "forwarding"


def settings() -> dict[str, Any]:
    """What the toolkit wrote for this machine and this move."""
    found = read(FOLDER / "settings.json")
    if not isinstance(found, dict):
        why = f"{FOLDER}/settings.json is not there: no move is open on this machine"
        raise Failure("moving", why, "begin one: deploy migrate")
    return found


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(name: str, body: dict[str, Any]) -> None:
    """The record NAME.json is on the disk, folder and all, when this returns."""
    ground.write(STATE / f"{name}.json", body)
    sync_folder(STATE)


def load(name: str) -> dict[str, Any]:
    """A record; {} when there is none."""
    found = read(STATE / f"{name}.json", {})
    return found if isinstance(found, dict) else {}


def drop(name: str) -> None:
    unmark(STATE / f"{name}.json")


def mark(path: Path) -> None:
    """The file is there, for good, when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        os.fsync(file.fileno())
    sync_folder(path.parent)


def unmark(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


@contextlib.contextmanager
def lock(name: str, wait: float | None, what: str = "") -> Iterator[None]:
    """One process at a time. wait: seconds; None waits for ever. Ends with the process, however that ends.

    Raises Failure when another one holds it.
    """
    RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(RUN / f"{name}.lock", "w", encoding="utf-8") as file:
        if wait is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            end = time.monotonic() + wait
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() >= end:
                        why = f"another process of the move is at work here, for more than {wait:.0f} s"
                        raise Failure(what or "moving", why, "run it again in a minute") from None
                    time.sleep(0.02)
        yield


def now() -> float:
    """Seconds since the boot, sleep included: no change of the date moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Another one after each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def own_machines(config: dict[str, Any], other: bool = False) -> list[dict[str, Any]]:
    """The machines of this side, or of the other one, as the settings have them."""
    side = str(config["side"])
    if other:
        side = "old" if side == "new" else "new"
    return [one for one in config["machines"] if str(one["name"]).startswith(f"{side}/")]


def lead(config: dict[str, Any], other: bool = False) -> dict[str, Any]:
    """The machine with the database."""
    for one in own_machines(config, other):
        if one["lead"]:
            return one
    raise Failure("moving", "the settings name no machine with the database", "run `deploy migrate` again")


def side(config: dict[str, Any], wanted: str, verb: str) -> None:
    """Raises Failure on the wrong side."""
    if config["side"] != wanted:
        why = f"this machine ({config['machine']}) is on the {config['side']} side; it is asked of the {wanted} one"
        raise Failure(verb, why, "a mistake of ours")
