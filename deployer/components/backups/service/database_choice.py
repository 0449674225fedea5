"""Which backup a restore begins with, and whether all is there that it needs: seen before the first byte is copied.

Not a program.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import database_conf
import database_wal
import pgbackrest
from pgbackrest import Failed, iso, parse

FOLDER = Path("/run/deploy-restore")
# Readable by postgres, gone after a reboot.
PRIVATE = FOLDER / "database"
PLACE = pgbackrest.CLUSTER.parent
RESTORED = PLACE / "restored"
# Bytes that must be left over besides the data: WAL in replay, and room to work.
MARGIN = 1 << 30
# Processes that copy at once, at most.
MOST = 8


def processes(cores: int) -> int:
    """How many copy at once: nothing serves here yet, so all cores may."""
    return max(database_conf.PROCESSES, min(cores, MOST))


class Here(Failed):
    """What no other repository would mend."""


class Choice:
    """conf: the repository's configuration for this restore; wanted: the moment, None for the newest; backups: those
    that lead there, the best one first."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = request
        self.target = dict(request["target"])
        self.wanted = parse(self.target["time"]) if self.target["kind"] == "time" else None
        self.conf = PRIVATE / "pgbackrest.conf"
        self.repository = request["repository"]["name"]
        self.backups: list[Mapping[str, Any]] = []

    def look(self) -> None:
        """Everything that can be known before the first byte is copied."""
        self.stopped()
        self.backups = self.choose(self.held())
        held_wal = database_wal.listing(self.conf)
        pgbackrest.write(
            PRIVATE / "wal.json", json.dumps(held_wal), 0o640, 0, pwd.getpwnam("postgres").pw_gid
        )
        self.contiguous(held_wal, self.backups[0])
        self.room(self.backups[0])

    def whole_since(self) -> str:
        """The end of the oldest backup from which on nothing is missing, ISO 8601. Raises Failed when there is none.

        A repository that was away for a while has a gap: what lies before it can be had up to there only.
        """
        backups, held_wal = self.held(), database_wal.listing(self.conf)
        whole = [one["timestamp"]["stop"] for one in backups if self.whole(held_wal, self.end(held_wal, one))]
        if not whole:
            raise Failed(
                f"looking for a moment in {self.repository}",
                "no finished backup there has all of its WAL up to now",
                "deploy backup create makes one",
            )
        return iso(min(whole))

    def held(self) -> list[Mapping[str, Any]]:
        """The finished backups. Raises Failed for those of another major version."""
        shutil.rmtree(PRIVATE, ignore_errors=True)
        user = pwd.getpwnam("postgres")
        pgbackrest.folder(FOLDER, 0o711, 0, 0)
        pgbackrest.folder(PRIVATE, 0o700, user.pw_uid, user.pw_gid)
        count = processes(len(os.sched_getaffinity(0)))
        text = database_conf.configuration(self.request["repository"], PRIVATE / "work", RESTORED, count)
        # Nothing is ever archived from here.
        pgbackrest.write(self.conf, text, 0o640, 0, user.pw_gid)
        held = pgbackrest.info(self.conf)
        others = {one["version"] for one in held["db"]} - {pgbackrest.VERSION}
        if others:
            raise Failed(
                "looking at the backups",
                f"they are of PostgreSQL {', '.join(sorted(others))}; here is {pgbackrest.VERSION}",
                f"restore with a release of this toolkit that has PostgreSQL {max(others)}, then move by a dump",
            )
        return [one for one in held["backup"] if not one.get("error")]

    def choose(self, backups: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        what = f"choosing a backup in {self.repository}"
        label = self.target.get("backup")
        if label:
            backups = [one for one in backups if one["label"] == label]
        if not backups:
            raise Failed(what, "it holds no finished backup", "restore from another repository")
        fit = [
            one
            for one in backups
            if self.wanted is None or one["timestamp"]["stop"] <= self.wanted.timestamp()
        ]
        if not fit:
            first = iso(min(one["timestamp"]["stop"] for one in backups))
            raise Failed(
                what,
                f"the oldest one ended at {first}, after {self.target['time']}",
                f"take a time from {first} on, or another repository",
            )
        return fit[::-1]

    def end(self, wal: Mapping[str, str], backup: Mapping[str, Any]) -> str:
        """The first segment after the backup's beginning that is not there."""
        name: str = backup["archive"]["start"]
        while name in wal:
            name = database_wal.next_segment(name)
        return name

    def whole(self, wal: Mapping[str, str], end: str) -> bool:
        """Whether nothing was archived after that segment, or only of another timeline."""
        newer = any(one[:8] > end[:8] for one in wal)
        return end > max(wal, default="") or (
            newer and not any(one > end and one[:8] == end[:8] for one in wal)
        )

    def contiguous(self, wal: Mapping[str, str], backup: Mapping[str, Any]) -> None:
        """Is there all WAL from the backup to the target? Sees what is missing; damage is seen in the replay."""
        name = self.end(wal, backup)
        if self.whole(wal, name):
            if self.wanted is None or any(one[:8] > name[:8] for one in wal):
                return
            if (self.wanted - pgbackrest.now()).total_seconds() > 0:
                raise Here(
                    "looking at the target", f"{self.target['time']} has not come yet", "take an earlier time"
                )
            return
        if name <= backup["archive"]["stop"]:
            raise Failed(
                f"looking at the WAL in {self.repository}",
                f"the segment {name} is missing, which the backup {backup['label']} itself needs",
                "take an earlier time, or another repository",
            )
        reach = self.reach(name)
        if self.wanted is None or not reach or self.wanted > parse(reach):
            raise self.missing(name, "is missing", reach)

    def reach(self, stop: str) -> str:
        """The newest moment before the segment `stop` that can be had: of the last commit there, read from the
        repository. It may lie before the best backup; an older one leads there, where there is one."""
        first = min(one["archive"]["start"] for one in self.backups)
        before = [one for one in database_wal.segments_to(stop, first, 6) if one < stop]
        try:
            found = database_wal.newest_commit(self.conf, before, paths=wal())
        except Failed:
            return ""
        ended = min(one["timestamp"]["stop"] for one in self.backups)
        return found if found and ended <= parse(found).timestamp() else ""

    def missing(self, segment: str, how: str, reach: str) -> Failed:
        good = f"restore to {reach}, the last moment before it" if reach else "restore to an earlier time"
        later = [one for one in pgbackrest.info(self.conf)["backup"] if one["archive"]["start"] > segment]
        after = (
            f", or to a time after {iso(later[0]['timestamp']['stop'])}, when the next backup was complete"
            if later
            else ""
        )
        return Failed(
            f"restoring the database from {self.repository}",
            f"the WAL segment {segment} {how}; what lies before it reaches to {reach or 'an unknown time'}",
            f"{good}{after}; or take another repository",
        )

    def room(self, backup: Mapping[str, Any]) -> None:
        disk = os.statvfs(PLACE if PLACE.exists() else "/var/lib/postgresql")
        free = disk.f_bavail * disk.f_frsize + (size(RESTORED) if RESTORED.exists() else 0)
        need = int(backup["info"]["size"] * 1.05) + MARGIN
        if free < need:
            raise Here(
                "looking for room on the disk",
                f"{PLACE} has {free >> 20} MiB left; the database and its WAL need {need >> 20} MiB beside what is there",
                "make room or take a larger disk; old databases are in the folders main.before-*",
            )

    def stopped(self) -> None:
        try:
            pid = int((pgbackrest.CLUSTER / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
        except (OSError, ValueError, IndexError):
            return
        raise Here(
            "looking at the database that is there",
            "it is running",
            "stop it: systemctl stop postgresql@17-main.service",
        )


def wal() -> dict[str, str]:
    found: dict[str, str] = json.loads((PRIVATE / "wal.json").read_text(encoding="utf-8"))
    return found


def size(folder: Path) -> int:
    """Bytes of the files below it; what vanishes meanwhile counts nothing."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total
