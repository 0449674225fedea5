"""Fetches a backup beside the cluster that is there, and replays its WAL up to the moment. Not a program."""

from __future__ import annotations

import datetime
import json
import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import Any

import database_server
import database_verify
import database_wal
import pgbackrest
from database_choice import PLACE, PRIVATE, RESTORED, Choice, size, wal
from pgbackrest import Failed, parse

# Seconds.
COPY_BOUND = 24 * 3600
# Seconds for finding out which object of a backup is damaged.
LOOK_BOUND = 3600
_BEFORE = "before configured recovery target"


class Damaged(Failed):
    """An object of a backup is not what was written."""


class Fetch:
    """choice: which backups, and up to which moment. note: writes into the record of the restore what it is given."""

    def __init__(self, choice: Choice, note: Callable[..., None]) -> None:
        self.choice, self.note = choice, note
        # The moment that was noted last.
        self.told = ""

    # --- copy ---

    def copy_first_good(self) -> None:
        """A backup with damage gives way to the one before it: with the WAL since, it leads to the same moment."""
        damaged: list[str] = []
        backups = self.choice.backups
        for number, backup in enumerate(backups):
            self.note(backup=backup["label"], total_bytes=backup["info"]["size"])
            try:
                if number:
                    self.choice.contiguous(wal(), backup)
                self.copy(backup)
                return
            except Damaged as error:
                damaged.append(error.error["why"])
                self.note(damaged=damaged)
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
            # None was replayed since the backup: an older one may lead to one before it.
            reach = server.last_time or self.choice.reach(bad["segment"])
            raise self.choice.missing(bad["segment"], f"is damaged ({bad['why']})", reach)
        if server.error:
            server.stop()
            self.unreached(server)
        self.note(recovered_to=server.last_time)

    def progress(self, server: database_server.Server) -> None:
        if self.told != server.last_time:
            self.told = server.last_time
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


def _notes() -> list[dict[str, str]]:
    try:
        return [json.loads(line) for line in (PRIVATE / "notes").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
