"""`move.py serve`: what a peer's SSH key may do here, and nothing else. sshd starts it in place of the peer's command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import conduct
import copies
import cutover
import fence
import postgres
import promote
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
    return {"absent": copies.absent(config, [str(path) for path in body["paths"]])}


def last_files(config: Body, body: Body) -> Body:
    copies.stop()
    return copies.final(config)


def stop_files(config: Body, body: Body) -> Body:
    """The passes end; one more, while all still serves, makes the last one short, and so does what is read beforehand."""
    copies.stop()
    warm.warm(config)
    if CLOSED.exists():
        return {"bytes": copies.one_pass(config)}
    return {"bytes": 0}


def start_files(config: Body, body: Body) -> Body:
    return copies.start(config)


def fresh_files(config: Body, body: Body) -> Body:
    found = copies.status(config)
    if config["copies"] and not (found["passes"] and time.time() - found["ended_at"] < conduct.OLD_PASS):
        why = f"no pass of files has ended here lately ({(found.get('error') or {}).get('why', 'it was not begun')})"
        raise Failure("checking", why, "start them: `move.py files`")
    return {"passes": found["passes"]}


def open(config: Body, body: Body) -> Body:
    promote.opened(config, body)
    serving.open_new(config)
    return {"open": True}


def start_app(config: Body, body: Body) -> Body:
    promote.opened(config, body)
    serving.start_app(config)
    return {"started": config["app"]}


def settle(config: Body, body: Body) -> Body:
    promote.opened(config, body)
    return {"settled": True, "wrong": serving.settle(config)}


VERBS: dict[str, Callable[[Body, Body], Body]] = {
    "hello": hello,
    "facts": facts,
    "slot": slot,
    "absent": absent,
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
    "open": open,
    "start-app": start_app,
    "settle": settle,
}


def serve(config: Body) -> int:
    """The peer's command stands in SSH_ORIGINAL_COMMAND: `agent VERB`, or rsync's other end."""
    try:
        words = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    except ValueError as error:
        raise Failure("serving a peer", str(error), "a mistake of ours") from None
    if words[:1] == ["rsync"]:
        command = copies.server(config, words)
        os.execvp(command[0], command)
    if len(words) != 2 or words[0] != "agent" or words[1] not in VERBS:
        raise Failure(
            "serving a peer", f"{' '.join(words[:2]) or 'a shell'} is not for peers", "a mistake of ours"
        )
    text = sys.stdin.read(1 << 16)
    body = json.loads(text) if text.strip() else {}
    if not isinstance(body, dict):
        raise Failure("serving a peer", "its words are no JSON object", "a mistake of ours")
    print(json.dumps(VERBS[words[1]](config, body)), flush=True)
    return 0
