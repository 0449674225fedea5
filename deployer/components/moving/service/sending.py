"""What a side of a move gives of its files: only the folders of the copies, and only to be read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ground import Failure

POSTFIX = "/var/spool/postfix"
# Of its folders those that hold mail, and what is noted about it.
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold", "defer", "bounce", "trace")
_SHORT = re.compile(r"-[A-Za-z@]+(?:-?\d+)?(?:\.[A-Za-z]*)?")
# The list of files comes by the connection (`-`): no file of this machine is read as one.
_LONG = re.compile(
    r"--(?:timeout=\d+|modify-window=-?\d+|stats|delete[a-z-]*|checksum-choice=[a-z0-9:,]+|new-compress"
    r"|files-from=-|from0|ignore-missing-args)"
)


def plan(item: dict[str, Any]) -> tuple[str, list[str]]:
    """The folder that is fetched, and rsync's rules for what of it."""
    where, kind = str(item["where"]).rstrip("/"), item["kind"]
    if kind == "sqlite":
        name = Path(where).name
        files = [f"--include=/{name}{tail}" for tail in ("", "-wal", "-shm", "-journal")]
        return str(Path(where).parent), [*files, "--exclude=*"]
    if kind == "marks":
        return where, ["--include=/migrated/***", "--include=/once/***", "--exclude=*"]
    if kind in ("files", "sqlite_folder", "valkey"):
        if where == POSTFIX:
            return where, [*(f"--include=/{queue}/***" for queue in QUEUES), "--exclude=*"]
        return where, []
    raise Failure("copying files", f"{item['name']} is of the unknown kind {kind}", "a mistake of ours")


def allowed(config: dict[str, Any]) -> set[str]:
    """Folders that a peer may fetch."""
    return {plan(item)[0] for item in config["copies"]}


def absent(config: dict[str, Any], paths: list[str]) -> list[str]:
    """Of folders that a peer may fetch, those that are not there."""
    return [path for path in paths if path in allowed(config) and not Path(path).is_dir()]


def server(config: dict[str, Any], words: list[str]) -> list[str]:
    """The command of rsync's other end, when it only sends, and only a folder of the copies. Raises Failure."""
    what = "sending files"
    if words[:3] != ["rsync", "--server", "--sender"] or "." not in words:
        raise Failure(what, "only rsync that sends may be started", "a mistake of ours")
    dot = words.index(".")
    options, paths = words[3:dot], words[dot + 1 :]
    for word in options:
        if not (_SHORT.fullmatch(word) or _LONG.fullmatch(word)):
            raise Failure(
                what, f"the option {word} is not among those that a move needs", "a mistake of ours"
            )
    if len(paths) != 1 or not paths[0].endswith("/") or paths[0][:-1] not in allowed(config):
        raise Failure(what, f"{' '.join(paths)} is none of the copies of this move", "a mistake of ours")
    return words
