"""The database of the other side, copied and followed: NEW before the switchover, OLD after it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import postgres
import remote
import serving
import state
import systemd
from ground import Failure, last
from postgres import BIN, DATA
from state import CLOSED, FENCED, STREAMING

UNIT = "deploy-moving-standby.service"
TUNNEL = "deploy-moving-database.service"
INCOMING = DATA.with_name("main.incoming")
# Seconds: for the whole copy; without any progress of replaying; until a standby that is there streams.
COPY, STUCK, RESUME = 48 * 3600, 600, 60
_DONE = re.compile(r"(\d+)/(\d+) kB \(")


class Record:
    def __init__(self, config: dict[str, Any]) -> None:
        known = state.load("standby")
        self.body: dict[str, Any] = {
            "phase": "",
            "done_bytes": 0,
            "total_bytes": 0,
            "seconds": {},
        }
        if known.get("id") == config["id"]:
            self.body |= known
        self.note(id=config["id"], error=None)

    def note(self, **values: Any) -> None:
        self.body.update(values)
        state.save("standby", self.body)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.note(phase=name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.body["seconds"][name] = round(time.monotonic() - began, 1)


def peer(config: dict[str, Any]) -> dict[str, Any]:
    return remote.peer(config, str(config["replication"]["peer"]))


def spare(config: dict[str, Any]) -> None:
    """Raises Failure on a machine whose database may be the one that counts."""
    state.side(config, "new", "making a standby")
    if not (CLOSED.exists() and FENCED.exists()):
        why = "this machine is not closed and fenced: its database may be the live one"
        raise Failure("making a standby", why, "run `move.py prepare` on it")


# --- verbs ---


def start(config: dict[str, Any]) -> dict[str, Any]:
    """Returns at once; the unit does the rest."""
    spare(config)
    if (
        systemd.states([UNIT])[UNIT] not in ("active", "activating")
        and status(config)["state"] != "streaming"
    ):
        Record(config)
        systemd.call("reset-failed", UNIT)
        done = systemd.call("start", UNIT)
        if done.returncode:
            raise Failure("making a standby", last(done.stderr), f"see `systemctl status {UNIT}`")
    # Not the status itself: an error of an earlier attempt in it is no answer to this one.
    return {"standby": status(config)}


def status(config: dict[str, Any]) -> dict[str, Any]:
    """Of a standby on this machine, whichever side it is on."""
    known = state.load("standby")
    found: dict[str, Any] = {"state": "none", "phase": "", "done_bytes": 0, "total_bytes": 0, "lag_bytes": 0}
    found |= {"seconds": {}, "error": None}
    if known.get("id") == config["id"]:
        found |= {name: known[name] for name in found if name in known}
    active = systemd.states([UNIT])[UNIT] in ("active", "activating")
    live = receiving() if (DATA / "standby.signal").exists() else {}
    if live.get("streaming"):
        # What failed before it streamed is over.
        found |= {
            "state": "running" if active else "streaming",
            "lag_bytes": live["lag_bytes"],
            "error": None,
        }
    elif active:
        found["state"] = "running"
    elif found["error"]:
        found["state"] = "failed"
    elif known.get("id") == config["id"]:
        found["state"] = "failed"
        found["error"] = {
            "what": "following the database",
            "why": "it does not stream",
            "next": "run it again",
        }
    return found


def receiving() -> dict[str, Any]:
    """{} when there is no standby that answers."""
    try:
        row = postgres.sql(
            "SELECT pg_is_in_recovery(), coalesce(r.status, ''), pg_last_wal_replay_lsn(),"
            " coalesce(pg_wal_lsn_diff(r.latest_end_lsn, pg_last_wal_replay_lsn()), 0)::bigint"
            " FROM (SELECT 1) one LEFT JOIN pg_stat_wal_receiver r ON true",
            timeout=6,
        ).split("|")
    except Failure:
        return {}
    if row[0] != "t":
        return {}
    return {"streaming": row[1] == "streaming", "replayed": row[2], "lag_bytes": max(int(row[3]), 0)}


# --- the work ---


def work(config: dict[str, Any]) -> int:
    record = Record(config)
    try:
        with state.lock("standby", 10, "making a standby"):
            make(config, record)
        return 0
    except Failure as failure:
        record.note(error=failure.body)
        print(failure, flush=True)
        return 1


def make(config: dict[str, Any], record: Record) -> None:
    spare(config)
    with record.phase("tunnel"):
        tunnel(config)
        facts = remote.call(peer(config), "facts", {}, 30)
        # One that lost its WAL says that what follows it cannot go on.
        slot = remote.call(peer(config), "slot", {"want": True}, 60)
        record.note(total_bytes=facts["bytes"])
    if ours(facts) and not slot["lost"]:
        with record.phase("resume"):
            follow_on(config, record)
            end = time.monotonic() + RESUME
            while not receiving().get("streaming") and time.monotonic() < end:
                time.sleep(0.5)
    if not receiving().get("streaming"):
        with record.phase("copy"):
            room(facts)
            copy(config, record)
        with record.phase("start"):
            into_place(config)
            follow_on(config, record)
    with record.phase("catch up"):
        catch_up()
    record.note(phase="streaming", done_bytes=record.body["total_bytes"])


def tunnel(config: dict[str, Any]) -> None:
    """The peer's database listens on our loopback."""
    state.mark(STREAMING)
    systemd.must_start("reaching the other side's database", [TUNNEL], 20)
    port = int(config["replication"]["port"])
    if serving.listening([("127.0.0.1", port)], 20):
        said = subprocess.run(
            ["journalctl", "--no-pager", "-o", "cat", "-n", "5", "-u", TUNNEL],
            capture_output=True,
            text=True,
            timeout=20,
        )
        why = f"the tunnel does not listen: {last(said.stdout)}"
        raise Failure("reaching the other side's database", why, f"see `journalctl -u {TUNNEL}`")


def ours(facts: dict[str, Any]) -> bool:
    """What lies in 17/main is a standby of that very cluster."""
    if not (DATA / "standby.signal").exists():
        return False
    try:
        return bool(postgres.control()["system"] == facts["system"])
    except Failure:
        return False


def room(facts: dict[str, Any]) -> None:
    DATA.parent.mkdir(parents=True, exist_ok=True)
    gone = sum(one.stat().st_size for one in INCOMING.rglob("*") if one.is_file()) if INCOMING.exists() else 0
    free = shutil.disk_usage(DATA.parent).free + gone
    if free < facts["bytes"] * 1.1 + (1 << 28):
        why = f"the disk of {DATA.parent} has {free >> 20} MiB left; the database takes {facts['bytes'] >> 20} MiB"
        raise Failure("copying the database", why, "take a larger disk, then run it again")


def copy(config: dict[str, Any], record: Record) -> None:
    shutil.rmtree(INCOMING, ignore_errors=True)
    dsn = postgres.conninfo(int(config["replication"]["port"])).replace(postgres.STANDBY, "deploy_copy")
    argv = [
        "setpriv",
        "--reuid=postgres",
        "--regid=postgres",
        "--init-groups",
        f"{BIN}/pg_basebackup",
        "-d",
        dsn,
    ]
    argv += ["-D", str(INCOMING), "-X", "stream", "-S", postgres.SLOT, "--checkpoint=fast", "-P"]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/var/lib/postgresql"}
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, cwd="/"
    )
    assert process.stderr
    words, told = "", 0.0
    for line in process.stderr:
        if found := _DONE.search(line):
            if time.monotonic() - told > 1:
                told = time.monotonic()
                record.note(done_bytes=int(found[1]) << 10, total_bytes=int(found[2]) << 10)
        elif line.strip():
            words = line.strip()
    if process.wait(60):
        if "No space left" in words:
            words = f"the disk of {DATA.parent} is full"
        raise Failure("copying the database", words or "pg_basebackup failed", "run it again: it begins anew")


def into_place(config: dict[str, Any]) -> None:
    """What was in 17/main stays beside it, unless it never ran. Killed between the renames, it begins anew."""
    spare(config)
    unit = str(config["database_unit"])
    systemd.stop([unit], 60)
    port = int(config["replication"]["port"])
    values: dict[str, str | None] = dict.fromkeys(postgres.AT_LEAST)
    have = postgres.configured()
    for name, wanted in postgres.control(INCOMING)["settings"].items():
        if name in have and have[name] < wanted:
            values[name] = str(wanted)
    values |= {**postgres.following(port), postgres.SYNC: None, "restore_command": None}
    postgres.configure(values, INCOMING)
    postgres.put(INCOMING / "standby.signal", "")
    if DATA.exists():
        if (DATA / "postmaster.opts").exists():
            kept = DATA.with_name(f"main.before-{re.sub(r'[^A-Za-z0-9._-]', '-', str(config['id']))}")
            while kept.exists():
                kept = kept.with_name(kept.name + "-again")
            DATA.rename(kept)
        else:
            shutil.rmtree(DATA)
    os.rename(INCOMING, DATA)
    state.sync_folder(DATA.parent)


def follow_on(config: dict[str, Any], record: Record) -> None:
    unit = str(config["database_unit"])
    systemd.call("enable", unit)
    systemd.must_start("starting the standby", [unit], 600)


def catch_up() -> None:
    """Until it streams and has replayed nearly all. Raises Failure when nothing moves for long."""
    before, moved = "", time.monotonic()
    while True:
        found = receiving()
        if found.get("streaming") and found["lag_bytes"] < 1 << 20:
            return
        if found.get("replayed", "") != before:
            before, moved = found.get("replayed", ""), time.monotonic()
        if time.monotonic() - moved > STUCK:
            why = f"nothing was replayed for {STUCK} s; it is at {before or 'no place that it tells'}"
            raise Failure(
                "following the database", why, "see `journalctl -u postgresql@17-main`, then run it again"
            )
        time.sleep(0.3)


def remove_tunnel() -> None:
    state.unmark(STREAMING)
    systemd.stop([TUNNEL], 10)
