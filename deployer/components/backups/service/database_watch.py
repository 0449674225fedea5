"""Watches the archiving of WAL: takes a repository out before it fills the disk, puts it back when it answers.

A service, run as root. One thread a repository asks those that are out, so that one that hangs delays nothing.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import archiving
import database_conf
import database_create
import pgbackrest

EVERY = 10.0
# Seconds until a backup that failed is tried again.
AGAIN = 300.0
UNIT = "deploy-backups-database.service"


class Watch:
    def __init__(self) -> None:
        self._asking: dict[str, threading.Thread] = {}
        self._asked: dict[str, float] = {}
        self._started = 0.0

    def look(self) -> None:
        wanted = pgbackrest.settings()
        if not wanted["generation"]:
            return
        if not database_conf.configured(wanted):
            database_conf.configure(wanted)
        state = take_out(wanted)["repositories"]
        for name, entry in state.items():
            if not entry["archiving"]:
                self._ask(wanted, name, entry)
        if any(entry["archiving"] and entry["needs_full"] for entry in state.values()):
            self._backup()

    def _ask(self, wanted: dict[str, Any], name: str, entry: dict[str, Any]) -> None:
        running = self._asking.get(name)
        if running and running.is_alive():
            return
        if time.monotonic() - self._asked.get(name, -1e9) < archiving.pause(entry["returns"]):
            return
        self._asked[name] = time.monotonic()
        thread = threading.Thread(target=self._bring, args=(wanted, name), daemon=True)
        self._asking[name] = thread
        thread.start()

    def _bring(self, wanted: dict[str, Any], name: str) -> None:
        try:
            database_create.bring_in(wanted, name)
            print(f"{name} answers: it is in the archiving, and gets a full backup", flush=True)
            self._backup()
        except Exception as error:
            print(f"{name} stays out of the archiving: {error}", flush=True)

    def _backup(self) -> None:
        if time.monotonic() - self._started < AGAIN and self._started:
            return
        self._started = time.monotonic()
        subprocess.run(["systemctl", "start", "--no-block", UNIT], timeout=30, check=False)


def take_out(wanted: dict[str, Any]) -> dict[str, Any]:
    """Take out whom `leaving` names; returns the state."""
    bound = float(wanted["policy"]["wal_bound"]) * (1 << 30)
    backlog = archiving.measure(wanted)

    def change(repositories: dict[str, Any]) -> None:
        inside = {name for name, entry in repositories.items() if entry["archiving"]}
        for name, why in archiving.leaving(backlog, inside, bound).items():
            print(f"{name} leaves the archiving: {why}", flush=True)
            entry = repositories[name]
            entry["gaps"] = [*entry["gaps"], {"first": backlog.first[name], "last": ""}][-50:]
            returns = entry["returns"] + (1 if entry["needs_full"] else 0)
            entry.update(
                archiving=False, out_since=pgbackrest.iso(pgbackrest.now()), out_why=why, in_since="",
                needs_full=True, returns=returns,
            )  # fmt: skip

    return archiving.update(wanted, change)


def main() -> int:
    watch = Watch()
    while True:
        began = time.monotonic()
        try:
            watch.look()
        except (pgbackrest.Failed, OSError, subprocess.SubprocessError) as error:
            print(error, file=sys.stderr, flush=True)
        time.sleep(max(1.0, EVERY - (time.monotonic() - began)))


if __name__ == "__main__":
    sys.exit(main())
