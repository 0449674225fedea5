"""A restored cluster, started for itself: on a socket of its own, without archiving, to replay and to be checked.

Not a program.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pgbackrest
from pgbackrest import BIN, Failed, parse

# Seconds without a word or a new segment after which replaying counts as stuck.
STUCK = 900.0
AMCHECK = 6 * 3600
_DONE = re.compile(r"last completed transaction was at log time (\S+ \S+)")
# Provider and locale that do not change under the data's feet when an operating system is another.
BUILTIN = ("C", "C.UTF-8")


class Server:
    """error: why replaying ended otherwise than wanted, "" for well. last_time: of the last commit that it replayed.
    heartbeat: the newest in the data."""

    def __init__(self, data: Path, private: Path) -> None:
        self.data, self.private = data, private
        self.log = private / "server.log"
        self.error, self.last_time, self.heartbeat = "", "", ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        lines = {
            "data_directory": self.data,
            "hba_file": self.private / "hba.conf",
            "ident_file": self.private / "ident.conf",
            "listen_addresses": "",
            "unix_socket_directories": self.private,
            "port": 5432,
            "archive_mode": "off",
            "autovacuum": "off",
            # Nobody reads before the end; so no setting must be as large as it was where the data come from.
            "hot_standby": "off",
            "max_connections": 20,
            "max_prepared_transactions": 100,
            "shared_buffers": f"{max(64, min(2048, memory // (4 << 20)))}MB",
            "max_wal_size": "4GB",
            "checkpoint_timeout": "30min",
            # Written to disk as a whole at the end; a restore that breaks off begins anew.
            "fsync": "off",
            "full_page_writes": "off",
            "track_commit_timestamp": "on",
            "log_destination": "stderr",
            "logging_collector": "off",
            "log_min_messages": "warning",
            "log_line_prefix": "",
            "log_timezone": "UTC",
            "timezone": "UTC",
            "lc_messages": "C",
            "log_statement": "none",
            "log_min_error_statement": "panic",
            "log_startup_progress_interval": "10s",
            "jit": "off",
            "ssl": "off",
        }
        text = "".join(f"{key} = '{value}'\n" for key, value in lines.items())
        for name, content in (
            ("postgresql.conf", text),
            ("hba.conf", "local all postgres peer\n"),
            ("ident.conf", ""),
        ):
            pgbackrest.write(self.private / name, content, 0o644)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", f"{BIN}/postgres",
                 f"--config-file={self.private}/postgresql.conf"],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            )  # fmt: skip

    def take_what_there_is(self) -> None:
        """Forget the moment to recover to; what was replayed stays."""
        path = self.data / "postgresql.auto.conf"
        lines = path.read_text(encoding="utf-8").splitlines()
        stat = path.stat()
        kept = [line for line in lines if not line.startswith("recovery_target")]
        pgbackrest.write(path, "\n".join([*kept, ""]), 0o600, stat.st_uid, stat.st_gid)
        self.error = ""

    def recovered(self, progress: Callable[[Server], None]) -> None:
        """Wait until it has replayed and was promoted, or ended. Sets error and last_time."""
        process = self._process
        assert process
        self.error = ""
        size, changed = -1, time.monotonic()
        while True:
            ended = process.poll() is not None
            text = self.log.read_text(encoding="utf-8", errors="replace")
            notes = self.private / "notes"
            grown = len(text) + (notes.stat().st_size if notes.exists() else 0)
            if grown != size:
                size, changed = grown, time.monotonic()
                self._read(text)
                progress(self)
            if ended:
                fatal = re.findall(r"^(?:FATAL|PANIC|ERROR): +(.*)$", text, re.MULTILINE)
                self.error = (
                    fatal[0] if fatal else f"the server ended with {process.returncode}: {text[-400:]}"
                )
                return
            if "database system is ready to accept connections" in text:
                return
            if time.monotonic() - changed > STUCK:
                raise Failed(
                    "replaying WAL", f"nothing happened for {STUCK:g} s: {text[-300:]}", "run it again"
                )
            time.sleep(0.1)

    def _read(self, text: str) -> None:
        found = _DONE.findall(text)
        if found:
            moment = parse(found[-1].replace("+00", "+00:00").replace("UTC", "").strip())
            self.last_time = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def query(self, sql: str, database: str = "postgres") -> list[str]:
        argv = [f"{BIN}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self.private), "-d", database]
        done = pgbackrest.as_postgres(argv, timeout=120, stdin=sql)
        if done.returncode:
            raise Failed("asking the restored database", done.stderr.strip()[-400:], "take another backup")
        return done.stdout.splitlines()

    def checks(self, recovered_to: str, amcheck: bool) -> list[dict[str, Any]]:
        """[{"name", "good", "text"}], in words for a receipt."""
        found = []

        def add(name: str, good: bool, text: str) -> None:
            found.append({"name": name, "good": good, "text": text})

        number = self.query("SHOW server_version")[0].split()[0]
        add("version", number.split(".")[0] == pgbackrest.VERSION, f"PostgreSQL {number}")
        rows = [
            json.loads(row)
            for row in self.query(
                "SELECT json_build_array(datname, datlocprovider, coalesce(datlocale, datcollate),"
                " pg_database_size(oid)) FROM pg_database WHERE NOT datistemplate ORDER BY datname"
            )
        ]
        foreign = [
            f"{name} has {locale} of {_provider(kind)}"
            for name, kind, locale, _ in rows
            if not _ours(kind, locale)
        ]
        add("locale", not foreign, "; ".join(foreign) or "of the builtin provider in every database")
        add("checksums", self.query("SHOW data_checksums")[0] == "on", "of data pages")
        beat = self._heartbeat()
        if not beat:
            add(
                "heartbeat",
                False,
                "there is none: not a database of this toolkit, or from before its first backup",
            )
        else:
            self.heartbeat = beat
            late = (parse(recovered_to) - parse(beat)).total_seconds() if recovered_to else 0.0
            add("heartbeat", late < 60, f"the newest is of {beat}, {late:.1f} s before the last commit")
        size = sum(row[3] for row in rows) >> 20
        add("databases", True, f"{', '.join(row[0] for row in rows)}; {size} MiB")
        if amcheck:
            argv = [
                f"{BIN}/pg_amcheck",
                "--all",
                "--install-missing",
                "--heapallindexed",
                "-h",
                str(self.private),
            ]
            done = pgbackrest.as_postgres(argv, timeout=AMCHECK)
            text = (done.stdout + done.stderr).strip()
            add("amcheck", done.returncode == 0, text[-600:] or "heap and every index of every database")
        return found

    def _heartbeat(self) -> str:
        there = self.query("SELECT to_regclass('deploy.heartbeat') IS NOT NULL")[0] == "t"
        rows = (
            self.query("SELECT to_json(at AT TIME ZONE 'UTC') #>> '{}' FROM deploy.heartbeat")
            if there
            else []
        )
        return f"{rows[0]}Z" if rows else ""

    def stop(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            raise Failed("stopping the restored database", "no end within 300 s", "run it again") from None


def _provider(kind: str) -> str:
    return {"b": "the builtin provider", "c": "libc", "i": "ICU"}.get(kind, kind)


def _ours(kind: str, locale: str) -> bool:
    return kind == "b" or (kind == "c" and locale in ("C", "POSIX"))


_RECOVERY = re.compile(
    r"^\s*(restore_command|recovery_\w+|archive_mode|primary_\w+|archive_cleanup_command)\s*="
)


def settle(data: Path) -> None:
    """What the restore put into the settings goes, and every byte is on the disk."""
    path = data / "postgresql.auto.conf"
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not _RECOVERY.match(line) and "pgBackRest" not in line]
    stat = path.stat()
    pgbackrest.write(path, "\n".join([*kept, ""]), 0o600, stat.st_uid, stat.st_gid)
    for name in ("backup_label.old", "tablespace_map.old", "recovery.signal", "standby.signal"):
        (data / name).unlink(missing_ok=True)
    done = pgbackrest.as_postgres([f"{BIN}/initdb", "--sync-only", f"--pgdata={data}"], timeout=3600)
    if done.returncode:
        raise Failed("writing the restored database to disk", done.stderr.strip()[-300:], "see the disk")
