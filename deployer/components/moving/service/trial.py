"""`move.py trial`: how long the new side takes, tried on a copy. The old side is neither asked nor held, and serves on.

Only on a machine that was made for this and is thrown away: its settings say so.
"""

from __future__ import annotations

import time
from typing import Any

import copies
import opening
import postgres
import state
import systemd
import warm
from ground import Failure
from state import FENCED


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the last pass of files, of the promotion, of all else that starts, and of the app."""
    what = "trying a switchover"
    state.side(config, "new", what)
    if not config.get("rehearsal") or not config["lead"]:
        raise Failure(what, "this machine was not made to be thrown away", "a mistake of ours")
    seconds: dict[str, float] = {}

    def lap(name: str, began: float) -> None:
        seconds[name] = round(time.monotonic() - began, 2)

    copies.stop()
    # As a switchover does while nobody waits.
    warm.warm(config)
    began = time.monotonic()
    done = copies.final(config)
    lap("last files", began)
    began = time.monotonic()
    database(config)
    lap("promote", began)
    began = time.monotonic()
    opening.open_new(config)
    lap("start", began)
    began = time.monotonic()
    opening.start_app(config)
    lap("app", began)
    return {"seconds": seconds, "bytes": done["bytes"]}


def database(config: dict[str, Any]) -> None:
    """The copy becomes a database of its own. The old side's stays the primary: nothing was fenced, nothing is claimed."""
    state.unmark(FENCED)
    if not systemd.active(str(config["database_unit"])):
        systemd.must_start("promoting the copy", [str(config["database_unit"])], 120)
    if (
        postgres.in_recovery()
        and postgres.sql("SELECT pg_promote(true, 60)", "promoting the copy", 70) != "t"
    ):
        raise Failure("promoting the copy", "it is not promoted within 60 s", "run it again")
