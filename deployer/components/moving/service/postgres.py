"""PostgreSQL 17/main of this machine, as a move needs it."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import Any

from ground import Failure, last
from state import FOLDER

DATA = Path("/var/lib/postgresql/17/main")
BIN = "/usr/lib/postgresql/17/bin"
CONF = "/etc/postgresql/17/main/postgresql.conf"
SLOT = STANDBY = "deploy_standby"
ROLE = "deploy_replication"
SYNC = "synchronous_standby_names"
# While a switchover is under way: a server that stops waits so long for a standby that a cut network hides. Otherwise it
# is PostgreSQL's own minute, longer than people may wait for this side to open again.
PATIENCE, SECONDS = "wal_sender_timeout", 8
# Of a standby; the new primary has none of them.
FOLLOWING = ("primary_conninfo", "primary_slot_name", "wal_retrieve_retry_interval")
# What a standby must have at least as large as its primary, or it does not replay.
AT_LEAST = {
    # name of the setting: what pg_controldata calls it
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_transactions": "max_prepared_xacts",
    "max_locks_per_transaction": "max_locks_per_xact",
}


def as_postgres(argv: list[str], timeout: float, stdin: str = "", **environment: str) -> Any:
    words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *argv]
    base = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/var/lib/postgresql", **environment}
    return subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=timeout, env=base, cwd="/"
    )


def sql(text: str, what: str = "asking the database", timeout: float = 20) -> str:
    """What psql prints: rows in lines, columns apart by |. Raises Failure."""
    # Not /usr/bin/psql: that is Perl, which only looks for this one, and people wait.
    argv = [f"{BIN}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]
    try:
        done = as_postgres(argv, timeout, text, PGCONNECT_TIMEOUT="5")
    except subprocess.TimeoutExpired:
        raise Failure(
            what, f"no answer within {timeout:.0f} s", "see `journalctl -u postgresql@17-main`"
        ) from None
    if done.returncode:
        raise Failure(what, last(done.stderr), "see `journalctl -u postgresql@17-main`")
    return str(done.stdout).strip()


def answers() -> bool:
    try:
        return sql("SELECT 1", timeout=6) == "1"
    except Failure:
        return False


def in_recovery() -> bool:
    return sql("SELECT pg_is_in_recovery()") == "t"


def lsn(text: str) -> int:
    """0/3000060 as a number of bytes. Raises ValueError."""
    high, slash, low = text.strip().partition("/")
    if not slash:
        raise ValueError(f"{text!r} is no LSN")
    return (int(high, 16) << 32) + int(low, 16)


def parse_control(text: str) -> dict[str, Any]:
    """Of pg_controldata: state ("shut down", "in production", ...), checkpoint (LSN), system, settings."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        values[name.strip()] = value.strip()
    try:
        return {
            "state": values["Database cluster state"],
            "checkpoint": values["Latest checkpoint location"],
            "system": values["Database system identifier"],
            "settings": {name: int(values[f"{told} setting"]) for name, told in AT_LEAST.items()},
        }
    except KeyError as missing:
        raise ValueError(f"pg_controldata says nothing of {missing}") from None


def control(data: Path = DATA) -> dict[str, Any]:
    """Raises Failure."""
    done = as_postgres([f"{BIN}/pg_controldata", str(data)], 30)
    try:
        if done.returncode:
            raise ValueError(last(done.stderr))
        return parse_control(done.stdout)
    except ValueError as error:
        raise Failure("looking at the database's files", str(error), f"see {data}") from None


def configured() -> dict[str, int]:
    """What the settings' files of this machine say for AT_LEAST."""
    found = {}
    for name in AT_LEAST:
        done = as_postgres([f"{BIN}/postgres", "-C", name, f"--config-file={CONF}"], 20)
        if done.returncode == 0 and done.stdout.strip().isdigit():
            found[name] = int(done.stdout)
    return found


def edit(text: str, values: dict[str, str | None]) -> str:
    """postgresql.auto.conf with these settings; None takes one out."""
    kept = []
    for line in text.splitlines():
        name = re.match(r"\s*([A-Za-z_.]+)\s*=", line)
        if not (name and name[1].lower() in values):
            kept.append(line)
    for key, value in values.items():
        if value is not None:
            kept.append(f"{key} = '{quoted(value)}'")
    return "\n".join([*kept, ""])


def quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def configure(values: dict[str, str | None], data: Path = DATA) -> None:
    """Settings above all others, written while no server runs."""
    path = data / "postgresql.auto.conf"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    put(path, edit(text, values))


def put(path: Path, text: str) -> None:
    """A file of the server's, whole and on the disk."""
    owner = pwd.getpwnam("postgres")
    new = path.with_name(path.name + ".deploy-new")
    with open(new, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fchown(file.fileno(), owner.pw_uid, owner.pw_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def conninfo(port: int) -> str:
    """Through the tunnel, which is encrypted."""
    return (
        f"host=127.0.0.1 port={port} user={ROLE} passfile={FOLDER}/pgpass application_name={STANDBY}"
        " sslmode=disable connect_timeout=5 keepalives_idle=5 keepalives_interval=5 keepalives_count=3"
    )


def following(port: int) -> dict[str, str | None]:
    """Settings of a standby, by the names in FOLLOWING. A promotion that comes just as it looks for more waits once more."""
    return dict(zip(FOLLOWING, (conninfo(port), SLOT, "500ms"), strict=True))


def slot(want: bool) -> dict[str, Any]:
    """The slot for the standby is there and of use, or is not there. One that lost its WAL is made anew."""
    rows = sql(
        f"SELECT active, coalesce(wal_status, 'lost') FROM pg_replication_slots WHERE slot_name = '{SLOT}'"
    )
    have, lost = bool(rows), rows.endswith("|lost")
    if have and (lost or not want):
        # Its walsender may still be about to notice that the other end is gone.
        sql(
            f"SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
            f" WHERE slot_name = '{SLOT}' AND active; SELECT pg_drop_replication_slot('{SLOT}')",
            "dropping the standby's slot",
            30,
        )
        have = False
    if want and not have:
        sql(f"SELECT pg_create_physical_replication_slot('{SLOT}', true)", "making the standby's slot", 30)
    return {"slot": want, "made": want and not have, "lost": lost}


def wait_for_none() -> None:
    """Commits are waited for by nobody else again: in the running server, or in the files of one that is down."""
    try:
        # ALTER SYSTEM takes no transaction of several statements; psql sends them one by one.
        sql(f"ALTER SYSTEM RESET {SYNC}; ALTER SYSTEM RESET {PATIENCE}; SELECT pg_reload_conf()", timeout=6)
    except Failure:
        # Down, or it takes no connection: the file is what the next start reads, and a reload too.
        configure({SYNC: None, PATIENCE: None})
        subprocess.run(
            ["systemctl", "kill", "--kill-whom=main", "--signal=HUP", "postgresql@17-main.service"],
            capture_output=True,
            timeout=10,
        )


def role(verifier: str) -> None:
    """The one that streams. Not even the verifier is to be in a log."""
    if not re.fullmatch(r"SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+", verifier):
        raise Failure(
            "making the role for the standby", "the settings hold no SCRAM verifier", "a mistake of ours"
        )
    sql(
        f"""SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic';
SELECT 'CREATE ROLE {ROLE}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') \\gexec
ALTER ROLE {ROLE} WITH LOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{verifier}';
SELECT pg_reload_conf();""",
        "making the role for the standby",
    )
