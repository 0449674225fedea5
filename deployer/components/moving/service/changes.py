"""What has changed below the folders that a peer copies, since one of its passes began.

Comparing every file on both sides takes rsync 75 ms for a thousand of them, and in the last pass people wait for it. The
side that sends notes before each pass what it has, and in the last one tells what differs from that. Nothing here trusts a
clock: a time of change that is another one, also an earlier one, is a change.

What has gone is not told: its folder has changed, and of a folder that has changed rsync compares all that is right in it.
So goes what came after the note, was copied, and has gone again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sending
import state
from ground import Failure

# Beyond so many entries the list takes too much memory; so many names are told at most. Beyond either all is compared.
MOST, TOLD = 1_000_000, 50_000


def entries(folder: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(path below the folder, what tells that it has changed) of it and all below it; a folder's path ends with a slash.

    What vanishes meanwhile is left out.
    """
    with contextlib.suppress(FileNotFoundError):
        yield b"./", _mark(os.stat(folder))
    below = [b""]
    while below:
        parent = below.pop()
        try:
            found = os.scandir(os.path.join(folder, parent))
        except (FileNotFoundError, NotADirectoryError):
            continue
        with found:
            for one in found:
                try:
                    info = one.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                path = parent + one.name
                if stat.S_ISDIR(info.st_mode):
                    path += b"/"
                    below.append(path)
                yield path, _mark(info)


def _mark(info: os.stat_result) -> bytes:
    """The time of change moves with content, entries, owner, mode and attributes, and nobody can set it."""
    return b"%d %d %d" % (info.st_ctime_ns, info.st_size, info.st_ino)


def note(config: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """{"who", "pass", "keep", "paths"}: what the folders have now is kept as of that pass. Of this peer's other notes only
    that of the pass `keep` stays. noted: false when there is too much of it."""
    path, kept = _path(body["who"], body["pass"]), _path(body["who"], body["keep"])
    for old in state.STATE.glob(f"{path.stem}.*"):
        if old != kept:
            old.unlink(missing_ok=True)
    new = path.with_name(f"{path.name}.new")
    count = 0
    with open(new, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        for name, mark in _all(config, body):
            file.write(name + b"\0" + mark + b"\0")
            count += 1
            if count > MOST:
                return {"noted": False}
    # Not waited for until it is on the disk: what half a list lacks counts as changed.
    os.replace(new, path)
    return {"noted": True}


def since(config: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """{"who", "pass", "paths"}: {"changed": {folder: paths below it, as `entries` has them}}; None where it is not known, or
    too much."""
    try:
        words = iter(_path(body["who"], body["pass"]).read_bytes().split(b"\0"))
    except FileNotFoundError:
        return {"changed": None}
    known = dict(zip(words, words, strict=False))
    changed: dict[str, list[str]] = {}
    for folder in _folders(config, body):
        top = os.fsencode(folder) + b"/"
        found = (name for name, mark in entries(top) if known.get(top + name) != mark)
        changed[folder] = [os.fsdecode(name) for name in itertools.islice(found, TOLD + 1)]
        if len(changed[folder]) > TOLD:
            return {"changed": None}
    return {"changed": changed}


def forget() -> None:
    """At the end of a move."""
    for old in state.STATE.glob("listing-*"):
        old.unlink(missing_ok=True)


def _all(config: dict[str, Any], body: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    for folder in _folders(config, body):
        top = os.fsencode(folder) + b"/"
        for name, mark in entries(top):
            yield top + name, mark


def _folders(config: dict[str, Any], body: dict[str, Any]) -> list[str]:
    """Those asked for that a peer may fetch at all."""
    asked = [str(path) for path in body["paths"]]
    return [path for path in asked if path in sending.allowed(config)]


def _path(who: object, number: object) -> Path:
    name = str(who).replace("/", "-")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
        raise Failure("noting what is to be copied", f"{who!r} is no machine of a move", "a mistake of ours")
    return state.STATE / f"listing-{name}.{int(str(number))}"
