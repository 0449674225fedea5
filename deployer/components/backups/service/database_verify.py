"""What is damaged or missing in the database's part of a repository. Not a program.

pgBackRest reads every object and compares it with its checksum, but ends with 0 whatever it finds, and says nothing of
WAL that is missing between two segments. So its words are read, and the WAL is counted here.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import database_wal
import pgbackrest
from pgbackrest import Failed, iso

BOUND = 12 * 3600
_LINE = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ +P\d+ +(\w+): *(.*)$")
_FOUND = (
    (
        re.compile(r"invalid result (\S+): (?:\[\d+\] raised from [\w-]+ protocol: )?(.*)"),
        "cannot be read: {}",
    ),
    (re.compile(r"invalid checksum '([^']+)'"), "its content is not what was written"),
    (re.compile(r"invalid size '([^']+)'"), "its size is not what was written"),
    (re.compile(r"file missing '([^']+)'"), "is missing"),
    (re.compile(r"(\S+) is missing or unusable, using copy"), "is missing or damaged; its copy serves"),
    (re.compile(r"unable to open missing file '([^']+)' for read"), "is missing"),
    (re.compile(r"(?:un)?expected .*?'([^']+\.info(?:\.copy)?)'"), "cannot be read"),
)


def verify(name: str, conf: Path, gaps: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """Read everything. gaps: stretches of WAL that never came here, because the repository was out of the archiving."""
    empty = {"repository": name, "at": iso(pgbackrest.now()), "backups": 0, "segments": 0}
    what = f"verifying the database's backups in {name}"
    # Raises Failed where it does not answer or the password is wrong: which is no damage.
    try:
        held = pgbackrest.info(conf)
    except Failed as error:
        if "missing stanza" not in error.error["why"]:
            raise
        why = "it answers, but its list of backups (backup.info and its copy) is missing or unusable"
        return {**empty, "damaged": [{"what": "the repository", "why": why}]}
    done = pgbackrest.call(conf, "verify", "--output=text", "--job-retry=1", timeout=BOUND, words="detail")
    if done.returncode:
        raise pgbackrest.failure(what, done)
    damaged = read(done.stderr.splitlines())
    if not damaged and "status: error" in done.stdout:
        damaged = [{"what": "the repository", "why": " ".join(done.stdout.split())[:600]}]
    damaged += [one for one in copies(conf) if one["what"] not in {other["what"] for other in damaged}]
    wal = database_wal.listing(conf)
    damaged += absent(wal, held["backup"], gaps)
    return {**empty, "damaged": damaged, "backups": len(held["backup"]), "segments": len(wal)}


def copies(conf: Path) -> list[dict[str, str]]:
    """The lists of backups and of WAL are there twice; pgBackRest takes the one that it can read, and says nothing."""
    found = []
    for path in (f"backup/{pgbackrest.STANZA}/backup.info", f"archive/{pgbackrest.STANZA}/archive.info"):
        for again in (True, False):
            both = [pgbackrest.call(conf, "repo-get", one, timeout=60) for one in (path, f"{path}.copy")]
            if all(one.returncode == 0 for one in both) and both[0].stdout == both[1].stdout:
                break
            if again:
                # A backup that ends just now writes one after the other.
                time.sleep(3)
                continue
            found.append(
                {"what": path, "why": "it and its copy are not the same: one of them is damaged or missing"}
            )
    return found


def read(lines: Iterable[str]) -> list[dict[str, str]]:
    """What the words of `pgbackrest verify` name, each object once."""
    found: dict[str, str] = {}
    for line in lines:
        match = _LINE.match(line)
        text = match[2] if match else line.strip()
        for pattern, why in _FOUND:
            one = pattern.search(text)
            if one:
                found.setdefault(named(one[1]), why.format(*one.groups()[1:]))
                break
    return [{"what": what, "why": why} for what, why in found.items()]


def named(path: str) -> str:
    """An object by what it is to people."""
    segment = re.search(r"([0-9A-F]{24})-[0-9a-f]{40}", path)
    if segment:
        return f"WAL segment {segment[1]}"
    backup = re.search(r"(\d{8}-\d{6}F(?:_\d{8}-\d{6}[DI])?)/(.+)", path)
    if backup:
        return f"backup {backup[1]}: {backup[2]}"
    # From the stanza's folders on, as the copies are named.
    return re.sub(r"^.*/(?=(?:archive|backup)/[^/]+/[^/]+$)", "", path)


def absent(
    wal: Iterable[str], backups: Sequence[Mapping[str, Any]], gaps: Sequence[Mapping[str, str]] = ()
) -> list[dict[str, str]]:
    """WAL that is missing: between the segments that are there, and what a backup needs to be whole."""
    there = set(wal)
    found: dict[str, str] = {}
    for backup in backups:
        for name in span(backup["archive"]["start"], backup["archive"]["stop"]):
            if name not in there:
                found[name] = f"is missing; the backup {backup['label']} cannot be restored without it"
    first = min((backup["archive"]["start"] for backup in backups), default="")
    for timeline in sorted({name[:8] for name in there}):
        names = sorted(name for name in there if name[:8] == timeline and name[8:] >= first[8:])
        for before, after in itertools.pairwise(names):
            for name in span(database_wal.next_segment(before), after)[:-1]:
                if not any(gap["first"] <= name <= (gap["last"] or name) for gap in gaps):
                    found.setdefault(name, "is missing: no restore goes over it")
    return [{"what": f"WAL segment {name}", "why": why} for name, why in sorted(found.items())][:100]


def span(first: str, last: str) -> list[str]:
    """The names from `first` to `last`, both included; at most 100,000."""
    found = [first]
    while found[-1] < last and len(found) < 100_000:
        found.append(database_wal.next_segment(found[-1]))
    return found
