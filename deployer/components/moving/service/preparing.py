"""Before a move: folders, marks, the role of the standby."""

from __future__ import annotations

import py_compile
from pathlib import Path
from typing import Any

import fence
import mail
import opening
import postgres
import serving
import state
import systemd
from ground import Failure
from state import CLOSED, FENCED


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    """Folders, marks, the role. A machine of the new side is closed from here until it is promoted."""
    compiled()
    for folder in (state.STATE, state.RUN):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config["side"] == "new" and not promoted(config):
        if systemd.active(systemd.GUARD):
            if not left():
                why = "the guard says that this machine may serve: it is of the live side"
                raise Failure("closing the new side", why, "see `deploy status`")
            # It looks for the other side's claim once a minute, and a way back may begin before it has.
            systemd.stop([systemd.GUARD], 20)
        if not CLOSED.exists() and (busy := systemd.running(serving.units(config, "app"))):
            why = f"something serves on it: {', '.join(busy)}"
            raise Failure("closing the new side", why, "see whether it is the live one: deploy status")
        state.mark(FENCED)
        state.mark(CLOSED)
        mail.queues(config)
        # Of an earlier move, in which this was the old side.
        opening.end_quiet(config)
    if config["side"] == "old" and config["lead"]:
        postgres.role(str(config["replication"]["password_verifier"]))
    return {"prepared": True}


def left() -> bool:
    """This machine gave its permit in the last move, and has been closed since."""
    given = fence.load()
    return CLOSED.exists() and given is not None and given.state == "permitted"


def compiled() -> None:
    """Each word of a peer starts Python anew; what it would compile each time lies ready. A hash tells a newer source."""
    ours = Path(__file__).resolve().parent
    for path in (*ours.glob("*.py"), *ours.parent.glob("backups/*.py")):
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        py_compile.compile(str(path), doraise=False, quiet=1, invalidation_mode=mode)


def promoted(config: dict[str, Any]) -> bool:
    known = state.load("conduct")
    return known.get("id") == config["id"] and known.get("permit") == "given"
