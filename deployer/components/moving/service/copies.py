"""Files of the other side, fetched in passes by rsync while it serves, and a last time when it has stopped.

Only ever into a machine that is closed: what is deleted there was a copy.
"""

from __future__ import annotations

import contextlib
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
from sending import plan
from state import CLOSED

UNIT = "deploy-moving-files.service"
# Seconds between two passes; for one copy in a pass; in the last one; for a peer that looks at what it has.
PAUSE, BOUND, LAST, LOOK = 10, 24 * 3600, 300, 600


def line(
    config: dict[str, Any], item: dict[str, Any], final: bool = False, listed: bool = False
) -> list[str]:
    """rsync's command for one copy: owners by name, times to the nanosecond, what is gone there goes here.

    final: people wait. It goes by the connection that stands, where ssh finds it, and takes one of its own otherwise.
    listed: only what stands on standard input, each ended by a zero byte; of a folder that ends with a slash all that is
    right in it.
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
    if listed:
        # What has gone meanwhile, in a rehearsal: its folder is listed too.
        words += ["--files-from=-", "--from0", "--ignore-missing-args"]
    return [*words, "-e", shell, *rules, f"root@{one['address']}:{folder}/", f"{folder}/"]


def received(text: str) -> int:
    """Bytes, of rsync's own figures."""
    found = re.search(r"^Total bytes received: (\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def one_pass(config: dict[str, Any], base: int) -> tuple[int, int]:
    """All copies once: bytes that came, and the number by which the peers know what they had before it, for the last pass.

    base: that of the last pass that ended, 0 for none; it stays good until this one has.
    """
    total, known = 0, True
    for name, items in _by_peer(config).items():
        paths = [plan(item)[0] for item in items if _many(item)]
        body = {"who": config["machine"], "pass": base + 1, "keep": base, "paths": paths}
        if paths:
            known &= remote.call(remote.peer(config, name), "note-files", body, LOOK)["noted"]
        absent = _absent(config, name, items)
        total += sum(fetch(config, item) for item in items if plan(item)[0] not in absent)
    return total, base + 1 if known else base


def one_more(config: dict[str, Any]) -> int:
    """A pass outside the unit of passes, which has ended; bytes that came."""
    began, known = time.time(), state.load("files")
    mine = known.get("id") == config["id"]
    total, base = one_pass(config, known.get("base", 0) if mine else 0)
    if mine:
        state.save("files", {**known, "as_of": began, "base": base})
    return total


def _absent(config: dict[str, Any], peer: str, items: list[dict[str, Any]]) -> list[str]:
    """Folders that the peer does not have."""
    paths = sorted({plan(item)[0] for item in items})
    found: list[str] = remote.call(remote.peer(config, peer), "absent", {"paths": paths}, 20)["absent"]
    return found


def last_pass(config: dict[str, Any]) -> int:
    """All copies once, of many files only what has changed; bytes that came. Nothing changes there any more."""
    # People wait: whether something is absent is asked only about what does not come.
    work: dict[str, Any] = {}
    for name, items in _by_peer(config).items():
        few = [item for item in items if not _many(item)]
        work |= {item["name"]: lambda name=name, item=item: _last(config, name, item) for item in few}
        if many := [item for item in items if _many(item)]:
            work[f"many of {name}"] = lambda name=name, many=many: _changed(config, name, many)
    return sum(remote.side_by_side(work).values()) if work else 0


def _changed(config: dict[str, Any], peer: str, items: list[dict[str, Any]]) -> int:
    """What differs from the last pass that ended; everything, where the peer can not tell it."""
    known = state.load("files")
    changed: dict[str, list[str]] = {}
    if known.get("id") == config["id"] and known.get("base"):
        paths = [plan(item)[0] for item in items]
        body = {"who": config["machine"], "pass": known["base"], "paths": paths}
        # A silence shows in the copying too, which says so.
        with contextlib.suppress(Failure):
            changed = remote.call(remote.peer(config, peer), "changed-files", body, LAST)["changed"] or {}
    work = {
        item["name"]: lambda item=item: _last(config, peer, item, changed.get(plan(item)[0]))
        for item in items
    }
    return sum(remote.side_by_side(work).values())


def _by_peer(config: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for item in config["copies"]:
        found.setdefault(str(item["peer"]), []).append(item)
    return found


def _many(item: dict[str, Any]) -> bool:
    """May hold so many files that comparing them all takes long."""
    return item["kind"] in ("files", "sqlite_folder") and not plan(item)[1]


def _last(config: dict[str, Any], peer: str, item: dict[str, Any], changed: list[str] | None = None) -> int:
    try:
        return fetch(config, item, True, changed)
    except Failure:
        if _absent(config, peer, [item]):
            return 0
        raise


def fetch(
    config: dict[str, Any], item: dict[str, Any], final: bool = False, changed: list[str] | None = None
) -> int:
    """One copy; bytes that came. changed: paths below its folder, and nothing else is looked at; None for all."""
    closed(f"copying {item['name']}")
    if changed == []:
        return 0
    folder = plan(item)[0]
    make(Path(folder))
    what = f"copying {item['name']} from {item['peer']}"
    bound = LAST if final else BOUND
    wanted = b"".join(os.fsencode(path) + b"\0" for path in changed or [])
    command = line(config, item, final, changed is not None)
    try:
        done = subprocess.run(command, input=wanted, capture_output=True, timeout=bound)
    except subprocess.TimeoutExpired:
        raise Failure(what, f"no end after {bound} s", "see the network between the sides") from None
    out, told = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    # 24: files vanished while it looked, as they do while the other side serves.
    still = final and not config.get("rehearsal")
    if done.returncode not in ((0,) if still else (0, 24)):
        why = _words(told) or f"rsync ended with {done.returncode}"
        if "No space left" in told:
            why = f"the disk is full below {folder}"
        raise Failure(what, why, "it is tried again; see `move.py status`")
    return received(out)


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
        total = last_pass(config)
    return {"bytes": total, "seconds": round(time.monotonic() - began, 2)}


# --- the passes ---


def work(config: dict[str, Any]) -> int:
    """Passes until the unit is stopped. What fails is noted and tried again."""
    known = state.load("files")
    record: dict[str, Any] = {"passes": 0, "bytes": 0, "base": 0}
    if known.get("id") == config["id"]:
        record |= {name: known[name] for name in record if name in known}
    record |= {"id": config["id"], "error": None, "last_seconds": 0.0, "last_bytes": 0, "ended_at": 0.0}
    while True:
        began, now = time.monotonic(), time.time()
        try:
            closed("copying files")
            with state.lock("files", 60):
                got, base = one_pass(config, record["base"])
            record |= {
                "passes": record["passes"] + 1,
                "bytes": record["bytes"] + got,
                "last_bytes": got,
                "base": base,
            }
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
