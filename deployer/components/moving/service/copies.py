"""Files of the other side, fetched in passes by rsync while it serves, and a last time when it has stopped.

Only ever into a machine that is closed: what is deleted there was a copy.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import remote
import state
import systemd
from ground import Failure, last
from state import CLOSED

UNIT = "deploy-moving-files.service"
POSTFIX = "/var/spool/postfix"
# Of its folders those that hold mail, and what is noted about it.
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold", "defer", "bounce", "trace")
# Seconds between two passes; for one copy in a pass; in the last one.
PAUSE, BOUND, LAST = 10, 24 * 3600, 300


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


def line(config: dict[str, Any], item: dict[str, Any], final: bool = False) -> list[str]:
    """rsync's command for one copy: owners by name, times to the nanosecond, what is gone there goes here.

    final: people wait. It goes by the connection that stands, where ssh finds it, and takes one of its own otherwise.
    """
    folder, rules = plan(item)
    one = remote.peer(config, str(item["peer"]))
    way = remote.standing(one) if final else remote.words(one)
    shell = shlex.join([word for word in way if word != f"root@{one['address']}"])
    words = [
        "rsync",
        "-aHAX",
        "--delete",
        "--modify-window=-1",
        "--stats",
        "--no-human-readable",
        "--timeout=60",
    ]
    if final and item["kind"] == "sqlite":
        # Written through memory: its times need not tell.
        words.append("--checksum")
    return [*words, "-e", shell, *rules, f"root@{one['address']}:{folder}/", f"{folder}/"]


def received(text: str) -> int:
    """Bytes, of rsync's own figures."""
    found = re.search(r"^Total bytes received: (\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def one_pass(config: dict[str, Any], final: bool = False) -> int:
    """All copies once; bytes that came. final: nothing changes there any more, so nothing may vanish."""
    by_peer: dict[str, list[dict[str, Any]]] = {}
    for item in config["copies"]:
        by_peer.setdefault(str(item["peer"]), []).append(item)
    total = 0
    for name, items in by_peer.items():
        if final:
            # People wait: whether something is absent is asked only about what does not come.
            done = remote.side_by_side(
                {item["name"]: lambda name=name, item=item: _last(config, name, item) for item in items}
            )
            total += sum(done.values())
        else:
            absent = _absent(config, name, items)
            total += sum(fetch(config, item, False) for item in items if plan(item)[0] not in absent)
    return total


def one_more(config: dict[str, Any]) -> int:
    """A pass outside the unit of passes, which has ended; bytes that came."""
    began = time.time()
    total = one_pass(config)
    if (known := state.load("files")).get("id") == config["id"]:
        state.save("files", {**known, "as_of": began})
    return total


def _absent(config: dict[str, Any], peer: str, items: list[dict[str, Any]]) -> list[str]:
    """Folders that the peer does not have."""
    paths = sorted({plan(item)[0] for item in items})
    found: list[str] = remote.call(remote.peer(config, peer), "absent", {"paths": paths}, 20)["absent"]
    return found


def _last(config: dict[str, Any], peer: str, item: dict[str, Any]) -> int:
    try:
        return fetch(config, item, True)
    except Failure:
        if _absent(config, peer, [item]):
            return 0
        raise


def fetch(config: dict[str, Any], item: dict[str, Any], final: bool) -> int:
    closed(f"copying {item['name']}")
    folder = plan(item)[0]
    make(Path(folder))
    what = f"copying {item['name']} from {item['peer']}"
    bound = LAST if final else BOUND
    try:
        done = subprocess.run(
            line(config, item, final), capture_output=True, text=True, errors="replace", timeout=bound
        )
    except subprocess.TimeoutExpired:
        raise Failure(what, f"no end after {bound} s", "see the network between the sides") from None
    # 24: files vanished while it looked.
    if done.returncode not in ((0,) if final else (0, 24)):
        why = _words(done.stderr) or f"rsync ended with {done.returncode}"
        if "No space left" in done.stderr:
            why = f"the disk is full below {folder}"
        raise Failure(what, why, "it is tried again; see `move.py status`")
    return received(done.stdout)


def make(folder: Path) -> None:
    """What is missing on the way to it belongs to whom the last folder that is there belongs to."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        info = one.parent.stat()
        one.mkdir(0o755)
        os.chown(one, info.st_uid, info.st_gid)


def _words(text: str) -> str:
    """What rsync said of the cause: its last line only tells where in its source it ended."""
    lines = [
        one for one in text.splitlines() if one.strip() and not one.startswith("rsync error: some files")
    ]
    return last("\n".join(lines[:1]))


def closed(what: str) -> None:
    """Raises Failure on a machine that may serve: its files are nobody's copy."""
    if not CLOSED.exists():
        raise Failure(what, f"this machine is not closed ({CLOSED}): it may be live", "a mistake of ours")


def final(config: dict[str, Any]) -> dict[str, Any]:
    """The last pass, after everything there has stopped. The same again fetches what is missing."""
    began = time.monotonic()
    with state.lock("files", 60, "the last copies of files"):
        total = one_pass(config, True)
    return {"bytes": total, "seconds": round(time.monotonic() - began, 2)}


def queues(config: dict[str, Any]) -> None:
    """Postfix makes the folders of its queue when it first starts, and here it may never have: before people wait for it."""
    if not any(item["where"] == POSTFIX for item in config["copies"]):
        return
    what, next = "making the folders of Postfix's queue", "see `postfix check`"
    words = ["postfix", "post-install", "create-missing"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(what, str(error), next) from None
    if done.returncode:
        raise Failure(what, last(done.stderr), next)


def structure(config: dict[str, Any]) -> None:
    """Postfix names a message after its file's number on this disk. Before it starts here."""
    if not any(item["where"] == POSTFIX for item in config["copies"]):
        return
    for _ in range(3):
        try:
            done = subprocess.run(["postsuper", "-s"], capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure("naming the copied mail", str(error), "see `postsuper -s`") from None
        if done.returncode:
            raise Failure("naming the copied mail", last(done.stderr), "see `postsuper -s`")
        # "run postsuper again": names were taken by other messages.
        if "again" not in done.stderr + done.stdout:
            return


# --- the passes ---


def work(config: dict[str, Any]) -> int:
    """Passes until the unit is stopped. What fails is noted and tried again."""
    known = state.load("files")
    record = {"passes": 0, "bytes": 0} | {
        k: known[k] for k in ("passes", "bytes") if known.get("id") == config["id"]
    }
    record |= {"id": config["id"], "error": None, "last_seconds": 0.0, "last_bytes": 0, "ended_at": 0.0}
    while True:
        began, now = time.monotonic(), time.time()
        try:
            closed("copying files")
            with state.lock("files", 60):
                got = one_pass(config)
            record |= {"passes": record["passes"] + 1, "bytes": record["bytes"] + got, "last_bytes": got}
            record |= {
                "last_seconds": round(time.monotonic() - began, 2),
                "ended_at": time.time(),
                # What is younger may be missing.
                "as_of": now,
                "error": None,
            }
        except Failure as failure:
            record["error"] = failure.body
        state.save("files", record)
        if not CLOSED.exists():
            return 0
        time.sleep(PAUSE)


def start(config: dict[str, Any]) -> dict[str, Any]:
    state.side(config, "new", "copying files")
    closed("copying files")
    known = state.load("files")
    if known.get("id") != config["id"]:
        state.save("files", {"id": config["id"], "passes": 0, "bytes": 0, "error": None})
    elif known.get("error"):
        # Of a pass before; whoever asks now wants to hear of the next one.
        state.save("files", {**known, "error": None})
    if systemd.states([UNIT])[UNIT] not in ("active", "activating"):
        systemd.call("reset-failed", UNIT)
        done = systemd.call("start", UNIT)
        if done.returncode:
            raise Failure("copying files", last(done.stderr), f"see `systemctl status {UNIT}`")
    return {"files": status(config)}


def stop() -> None:
    """A pass under way is broken off: the last one does the rest."""
    systemd.stop([UNIT], 10)


def status(config: dict[str, Any]) -> dict[str, Any]:
    known = state.load("files")
    if known.get("id") != config["id"]:
        return {"state": "none", "passes": 0, "bytes": 0, "last_seconds": 0.0, "last_bytes": 0, "error": None}
    if systemd.states([UNIT])[UNIT] in ("active", "activating"):
        found = "failed" if known.get("error") else "running"
    else:
        found = "failed" if known.get("error") else "none"
    return {"last_seconds": 0.0, "last_bytes": 0, **known, "state": found}


def absent(config: dict[str, Any], paths: list[str]) -> list[str]:
    """Of folders that a peer may fetch, those that are not there."""
    return [path for path in paths if path in allowed(config) and not Path(path).is_dir()]


def allowed(config: dict[str, Any]) -> set[str]:
    return {plan(item)[0] for item in config["copies"]}


# --- at the other end ---

_SHORT = re.compile(r"-[A-Za-z@]+(?:-?\d+)?(?:\.[A-Za-z]*)?")
_LONG = re.compile(
    r"--(?:timeout=\d+|modify-window=-?\d+|stats|delete[a-z-]*|checksum-choice=[a-z0-9:,]+|new-compress)"
)


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
