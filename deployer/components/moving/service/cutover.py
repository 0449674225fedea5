"""How a switchover is asked for, and how far it is. conduct.py does it."""

from __future__ import annotations

from typing import Any

import state
import systemd
from ground import Failure, last

UNIT = "deploy-moving-conduct.service"
Settings = dict[str, Any]


def cutover(config: Settings, request: dict[str, Any]) -> dict[str, Any]:
    """Begin, or go on with, or attach to the switchover of this id."""
    what = "switching over"
    state.side(config, "new", what)
    if not config["lead"] or request.get("id") != config["id"]:
        raise Failure(
            what, f"{request.get('id')} is not the move of this machine ({config['id']})", "a mistake of ours"
        )
    pause = float(request.get("max_pause") or 0)
    with state.lock("conduct", 10, what):
        known = state.load("conduct")
        if systemd.states([UNIT])[UNIT] in ("active", "activating", "deactivating"):
            return status(config)
        if known.get("id") == config["id"] and known["state"] == "done":
            return status(config)
        if not 1 <= pause <= 600:
            raise Failure(what, f"a longest pause of {pause:g} s makes no sense", "say 1 to 600 seconds")
        dead = bool(request.get("old_is_dead"))
        if known.get("id") != config["id"] or known["permit"] == "none":
            former = int(known.get("attempt", 0)) if known.get("id") == config["id"] else 0
            known = {"id": config["id"], "attempt": former + 1, "permit": "none", "phase": "", "seconds": {}}
            known |= {"held_at": 0.0, "served_at": 0.0, "checks": []}
        # With its permit asked or given the same attempt goes on.
        known |= {"state": "running", "error": None, "max_pause": pause, "old_is_dead": dead}
        state.save("conduct", known)
    systemd.call("reset-failed", UNIT)
    done = systemd.call("start", UNIT)
    if done.returncode:
        raise Failure(what, last(done.stderr), f"see `systemctl status {UNIT}`")
    return status(config)


def status(config: Settings) -> dict[str, Any]:
    empty = {"state": "none", "phase": "", "permit": "none", "id": "", "seconds": {}, "held_at": 0.0}
    empty |= {"served_at": 0.0, "error": None, "checks": [], "attempt": 0}
    known = state.load("conduct")
    return {**empty, **known} if known.get("id") == config["id"] else empty
