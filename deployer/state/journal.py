"""What we were about to do at a vendor, and what came of it: one JSON object a line, appended and synced.

An intent is on disk before the call that costs money, its outcome at once after it. So a run that was
killed in between is known to the next one, which looks for the thing by its labels.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployer.state.files import make_private, sync_folder, write_atomically

# bytes; above it, settled entries but the newest are dropped
BOUND = 256 << 10
KEPT = 200


@dataclass(frozen=True)
class Intent:
    """call: what is done ("create_machine"); name: of what; about: what else the next run must know."""

    id: str
    call: str
    name: str
    at: str
    about: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """The journal of one deployment, in `state_dir`/journal.jsonl. Never holds a secret. Threads may share it."""

    def __init__(self, state_dir: Path) -> None:
        make_private(state_dir)
        self.path = state_dir / "journal.jsonl"
        self._lock = threading.Lock()
        self._shorten()

    def intend(self, call: str, name: str, **about: Any) -> Intent:
        """Write down what is about to be done. Returns when it is on disk."""
        intent = Intent(secrets.token_hex(6), call, name, _now(), about)
        entry = {"intent": intent.id, "call": call, "name": name, "at": intent.at, "about": about}
        self._append(entry)
        return intent

    def done(self, intent: Intent, **result: Any) -> None:
        """Write down that it succeeded, with the vendor's id."""
        self._append({"done": intent.id, "at": _now(), "result": result})

    def failed(self, intent: Intent, why: str) -> None:
        """Write down that the vendor refused: nothing was made. Not for "no answer", which stays pending."""
        self._append({"failed": intent.id, "at": _now(), "why": why})

    def pending(self) -> list[Intent]:
        """Intents without an outcome, oldest first."""
        return list(_pending(self.entries()).values())

    def entries(self) -> list[dict[str, Any]]:
        """All lines that can be read. A torn one (killed while writing, disk full) had no call after it."""
        return list(self._read())

    def _read(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._lock:
            self._write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        new = not self.path.exists()
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line
            while line:
                line = line[os.write(handle, line) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        if new:
            sync_folder(self.path.parent)

    def _shorten(self) -> None:
        if not self.path.exists() or self.path.stat().st_size <= BOUND:
            return
        entries = self.entries()
        open_ids = set(_pending(entries))
        old, recent = entries[:-KEPT], entries[-KEPT:]
        kept = [entry for entry in old if entry.get("intent") in open_ids] + recent
        write_atomically(self.path, "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in kept))


@contextmanager
def intention(journal: Journal, call: str, name: str, **about: Any) -> Iterator[dict[str, Any]]:
    """Journal around one call: put the vendor's id into the dictionary that this gives.

    An exception leaves the intent pending, since nobody knows whether the vendor made the thing.
    """
    intent = journal.intend(call, name, **about)
    result: dict[str, Any] = {}
    yield result
    journal.done(intent, **result)


def _pending(entries: list[dict[str, Any]]) -> dict[str, Intent]:
    found: dict[str, Intent] = {}
    for entry in entries:
        if "intent" in entry:
            id = str(entry["intent"])
            call, name, at = (str(entry.get(key, "")) for key in ("call", "name", "at"))
            found[id] = Intent(id, call, name, at, dict(entry.get("about") or {}))
        for outcome in ("done", "failed"):
            found.pop(str(entry.get(outcome)), None)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
