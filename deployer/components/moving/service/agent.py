"""What the machines of a move ask of one another. `VERBS` is all of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

import changes
import conduct
import copies
import cutover
import fence
import opening
import postgres
import promote
import sending
import serving
import warm
from ground import Failure
from state import CLOSED

Body = dict[str, Any]


def facts(config: Body, body: Body) -> Body:
    """Of the database: size in bytes, where it is, which cluster it is."""
    row = postgres.sql(
        "SELECT sum(pg_database_size(oid)), pg_is_in_recovery() FROM pg_database", "measuring the database"
    ).split("|")
    system = postgres.sql("SELECT system_identifier FROM pg_control_system()")
    free = shutil.disk_usage(postgres.DATA).free
    return {"bytes": int(row[0]), "standby": row[1] == "t", "system": system, "free": free}


def hello(config: Body, body: Body) -> Body:
    return {"machine": config["machine"], "id": config["id"], "side": config["side"]}


def slot(config: Body, body: Body) -> Body:
    if postgres.in_recovery():
        raise Failure("making the standby's slot", "this database is a standby itself", "a mistake of ours")
    postgres.role(str(config["replication"]["password_verifier"]))
    return postgres.slot(bool(body["want"]))


def fence_state(config: Body, body: Body) -> Body:
    return fence.shown(fence.load())


def conduct_state(config: Body, body: Body) -> Body:
    return cutover.status(config)


def reopen(config: Body, body: Body) -> Body:
    return fence.reopen(config, body, "the switchover was given up")


def absent(config: Body, body: Body) -> Body:
    return {"absent": sending.absent(config, [str(path) for path in body["paths"]])}


def last_files(config: Body, body: Body) -> Body:
    copies.stop()
    return copies.final(config)


def stop_files(config: Body, body: Body) -> Body:
    """The passes end; one more, while all still serves, makes the last one short, and so does what is read beforehand.

    old_is_dead: there is nobody to copy from.
    """
    copies.stop()
    warm.warm(config)
    if body.get("old_is_dead"):
        return {"bytes": 0} | ({"as_of": copies.status(config).get("as_of", 0.0)} if config["copies"] else {})
    return {"bytes": copies.one_more(config) if CLOSED.exists() else 0}


def start_files(config: Body, body: Body) -> Body:
    return copies.start(config)


def fresh_files(config: Body, body: Body) -> Body:
    found = copies.status(config)
    if config["copies"] and not (found["passes"] and time.time() - found["ended_at"] < conduct.OLD_PASS):
        why = f"no pass of files has ended here lately ({(found.get('error') or {}).get('why', 'it was not begun')})"
        raise Failure("checking", why, "start them: `move.py files`")
    return {"passes": found["passes"], "bytes": found["bytes"]}


def open(config: Body, body: Body) -> Body:
    promote.opened(config, body)
    opening.open_new(config)
    return {"open": True}


def hold_too(config: Body, body: Body) -> Body:
    serving.hold_too(config, float(body["max_pause"]) + fence.BEYOND)
    return {}


def let_in(config: Body, body: Body) -> Body:
    serving.let_in(config)
    return {}


def start_app(config: Body, body: Body) -> Body:
    promote.opened(config, body)
    opening.start_app(config)
    serving.let_in(config)
    return {"started": config["app"]}


def settle(config: Body, body: Body) -> Body:
    promote.opened(config, body)
    return {"settled": True, "wrong": opening.settle(config)}


VERBS: dict[str, Callable[[Body, Body], Body]] = {
    "hello": hello,
    "facts": facts,
    "slot": slot,
    "absent": absent,
    "note-files": changes.note,
    "changed-files": changes.since,
    # of the old side
    "arm": fence.arm,
    "hold": fence.hold,
    "fence": fence.fence,
    "permit": fence.permit,
    "forward": fence.forward,
    "reopen": reopen,
    "fence-state": fence_state,
    # of the new side, asked by its own lead
    "conduct-state": conduct_state,
    "fresh-files": fresh_files,
    "start-files": start_files,
    "stop-files": stop_files,
    "last-files": last_files,
    "hold-too": hold_too,
    "let-in": let_in,
    "open": open,
    "start-app": start_app,
    "settle": settle,
}
