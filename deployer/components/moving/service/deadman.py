"""The dead-man of the old side: `move.py fence`. It opens what nobody goes on with, under the fence's lock."""

from __future__ import annotations

import time
from typing import Any

import fence
import postgres
import remote
import rules
import serving
import state
import systemd
from ground import Failure
from rules import Fence
from state import now

# Seconds between two looks; without the standby until commits are no longer waited for.
LOOK, GONE = 0.25, 3.0


def main() -> int:
    """The unit. Where the move was ended and its settings are gone, there is nothing to do."""
    try:
        config = state.settings()
    except Failure:
        if rules.due(fence.load(), now(), state.boot()):
            raise
        systemd.ready()
        return 0
    return dead_man(config)


def dead_man(config: dict[str, Any]) -> int:
    """Runs as long as this side may have to be reopened, or has something to end after its permit."""
    watch = Watch()
    first = True
    while True:
        record = fence.load()
        why = rules.due(record, now(), state.boot())
        if why:
            with state.lock("fence", None):
                # Under the lock: a verb may have decided otherwise meanwhile.
                record = fence.load()
                if why := rules.due(record, now(), state.boot()):
                    if first:
                        # Reopening may take longer than systemd waits for a start.
                        systemd.ready()
                        first = False
                    open_if_allowed(config, record, why)
        if first:
            systemd.ready()
            first = False
        record = fence.load()
        if record is None or record.state == "reopened":
            return 0
        if record.state == "permitted":
            serving.let_go(config)
            return 0
        watch.look(record)
        time.sleep(LOOK)


def open_if_allowed(config: dict[str, Any], record: Fence | None, why: str) -> None:
    """The machine with the database decides for itself; another one asks it."""
    assert record
    if record.peer and record.state != "reopening":
        try:
            answer = remote.call(state.lead(config), "fence-state", {}, 10)
        except Failure:
            # Not known: nothing opens here.
            return
        same = (answer["id"], answer["attempt"]) == (record.id, record.attempt)
        if same and answer["state"] == "permitted":
            fence.save(rules.told(record, float(answer["permitted_at"])))
            return
        if answer["state"] not in ("none", "reopening", "reopened"):
            return
        why = f"the machine with the database serves again: {answer.get('why') or 'it knows of no move'}"
    fence.put_back(config, why, None)


class Watch:
    """While commits wait for the standby: once it is gone, or silent, they do not."""

    def __init__(self) -> None:
        self.good = self.looked = time.monotonic()
        self.stuck = ""

    def look(self, record: Fence) -> None:
        if record.peer or record.state != "armed" or time.monotonic() - self.looked < 1:
            return
        self.looked = time.monotonic()
        try:
            # Nothing while nobody waits; else how far the standby is, "gone" when there is none.
            found = postgres.sql(
                f"SELECT coalesce((SELECT flush_lsn::text FROM pg_stat_replication"
                f" WHERE application_name = '{postgres.STANDBY}' AND state = 'streaming'), 'gone')"
                f" WHERE current_setting('{postgres.SYNC}') <> '' AND (EXISTS (SELECT FROM pg_stat_activity"
                " WHERE wait_event = 'SyncRep') OR NOT EXISTS (SELECT FROM pg_stat_replication"
                f" WHERE application_name = '{postgres.STANDBY}' AND state = 'streaming'))",
                timeout=6,
            )
        except Failure:
            return
        if not found or found != self.stuck:
            self.good, self.stuck = time.monotonic(), found
        elif time.monotonic() - self.good > GONE:
            postgres.wait_for_none()
