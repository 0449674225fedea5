"""PostgreSQL: the lasting record of messages (without their text), delivery reports, inbound messages, opt-outs.

It is written behind: everything is in the spool first, so that a database that is away stops nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from .config import Config
from .store import Store

log = logging.getLogger("sms_gateway.records")

# Each entry is applied once, in order.
MIGRATIONS = (
    """
    CREATE TABLE messages (sid text PRIMARY KEY, api text NOT NULL, created timestamptz NOT NULL,
      updated timestamptz NOT NULL, sender text NOT NULL, recipient text NOT NULL, segments int NOT NULL,
      service text NOT NULL, status text NOT NULL, error int NOT NULL, carrier text NOT NULL);
    CREATE INDEX ON messages (created);
    CREATE TABLE reports (origin bigint NOT NULL, sid text NOT NULL, at timestamptz NOT NULL, kind text NOT NULL,
      carrier text NOT NULL, stat text NOT NULL, err text NOT NULL, PRIMARY KEY (sid, at, origin));
    CREATE INDEX ON reports (at);
    CREATE TABLE inbound (sid text PRIMARY KEY, at timestamptz NOT NULL, sender text NOT NULL,
      recipient text NOT NULL, body text NOT NULL, carrier text NOT NULL);
    CREATE INDEX ON inbound (at);
    CREATE TABLE optouts (number text PRIMARY KEY, at timestamptz NOT NULL, active boolean NOT NULL);
    """,
)
# Seconds between two looks at what has changed; after a failure; between two clearings of what is too old.
PAUSE = 1.0
RETRY = 10.0
CLEAR_EVERY = 3600.0
BATCH = 200

# (table here and there, how rows to copy are found, SQL there, columns, SQL here once they are copied)
_COPIES = (
    (
        "SELECT * FROM messages WHERE changed = 1 LIMIT ?",
        "INSERT INTO messages VALUES (%(sid)s, %(api)s, to_timestamp(%(created)s), to_timestamp(%(updated)s), "
        "%(sender)s, %(recipient)s, %(segments)s, %(service)s, %(status)s, %(error)s, %(carrier)s) "
        "ON CONFLICT (sid) DO UPDATE SET updated = excluded.updated, status = excluded.status, "
        "error = excluded.error, carrier = excluded.carrier",
        "UPDATE messages SET changed = 0 WHERE sid = :sid AND updated = :updated",
    ),
    (
        "SELECT * FROM reports ORDER BY id LIMIT ?",
        "INSERT INTO reports VALUES (%(id)s, %(sid)s, to_timestamp(%(at)s), %(kind)s, %(carrier)s, %(stat)s, "
        "%(err)s) ON CONFLICT DO NOTHING",
        "DELETE FROM reports WHERE id = :id",
    ),
    (
        "SELECT * FROM inbound WHERE changed = 1 LIMIT ?",
        "INSERT INTO inbound VALUES (%(sid)s, to_timestamp(%(at)s), %(sender)s, %(recipient)s, %(body)s, "
        "%(carrier)s) ON CONFLICT DO NOTHING",
        "UPDATE inbound SET changed = 0, body = '' WHERE sid = :sid",
    ),
    (
        "SELECT * FROM optouts WHERE changed = 1 LIMIT ?",
        "INSERT INTO optouts VALUES (%(number)s, to_timestamp(%(at)s), %(active)s::int = 1) "
        "ON CONFLICT (number) DO UPDATE SET at = excluded.at, active = excluded.active",
        "UPDATE optouts SET changed = 0 WHERE number = :number AND at = :at",
    ),
)


class Unavailable(Exception):
    """PostgreSQL does not answer."""


class Records:
    """The loop that mirrors, and the questions that only the record can answer."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._store = store
        self._mirror: psycopg.Connection[dict[str, Any]] | None = None
        self._cleared = 0.0

    def _connect(self) -> psycopg.Connection[dict[str, Any]]:
        if not self._config.database:
            raise Unavailable("no database is configured")
        words = {key: str(value) for key, value in self._config.database.items() if value not in ("", None)}
        try:
            return psycopg.connect(
                **words,  # type: ignore[arg-type]
                connect_timeout=3,
                application_name="sms-gateway",
                options="-c statement_timeout=5000",
                row_factory=dict_row,
            )
        except psycopg.Error as error:
            raise Unavailable(f"PostgreSQL does not answer: {type(error).__name__}") from error

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """A question to the record, on a connection of its own. Raises Unavailable."""
        try:
            with self._connect() as db:
                return db.execute(sql, values).fetchall()
        except psycopg.Error as error:
            raise Unavailable(type(error).__name__) from error

    async def alive(self) -> bool:
        """Whether the record can be read."""
        try:
            await asyncio.to_thread(self.rows, "SELECT count(*) FROM (SELECT 1 FROM messages LIMIT 1) AS one")
        except Unavailable:
            return False
        return True

    async def run(self) -> None:
        """For ever: migrate, fetch opt-outs, copy what has changed."""
        while True:
            pause = PAUSE
            try:
                await asyncio.to_thread(self.mirror)
            except (psycopg.Error, Unavailable) as error:
                log.warning(
                    "not mirrored, the spool keeps it: %s",
                    error if isinstance(error, Unavailable) else type(error).__name__,
                )
                self._close()
                pause = RETRY
            except Exception:
                log.exception("mirroring failed")
                self._close()
                pause = RETRY
            await asyncio.sleep(pause)

    def _close(self) -> None:
        if self._mirror is not None:
            self._mirror.close()
            self._mirror = None

    def mirror(self) -> int:
        """Copy what has changed; returns how many rows. Repeating it changes nothing."""
        if self._mirror is None or self._mirror.closed:
            fresh = self._connect()
            migrate(fresh)
            self._fetch_optouts(fresh)
            self._mirror = fresh
        copied = 0
        for find, there, here in _COPIES:
            rows: list[sqlite3.Row] = self._store.rows(find, (BATCH,))
            if not rows:
                continue
            with self._mirror.transaction(), self._mirror.cursor() as cursor:
                cursor.executemany(there, [dict(row) for row in rows])
            for row in rows:
                self._store.change(here, dict(row))
            copied += len(rows)
        if time.monotonic() - self._cleared > CLEAR_EVERY or not self._cleared:
            self._cleared = time.monotonic()
            self._clear(self._mirror)
        return copied

    def _fetch_optouts(self, db: psycopg.Connection[dict[str, Any]]) -> None:
        """The spool of a new machine learns who has opted out."""
        for row in db.execute("SELECT number, extract(epoch FROM at)::float8 AS at, active FROM optouts"):
            self._store.change(
                "INSERT INTO optouts VALUES (?, ?, ?, 0) ON CONFLICT (number) DO UPDATE SET at = excluded.at, "
                "active = excluded.active WHERE excluded.at > optouts.at",
                (row["number"], row["at"], int(row["active"])),
            )
        db.commit()

    def _clear(self, db: psycopg.Connection[dict[str, Any]]) -> None:
        days = self._config.policy.keep_reports
        with db.transaction():
            for table, column in (("messages", "created"), ("reports", "at"), ("inbound", "at")):
                db.execute(f"DELETE FROM {table} WHERE {column} < now() - make_interval(days => %s)", (days,))
        self._store.purge(days)


def migrate(db: psycopg.Connection[dict[str, Any]]) -> None:
    """Bring the tables up to date; two services at the same time wait for each other."""
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(hashtext('sms_gateway'))")
        db.execute("CREATE TABLE IF NOT EXISTS schema_version (version int NOT NULL)")
        row = db.execute("SELECT coalesce(max(version), 0) AS version FROM schema_version").fetchone()
        done = row["version"] if row else 0
        for number, text in enumerate(MIGRATIONS[done:], start=done + 1):
            db.execute(text)
            db.execute("INSERT INTO schema_version VALUES (%s)", (number,))
