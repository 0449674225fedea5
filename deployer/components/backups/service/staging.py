"""Consistent copies of what changes while it is read, and what a restore must know beside the files themselves."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import heapq
import os
import pwd
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ground import STATE, Failure, run, write

STAGING = STATE / "staging"
# Postfix's: the folders that hold mail, in the order in which a message goes through them.
POSTFIX = "/var/spool/postfix"
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")
# Files beside an SQLite file.
BESIDE = ("-wal", "-shm", "-journal")
# Of each folder so many files are remembered by their hash, and so many bytes are read for it.
SAMPLE, SAMPLE_BYTES, LOOKED_AT = 40, 64 << 20, 200_000
# Seconds for one copy.
BOUND = 600


def slug(name: str) -> str:
    """A name for a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def stage(config: dict[str, Any], repository: str, point: str) -> tuple[list[str], dict[str, Any]]:
    """Copies of the data that need one, and the manifest, in a folder of this repository's own.

    Returns the paths that the snapshot shall hold, and the manifest.
    """
    folder = STAGING / repository
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths, entries = [str(folder)], []
    for item in config["data"]:
        entry = {"name": item["name"], "kind": item["kind"], "where": item["where"], "absent": False}
        where = Path(item["where"])
        copy = folder / slug(item["name"])
        if not where.exists():
            entry["absent"] = True
        elif item["kind"] == "files" and item["where"] != POSTFIX:
            paths.append(item["where"])
            entry |= {"in": item["where"], **owner(where), "sample": sample(where)}
        else:
            if item["kind"] == "sqlite":
                copy_sqlite(where, copy)
            elif item["kind"] == "sqlite_folder":
                copy_sqlite_folder(where, copy)
            elif item["kind"] == "valkey":
                copy_valkey(where, copy)
            else:
                copy_queue(where, copy)
            entry |= {"in": str(copy), **owner(where)}
        entries.append(entry)
    manifest = {
        "format": 1,
        "point": point,
        "machine": config["machine"],
        "deployment": config["deployment"],
        "generation": config["generation"],
        "data": entries,
        # Numbers of users differ from machine to machine; names do not.
        "users": {str(one.pw_uid): one.pw_name for one in pwd.getpwall()},
        "groups": {str(one.gr_gid): one.gr_name for one in grp.getgrall()},
    }
    write(folder / "manifest.json", manifest)
    return paths, manifest


def owner(path: Path) -> dict[str, Any]:
    """Who owns it, by name where there is one."""
    info = path.stat()
    return {"user": info.st_uid, "group": info.st_gid, "mode": stat.S_IMODE(info.st_mode)}


def copy_sqlite(where: Path, copy: Path) -> None:
    """SQLite's online backup: a state between two transactions, while others write."""
    new = copy.with_name(copy.name + ".new")
    new.unlink(missing_ok=True)
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{where}?mode=rw", uri=True, timeout=20)) as source,
            contextlib.closing(sqlite3.connect(new)) as target,
        ):
            source.backup(target, pages=2048, sleep=0.01)
        os.replace(new, copy)
    except sqlite3.Error as error:
        new.unlink(missing_ok=True)
        raise Failure(f"copying {where}", str(error), "see whether it is a sound SQLite file") from None


def copy_sqlite_folder(where: Path, copy: Path) -> None:
    """Every SQLite file below it as above, one by one, when it has changed since; other files as they are."""
    seen = set()
    for folder, _, names in os.walk(where):
        target = copy / Path(folder).relative_to(where)
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        _own(target, Path(folder))
        for name in names:
            # Of a database: what is in them comes with it.
            if name.endswith(BESIDE) and name.rpartition("-")[0] in names:
                continue
            seen.add(target / name)
            with contextlib.suppress(FileNotFoundError):
                _copy_one(Path(folder, name), target / name)
    for folder, _, names in os.walk(copy, topdown=False):
        for name in names:
            if Path(folder, name) not in seen:
                Path(folder, name).unlink()
        if not (where / Path(folder).relative_to(copy)).is_dir():
            os.rmdir(folder)


def _copy_one(path: Path, target: Path) -> None:
    if not is_sqlite(path):
        return _copy_once(path, target)
    # Before it is copied: what is written meanwhile makes it newer than the copy.
    newest = max(one.stat().st_mtime_ns for one in (path, Path(f"{path}-wal")) if one.exists())
    if not (target.exists() and target.stat().st_mtime_ns == newest):
        try:
            copy_sqlite(path, target)
        except Failure:
            if path.exists():
                raise
            # Somebody deleted it meanwhile, as an account goes.
            return
        _own(target, path)
        os.utime(target, ns=(newest, newest))


def is_sqlite(path: Path) -> bool:
    """https://www.sqlite.org/fileformat.html, 1.3.1. One that is empty is none yet."""
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _own(target: Path, like: Path) -> None:
    info = like.stat()
    os.chown(target, info.st_uid, info.st_gid)
    os.chmod(target, stat.S_IMODE(info.st_mode))


def copy_valkey(where: Path, copy: Path) -> None:
    """A dump over the connection, as a replica would get it. The password goes by the environment."""
    config = _valkey_config(Path("/etc/valkey/valkey.conf"))
    password = config.get("requirepass", "")
    new = copy.with_name(copy.name + ".new")
    run(
        f"dumping Valkey's data of {where}",
        ["valkey-cli", "-h", "127.0.0.1", "-p", config.get("port", "6379"), "--rdb", str(new)],
        timeout=BOUND,
        # Debian's 8.1 reads it by its old name only.
        environment=dict.fromkeys(("REDISCLI_AUTH", "VALKEYCLI_AUTH"), password) if password else {},
        next="see `systemctl status valkey-server`",
    )
    os.replace(new, copy)


def _valkey_config(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "include":
            found |= _valkey_config(Path(value.strip()))
        elif key and not key.startswith("#"):
            found[key] = value.strip().strip('"')
    return found


def copy_queue(where: Path, copy: Path) -> None:
    """Postfix's queue: a message moves from folder to folder while we look, so we look until nothing new is found.

    What a message's file says changes only as recipients are done; one that is still being received is left out.
    """
    copy.mkdir(parents=True, exist_ok=True, mode=0o700)
    seen: set[Path] = set()
    for _ in range(5):
        new = 0
        for path in queue_files(where):
            below = path.relative_to(where)
            known = Path(below.parts[0]) / path.name
            if known in seen:
                continue
            with contextlib.suppress(FileNotFoundError):
                new += 1
                seen.add(known)
                _copy_once(path, copy / below.parts[0] / path.name)
        if not new:
            break
    for path in queue_files(copy):
        if path.relative_to(copy) not in seen:
            path.unlink(missing_ok=True)


def _copy_once(path: Path, target: Path) -> None:
    info = path.stat()
    with contextlib.suppress(FileNotFoundError):
        there = target.stat()
        # Recipients that were done are marked in the file itself, which changes its time.
        if (there.st_size, there.st_mtime_ns) == (info.st_size, info.st_mtime_ns):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)
    os.chown(target, info.st_uid, info.st_gid)


def queue_files(where: Path) -> Iterator[Path]:
    """Every message's file that is complete."""
    for queue in QUEUES:
        for folder, _, names in os.walk(where / queue):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    mode = path.stat().st_mode
                    if stat.S_ISREG(mode) and (queue == "maildrop" or mode & stat.S_IXUSR):
                        yield path


def sample(where: Path) -> list[list[Any]]:
    """[path below, size, mtime in ns, SHA-256] of some files: the same ones as long as they are there."""
    chosen = heapq.nsmallest(SAMPLE, _some(where), key=lambda path: hashlib.sha1(path.encode()).digest())
    found: list[list[Any]] = []
    left = SAMPLE_BYTES
    for name in chosen:
        path = where / name
        with contextlib.suppress(OSError):
            info = path.stat()
            if info.st_size > left:
                continue
            left -= info.st_size
            found.append([name, info.st_size, info.st_mtime_ns, digest(path)])
    return found


def _some(where: Path) -> Iterator[str]:
    looked = 0
    for folder, _, names in os.walk(where):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(where))
        looked += len(names)
        if looked > LOOKED_AT:
            return


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
