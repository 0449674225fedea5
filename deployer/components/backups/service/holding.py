"""Mail and SMS of a restored queue: held until `queues.py release`. What comes after the restore flows as ever."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ground import STATE, Failure, read, run, write
from staging import POSTFIX, queue_files

RECORD = STATE / "held.json"
HELD = STATE / "held"
# Seconds after which an SMS is worth nothing: it is a code that has expired.
OLD_SMS = 900
GATEWAY = Path("/var/lib/sms-gateway/spool.db")
KANNEL = Path("/var/spool/kannel/store")


def note(**more: Any) -> dict[str, Any]:
    known = {"mail": [], "aside": [], **(read(RECORD, {}) or {}), **more}
    write(RECORD, known)
    return known


# --- mail ---


def take_mail(copy: Path, hold: bool, name: str) -> int:
    """The messages of a copied queue go into Postfix's own, whether it runs or not. Returns how many.

    A message is named after its file's number here, so `postsuper -s` gives each its name; only then is it known
    which ones are ours. Those that somebody had held before the backup stay held for good.
    """
    owner = pwd.getpwnam("postfix")
    _folders()
    # Written down first: one that was killed goes on with what was there before it began.
    begun = (read(RECORD, {}) or {}).get("begun", {})
    if begun.get("id") != name:
        begun = {"id": name, "hold": [path.name for path in Path(POSTFIX, "hold").glob("*")]}
        note(begun=begun)
    taken = 0
    messages: dict[str, Path] = {}
    kept: list[Path] = []
    for path in queue_files(copy):
        queue = path.relative_to(copy).parts[0]
        if queue == "hold":
            kept.append(path)
        elif queue == "maildrop":
            _set_aside_drop(path, name)
            taken += 1
        else:
            # One that moved while it was copied is there twice; the later folder knows more.
            messages[path.name] = path
    for path in messages.values():
        _put(path, Path(POSTFIX, "hold" if hold else "deferred"), owner)
        path.unlink()
        taken += 1
    _structure()
    if hold and not begun.get("known"):
        ours = {path.name for path in Path(POSTFIX, "hold").glob("*")} - set(begun["hold"])
        known = read(RECORD, {}) or {}
        note(mail=sorted({*known.get("mail", []), *ours}), begun={**begun, "known": True})
    for path in kept:
        _put(path, Path(POSTFIX, "hold"), owner)
        path.unlink()
    if kept:
        _structure()
    return taken


def _folders() -> None:
    """A Postfix that was installed and never started has no folders for its queue."""
    if not all(
        Path(POSTFIX, name).is_dir() for name in ("defer", "deferred", "hold", "incoming", "maildrop")
    ):
        words = ["postfix", "post-install", "create-missing"]
        run("making the folders of the mail queue", words, timeout=120, next="see `postfix check`")


def _put(path: Path, folder: Path, owner: pwd.struct_passwd) -> None:
    target = folder / path.name
    while target.exists():
        target = target.with_name(target.name + "0")
    new = folder / f".{path.name}.new"
    shutil.copy2(path, new)
    os.chown(new, owner.pw_uid, owner.pw_gid)
    new.chmod(0o700)
    os.rename(new, target)


def _structure() -> None:
    run("naming the restored mail", ["postsuper", "-s"], timeout=300, next="see `postsuper -s`")


def _set_aside_drop(path: Path, name: str) -> None:
    """Mail of this machine's own programs that Postfix had not yet looked at."""
    folder = HELD / "maildrop"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = folder / f"{name}-{path.name}"
    shutil.copy2(path, target)
    info = path.stat()
    os.chown(target, info.st_uid, info.st_gid)


# --- SMS ---


def hold_sms(database: Path) -> int:
    """All that waits in the gateway's spool, also what Kannel had: its text is here until a carrier has taken it."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as spool:
        held = spool.execute(
            "UPDATE messages SET held = 1, status = 'queued', next_try = 0, changed = 1"
            " WHERE status IN ('queued', 'sending') AND body IS NOT NULL"
        ).rowcount
        spool.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return int(held)


def set_aside(store: Path, name: str) -> None:
    """Kannel's own store: what it had to send is in the gateway's spool as well and would go out twice; what it had
    received waits until the release."""
    if not store.is_dir():
        return
    folder = HELD / "kannel"
    for path in [one for one in store.rglob("*") if one.is_file()]:
        if sms_type(path.read_bytes()) in OUTGOING:
            path.unlink()
            continue
        target = folder / path.relative_to(store)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.move(path, target)


# Kannel's enum in gw/msg.h: mo, mt_reply, mt_push, report_mo, report_mt.
OUTGOING = (1, 2)


def sms_type(packed: bytes) -> int:
    """Of a message as Kannel packs it (gw/msg.c, gw/msg-decl.h): a type, then fields in order; -1 when it is no SMS."""

    def number(at: int) -> int:
        return int.from_bytes(packed[at : at + 4], "big", signed=True)

    if len(packed) < 8 or number(0) != 2:
        return -1
    at = 4
    # sender, receiver, udhdata, msgdata; time; smsc_id, smsc_number, foreign_id, service, account; id; sms_type
    for kind in "ssss i sssss s".replace(" ", ""):
        if at + 4 > len(packed):
            return -1
        if kind == "s":
            at += max(number(at), 0)
        at += 4
    return number(at) if at + 4 <= len(packed) else -1


# --- status, release ---


def status() -> dict[str, Any]:
    """What is held of a restored queue."""
    known = read(RECORD, {}) or {}
    there = (
        {path.name for path in Path(POSTFIX, "hold").glob("*")} if Path(POSTFIX, "hold").is_dir() else set()
    )
    drop = [path for path in (HELD / "maildrop").glob("*") if path.is_file()]
    sms = {"held": 0, "expired": 0}
    if GATEWAY.exists():
        limit = time.time() - OLD_SMS
        with contextlib.closing(sqlite3.connect(f"file:{GATEWAY}?mode=rw", uri=True, timeout=10)) as spool:
            row = spool.execute(
                "SELECT count(*), coalesce(sum(created < ?), 0) FROM messages"
                " WHERE held = 1 AND status = 'queued' AND expires > ?",
                (limit, time.time()),
            ).fetchone()
        sms = {"held": row[0], "expired": row[1]}
    received = [path for path in (HELD / "kannel").rglob("*") if path.is_file()]
    mail = len(there & set(known.get("mail", []))) + len(drop)
    return {
        "mail": {"held": mail > 0, "waiting": mail},
        "sms": {
            "held": sms["held"] > 0 or bool(received),
            "waiting": sms["held"],
            "expired": sms["expired"],
            "received": len(received),
        },
    }


def release(kinds: Sequence[str]) -> dict[str, Any]:
    """Let go what is held. An SMS older than OLD_SMS is dropped and counted: the gateway calls it expired."""
    before = status()
    found: dict[str, Any] = {}
    if "mail" in kinds:
        _release_mail()
        found["mail"] = {"released": before["mail"]["waiting"], "dropped": 0}
    if "sms" in kinds:
        dropped = _release_sms()
        sent = max(before["sms"]["waiting"] - dropped, 0)
        found["sms"] = {"released": sent, "dropped": dropped, "received": before["sms"]["received"]}
    after = status()
    return {kind: {**after[kind], **body} for kind, body in found.items()}


def _release_mail() -> None:
    known = read(RECORD, {}) or {}
    names = [name for name in known.get("mail", []) if Path(POSTFIX, "hold", name).exists()]
    if names:
        run("releasing mail", ["postsuper", "-H", "-"], timeout=300, stdin="".join(f"{n}\n" for n in names))
    for path in sorted((HELD / "maildrop").glob("*")):
        target = Path(POSTFIX, "maildrop", path.name.partition("-")[2] or path.name)
        info = path.stat()
        shutil.copy2(path, target)
        os.chown(target, info.st_uid, info.st_gid)
        path.unlink()
    note(mail=[])
    if names:
        # Now, not in an hour: each has a time for its next try.
        subprocess.run(["postqueue", "-f"], capture_output=True, timeout=60, check=False)


def _release_sms() -> int:
    dropped = 0
    if GATEWAY.exists():
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{GATEWAY}?mode=rw", uri=True, timeout=20, isolation_level=None)
            ) as spool:
                now = time.time()
                # Held as they are: the gateway itself ends what has expired and tells the app so.
                dropped = spool.execute(
                    "UPDATE messages SET expires = min(expires, ?), changed = 1"
                    " WHERE held = 1 AND status = 'queued' AND (created < ? OR expires < ?)",
                    (now - 1, now - OLD_SMS, now),
                ).rowcount
                spool.execute(
                    "UPDATE messages SET held = 0, next_try = 0, changed = 1"
                    " WHERE held = 1 AND status = 'queued' AND expires > ?",
                    (now,),
                )
        except sqlite3.Error as error:
            raise Failure("releasing SMS", str(error), "see `systemctl status sms-gateway`") from None
    received = [path for path in (HELD / "kannel").rglob("*") if path.is_file()]
    if received:
        for path in received:
            target = KANNEL / path.relative_to(HELD / "kannel")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
        for path in (KANNEL, *KANNEL.rglob("*")):
            shutil.chown(path, "kannel", "root")
        # It reads its store when it starts.
        run(
            "starting Kannel with what it had received",
            ["systemctl", "try-restart", "kannel-bearerbox.service"],
            timeout=120,
        )
    return int(dropped)
