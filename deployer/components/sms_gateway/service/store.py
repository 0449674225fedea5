"""The gateway's own spool: an SQLite file whose commits are on the disk (fsync) when they return.

Kannel's spool is not synced, so a message stays here, with its text, until a carrier has taken it. PostgreSQL may
be away: what belongs there waits here and is mirrored later (records.py).
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
  sid TEXT PRIMARY KEY, api TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
  sender TEXT NOT NULL, recipient TEXT NOT NULL, body TEXT, encoding TEXT NOT NULL, segments INTEGER NOT NULL,
  service TEXT NOT NULL DEFAULT '', callback TEXT NOT NULL DEFAULT '', status TEXT NOT NULL,
  error INTEGER NOT NULL DEFAULT 0, carrier TEXT NOT NULL DEFAULT '', refused_by TEXT NOT NULL DEFAULT '[]',
  next_try REAL NOT NULL DEFAULT 0, expires REAL NOT NULL, handed_over REAL NOT NULL DEFAULT 0,
  held INTEGER NOT NULL DEFAULT 0, changed INTEGER NOT NULL DEFAULT 1);
CREATE INDEX IF NOT EXISTS messages_status ON messages (status, next_try);
CREATE INDEX IF NOT EXISTS messages_changed ON messages (changed) WHERE changed = 1;
CREATE TABLE IF NOT EXISTS reports (
  id INTEGER PRIMARY KEY AUTOINCREMENT, sid TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
  carrier TEXT NOT NULL, stat TEXT NOT NULL, err TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inbound (
  sid TEXT PRIMARY KEY, at REAL NOT NULL, sender TEXT NOT NULL, recipient TEXT NOT NULL, body TEXT NOT NULL,
  carrier TEXT NOT NULL, changed INTEGER NOT NULL DEFAULT 1);
CREATE TABLE IF NOT EXISTS optouts (
  number TEXT PRIMARY KEY, at REAL NOT NULL, active INTEGER NOT NULL, changed INTEGER NOT NULL DEFAULT 1);
CREATE TABLE IF NOT EXISTS webhooks (
  id INTEGER PRIMARY KEY AUTOINCREMENT, url TEXT NOT NULL, form TEXT NOT NULL, made REAL NOT NULL,
  next_try REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS counters (
  day TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (day, kind, key));
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

# In the order of a message's life; a status never goes back to an earlier one.
STATUSES = ("queued", "sending", "sent", "delivered", "undelivered", "failed")
FINAL = frozenset({"delivered", "undelivered", "failed"})

# Seconds that a row stays after its end, and that a report is waited for, before PostgreSQL alone knows it.
KEEP_FINAL = 24 * 3600
KEEP_SENT = 72 * 3600


@dataclass(frozen=True)
class Message:
    """A message on its way. body is None once it needs no sending; times are seconds since 1970."""

    sid: str
    api: str
    sender: str
    recipient: str
    body: str | None = field(repr=False)
    encoding: str
    segments: int
    expires: float
    service: str = ""
    callback: str = ""
    created: float = 0
    updated: float = 0
    status: str = "queued"
    error: int = 0
    carrier: str = ""
    refused_by: tuple[str, ...] = ()
    next_try: float = 0
    handed_over: float = 0
    held: bool = False


class Capped(Exception):
    """A cap of the policy is reached. kind: "number", "prefix" or "day"."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"the cap per {kind} is reached")
        self.kind = kind


class Store:
    """One connection, one lock. Calls block for a disk sync: run them in a thread."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "busy_timeout=5000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction; on return it is on the disk."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            return self._db.execute(sql, tuple(values)).fetchall()

    def change(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> int:
        """One statement in a transaction of its own. Returns how many rows it changed."""
        with self._change() as db:
            return db.execute(sql, values).rowcount

    # --- messages ---

    def accept(self, message: Message, caps: Sequence[tuple[str, str, int]], held: bool = False) -> None:
        """Count the message against (kind, key, cap) of today and keep it; raises Capped and keeps nothing."""
        now = time.time()
        day = time.strftime("%Y-%m-%d", time.gmtime(now))
        with self._change() as db:
            for kind, key, cap in caps:
                row = db.execute(
                    "INSERT INTO counters VALUES (?, ?, ?, 1) "
                    "ON CONFLICT (day, kind, key) DO UPDATE SET used = used + 1 RETURNING used",
                    (day, kind, key),
                ).fetchone()
                if row[0] > cap:
                    raise Capped(kind)
            db.execute(
                "INSERT INTO messages (sid, api, created, updated, sender, recipient, body, encoding, segments, "
                "service, callback, status, expires, held) VALUES (?,?,?,?,?,?,?,?,?,?,?,'queued',?,?)",
                (
                    *(message.sid, message.api, now, now, message.sender, message.recipient, message.body),
                    *(message.encoding, message.segments, message.service, message.callback, message.expires),
                    int(held or message.held),
                ),
            )

    def message(self, sid: str) -> Message | None:
        rows = self.rows("SELECT * FROM messages WHERE sid = ?", (sid,))
        return _message(rows[0]) if rows else None

    def due(self, limit: int = 50) -> list[Message]:
        """Messages that may go out now, oldest first."""
        rows = self.rows(
            "SELECT * FROM messages WHERE status = 'queued' AND held = 0 AND next_try <= ? ORDER BY created LIMIT ?",
            (time.time(), limit),
        )
        return [_message(row) for row in rows]

    def in_flight(self, older_than: float) -> list[Message]:
        """Messages handed to Kannel more than `older_than` seconds ago, of which no carrier has said a word."""
        rows = self.rows(
            "SELECT * FROM messages WHERE status = 'sending' AND handed_over < ?", (time.time() - older_than,)
        )
        return [_message(row) for row in rows]

    def handed_over(self, sid: str, carrier: str) -> None:
        """Kannel has it. The text stays: its spool is not synced to the disk."""
        self.change(
            "UPDATE messages SET status = 'sending', carrier = ?, handed_over = ?, updated = ?, changed = 1 "
            "WHERE sid = ? AND status = 'queued'",
            (carrier, time.time(), time.time(), sid),
        )

    def again(self, sid: str, delay: float = 0, refused_by: Sequence[str] | None = None) -> None:
        """Back to the queue; due in `delay` seconds."""
        now = time.time()
        with self._change() as db:
            db.execute(
                "UPDATE messages SET status = 'queued', next_try = ?, updated = ?, changed = 1 "
                "WHERE sid = ? AND status IN ('queued', 'sending') AND body IS NOT NULL",
                (now + delay, now, sid),
            )
            if refused_by is not None:
                db.execute(
                    "UPDATE messages SET refused_by = ? WHERE sid = ?", (json.dumps(list(refused_by)), sid)
                )

    def advance(self, sid: str, status: str, error: int = 0, carrier: str = "") -> Message | None:
        """Move a message on in its life and drop its text once a carrier has it. None: it was there already."""
        now = time.time()
        earlier = [
            name for name in STATUSES if name not in FINAL and STATUSES.index(name) < STATUSES.index(status)
        ]
        marks = ",".join("?" * len(earlier))
        moved = self.change(
            "UPDATE messages SET status = ?, error = ?, carrier = CASE ? WHEN '' THEN carrier ELSE ? END, "
            f"updated = ?, changed = 1, body = NULL WHERE sid = ? AND status IN ({marks})",
            (status, error, carrier, carrier, now, sid, *earlier),
        )
        return self.message(sid) if moved else None

    def expired(self) -> list[str]:
        """Messages that nobody took in their time; those in Kannel expire there."""
        rows = self.rows("SELECT sid FROM messages WHERE status = 'queued' AND expires < ?", (time.time(),))
        return [row["sid"] for row in rows]

    def counts(self) -> dict[str, int]:
        """How many messages wait, are held and are with Kannel."""
        rows = self.rows(
            "SELECT status, held, count(*) AS n FROM messages WHERE status IN ('queued', 'sending') GROUP BY 1, 2"
        )
        found = {"queued": 0, "held": 0, "sending": 0}
        for row in rows:
            found["held" if row["held"] and row["status"] == "queued" else row["status"]] += row["n"]
        return found

    def purge(self, keep_days: int) -> None:
        """Drop what has ended and is in PostgreSQL. Without PostgreSQL for keep_days it goes all the same: a bound."""
        now = time.time()
        with self._change() as db:
            db.execute(
                "DELETE FROM messages WHERE (changed = 0 AND status IN ('delivered', 'undelivered', 'failed') "
                "AND updated < ?) OR (changed = 0 AND status = 'sent' AND updated < ?) "
                "OR (status NOT IN ('queued', 'sending') AND updated < ?)",
                (now - KEEP_FINAL, now - KEEP_SENT, now - keep_days * 86400),
            )
            old = now - keep_days * 86400
            db.execute("DELETE FROM reports WHERE at < ?", (old,))
            db.execute("DELETE FROM inbound WHERE at < ?", (old,))
            db.execute(
                "DELETE FROM counters WHERE day < ?", (time.strftime("%Y-%m-%d", time.gmtime(now - 86400)),)
            )

    # --- opt-outs, held queue ---

    def opt(self, number: str, out: bool) -> None:
        """Remember that a number wants (`out` False) or wants no more messages."""
        self.change(
            "INSERT INTO optouts (number, at, active) VALUES (?, ?, ?) "
            "ON CONFLICT (number) DO UPDATE SET at = excluded.at, active = excluded.active, changed = 1",
            (number, time.time(), int(out)),
        )

    def opted_out(self, number: str) -> bool:
        return bool(self.rows("SELECT 1 FROM optouts WHERE number = ? AND active = 1", (number,)))

    def holding(self) -> bool:
        """Whether new messages are kept and not sent (`queue hold`)."""
        return bool(self.rows("SELECT 1 FROM settings WHERE name = 'hold' AND value = '1'"))


def _message(row: sqlite3.Row) -> Message:
    values = dict(row)
    values.pop("changed")
    values["refused_by"] = tuple(json.loads(values["refused_by"]))
    values["held"] = bool(values["held"])
    return Message(**values)
