"""The new side goes live. Only with the permit; each step may be done again."""

from __future__ import annotations

import threading
import time
from typing import Any

import claims
import postgres
import remote
import standby
import state
import systemd
from ground import Failure
from state import FENCED

# Seconds that the old side is asked to forward; the names change after that.
FORWARD = 20


def run(conductor: Any) -> None:
    """conductor: of conduct.py, whose record says that the permit was given."""
    record, config = conductor.record, conductor.config
    if record["permit"] != "given":
        raise Failure("promoting", "there is no permit", "a mistake of ours")
    with conductor.phase("promote"):
        told: list[dict[str, Any]] = []
        claiming = threading.Thread(target=lambda: told.extend(_claim(config)), daemon=True)
        claiming.start()
        # Whatever is not the app starts meanwhile; nobody is led here before `forward`.
        remote.side_by_side(
            {"database": lambda: database(config), "others": lambda: conductor.others("open", 300)}
        )
        # Nothing serves before it is known how the claim went; with the permit it serves even without one.
        claiming.join(claims.PUT + 10)
        for one in told:
            conductor.tell(one["name"], one["text"], one["good"])
    with conductor.phase("app"):
        conductor.others("start-app", 1900)
    if record["old_is_dead"]:
        conductor.note(served_at=record["served_at"] or time.time())
    else:
        with conductor.phase("forward"):
            try:
                served = conductor.again("forward", FORWARD)
            except remote.Unreachable as silent:
                # Its permit was given, so it never serves again; the names, which change next, lead past it.
                conductor.tell("forwarding", f"the old side does not answer: {silent}", False)
                served = {"served_at": time.time()}
            conductor.note(served_at=record["served_at"] or served["served_at"])
        if record["held_at"]:
            record["seconds"]["pause"] = round(record["served_at"] - record["held_at"], 2)
    with conductor.phase("settle"):
        settle(config)
        for name, done in conductor.others("settle", 240).items():
            if done["wrong"]:
                # The service is there; what the app can do without kept nobody waiting.
                conductor.tell(f"units of {name}", f"does not run: {', '.join(done['wrong'])}", False)


def _claim(config: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        return claims.put(int(config["generation"]), needed=False)
    except Failure as failure:
        return [{"name": "claim", "good": False, "text": str(failure)}]


def database(config: dict[str, Any]) -> None:
    """The standby is the primary. A slot is there before: the old side follows from where it ended."""
    what, unit = "promoting the database", str(config["database_unit"])
    # The fence of an earlier move, in which this was the old side.
    state.drop("fence")
    state.unmark(FENCED)
    if not systemd.active(unit):
        systemd.must_start(what, [unit], 120)
    postgres.slot(True)
    # People wait: one client for both.
    told = postgres.sql(
        f"SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote(true, 60) ELSE true END; SHOW {postgres.SYNC}",
        what,
        75,
    ).splitlines()
    if told[:1] != ["t"]:
        raise Failure(what, "it is not promoted within 60 s", "run it again")
    if told[1:]:
        postgres.wait_for_none()


def settle(config: dict[str, Any]) -> None:
    """What a standby needs is taken away, and the other side gets what it needs to follow."""
    names = [*postgres.FOLLOWING, *postgres.AT_LEAST, postgres.SYNC]
    # ALTER SYSTEM takes no transaction of several statements.
    for name in names:
        postgres.sql(f"ALTER SYSTEM RESET {name}", "taking the standby's settings away")
    postgres.sql("SELECT pg_reload_conf()")
    standby.remove_tunnel()
    if verifier := config["replication"].get("password_verifier"):
        postgres.role(str(verifier))


def opened(config: dict[str, Any], body: dict[str, Any]) -> None:
    """A machine of the new side hears from its lead that it is live. Raises Failure for another move's word."""
    state.side(config, "new", "opening this side")
    if body.get("id") != config["id"]:
        raise Failure(
            "opening this side", f"{body.get('id')} is not the move of this machine", "a mistake of ours"
        )
    lead = state.lead(config)
    if lead["name"] == config["machine"]:
        known = state.load("conduct")
        if known.get("id") != config["id"] or known.get("permit") != "given":
            raise Failure("opening this side", "there is no permit", "a mistake of ours")
    else:
        answer = remote.call(lead, "conduct-state", {}, 20)
        if answer.get("id") != config["id"] or answer.get("permit") != "given":
            raise Failure(
                "opening this side", "the machine with the database has no permit", "a mistake of ours"
            )
