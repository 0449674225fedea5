"""When the move is done: the old side follows the new one, and the end of both."""

from __future__ import annotations

import time
from typing import Any

import changes
import fence
import postgres
import remote
import rules
import serving
import standby
import state
import systemd
from ground import Failure
from postgres import DATA
from state import FENCED, FORWARDING


def follow(config: dict[str, Any]) -> dict[str, Any]:
    """The database that ended cleanly goes on as a standby of the new one, from where it ended."""
    what = "following the new side"
    state.side(config, "old", what)
    now = fence.load()
    if now is None or now.id != config["id"] or now.state != "permitted" or not FENCED.exists():
        raise Failure(what, "this side did not give its permit in this move", "finish the switchover first")
    if not config["lead"]:
        return {"state": "none", "lag_bytes": 0}
    with state.lock("standby", 10, what):
        serving.let_go(config)
        unit = str(config["database_unit"])
        if not systemd.active(unit):
            # Its archiver may be at the last segment still.
            systemd.stop([unit], 120)
            found = postgres.control()
            if not (DATA / "standby.signal").exists() and found["state"] != "shut down":
                why = f"its database is not shut down cleanly but {found['state']}"
                raise Failure(what, why, "make a new standby of it by another move")
            remote.call(standby.peer(config), "slot", {"want": True}, 60)
            standby.tunnel(config)
            port = int(config["replication"]["port"])
            postgres.configure({**postgres.following(port), postgres.SYNC: None, postgres.PATIENCE: None})
            postgres.put(DATA / "standby.signal", "")
            systemd.must_start("starting the standby", [unit], 300)
            # Its own, for what it led before: it would keep WAL for nobody.
            postgres.slot(False)
        else:
            standby.tunnel(config)
        end = time.monotonic() + 60
        while not standby.receiving().get("streaming"):
            if time.monotonic() > end:
                why = "it does not stream within 60 s"
                raise Failure(what, why, "see `journalctl -u postgresql@17-main` on the old side")
            time.sleep(0.3)
    return followed(config)


def followed(config: dict[str, Any]) -> dict[str, Any]:
    """state: none, streaming, or broken."""
    now = fence.load()
    if config["side"] != "old" or not config["lead"] or now is None or now.state != "permitted":
        return {"state": "none", "lag_bytes": 0}
    if not (DATA / "standby.signal").exists():
        return {"state": "none", "lag_bytes": 0}
    live = standby.receiving()
    return {
        "state": "streaming" if live.get("streaming") else "broken",
        "lag_bytes": live.get("lag_bytes", 0),
    }


def end(config: dict[str, Any]) -> dict[str, Any]:
    """No tunnel, no slot, no record is left. What is closed stays closed; the live database is not touched."""
    now = fence.load()
    if now and now.state in (*rules.OPENABLE, "reopening"):
        fence.reopen(config, {}, "the move was ended")
    for unit in ("deploy-moving-conduct.service", standby.UNIT, "deploy-moving-files.service"):
        systemd.stop([unit], 20)
    state.unmark(FORWARDING)
    systemd.stop(["deploy-moving-forward.service"], 10)
    live = False
    if config["lead"] and postgres.answers():
        live = not postgres.in_recovery()
        if live:
            postgres.wait_for_none()
            # A standby that still runs would be back between two statements.
            postgres.sql(
                f"DO 'BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = ''{postgres.ROLE}'')"
                f" THEN ALTER ROLE {postgres.ROLE} NOLOGIN; END IF; END'",
                "shutting the standby out",
            )
            postgres.slot(False)
            postgres.sql(f"DROP ROLE IF EXISTS {postgres.ROLE}", "removing the role of the standby")
        else:
            systemd.stop([str(config["database_unit"])], 120)
    standby.remove_tunnel()
    for name in ("standby", "files", "conduct"):
        state.drop(name)
    changes.forget()
    if now and now.state != "permitted":
        state.drop("fence")
    return {"ended": True, "live": live}
