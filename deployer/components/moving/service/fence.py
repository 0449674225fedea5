"""The fence of the old side. What may happen stands in rules.py; the dead-man in deadman.py.

One lock: every verb holds it from reading the record to the last of its work, and so does the dead-man. What a verb
decided is on the disk before it acts, and before it answers. All of a verb's work has bounds, so the dead-man, which
waits for the lock for ever, gets it. On a side with several machines the one with the database decides and orders the
others; those have a record too, and past their deadline ask before they open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import opening
import postgres
import remote
import rules
import serving
import state
import systemd
from ground import Failure
from rules import Asked, Fence
from state import now

UNIT = "deploy-moving-fence.service"
# Seconds: of being armed, without a pause; that a verb waits for another one.
ARMED, WAIT = 120, 90
# Seconds that the standby may take to confirm what is written, once requests are held.
CONFIRMS = 2
# Seconds that the proxies hold beyond the longest pause: what opens them first is forwarding, or reopening.
BEYOND = 120


def load() -> Fence | None:
    return rules.parse(state.load("fence"))


def save(fence: Fence) -> Fence:
    state.save("fence", fence.body())
    return fence


def asked(body: dict[str, Any]) -> Asked:
    return Asked(str(body["id"]), int(body["attempt"]))


def left(fence: Fence) -> float:
    """Seconds until its deadline, for the work of a verb; never none, so that a stop is tried at all."""
    return max(fence.deadline - now(), 1.0)


def _locked(what: str) -> Any:
    return state.lock("fence", WAIT, what)


# --- verbs, in their order ---


def arm(config: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The dead-man lives; then the carriers' programs and the timers are stopped, and the standby is waited for."""
    state.side(config, "old", "arming the fence")
    who = asked(body)
    with _locked("arming the fence"):
        if why := rules.due(load(), now(), state.boot()):
            # Killed before its dead-man lived, it would stand in the way for ever.
            put_back(config, why, None)
        fence = _arm(who, bool(body.get("peer")))
        if fence.state != "armed":
            # It was asked again after a silence, and is further already.
            return shown(fence)
        if not fence.peer:
            order(config, body, "arm", peer=True)
        serving.quiet(config)
        if not fence.peer:
            synchronous(fence)
        return shown(fence)


def _arm(who: Asked, peer: bool) -> Fence:
    fence = save(rules.arm(load(), who, now(), state.boot(), ARMED, peer))
    # Anew: one that is just about to end would not see this record. It is at work when this returns (Type=notify).
    done = systemd.call("restart", UNIT, timeout=30)
    if done.returncode or not systemd.active(UNIT):
        save(replace(fence, state="reopened", why="the dead-man did not start"))
        raise Failure(
            "arming the fence", f"the dead-man does not start: {done.stderr.strip()}", f"see {UNIT}"
        )
    return fence


def synchronous(fence: Fence) -> None:
    """A commit is acknowledged when the standby has it too. Raises Failure when there is no standby for that."""
    what = "waiting for the standby"
    if _streaming(False) != "1":
        raise Failure(what, "no standby streams from here", "see `move.py status` on the new side")
    postgres.sql("CHECKPOINT", "writing a checkpoint", min(60, left(fence)))
    postgres.sql(f"ALTER SYSTEM SET {postgres.PATIENCE} = '{postgres.SECONDS}s'", what)
    postgres.sql(f"ALTER SYSTEM SET {postgres.SYNC} = '{postgres.STANDBY}'", what)
    postgres.sql("SELECT pg_reload_conf()", what)
    end = time.monotonic() + min(10, left(fence))
    while _streaming(True) != "1":
        if time.monotonic() > end:
            raise Failure(what, "it does not confirm commits within 10 s", "see the database's journal")
        time.sleep(0.1)


def _streaming(confirming: bool) -> str:
    """How many standbys of ours there are."""
    more = " AND sync_state = 'sync'" if confirming else ""
    return postgres.sql(
        f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{postgres.STANDBY}'"
        f" AND state = 'streaming'{more}"
    )


def hold(config: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The pause begins: requests are held; app, gateway, mail and cache end. The deadline is that of the pause."""
    who, pause = asked(body), float(body["max_pause"])
    with _locked("holding requests"):
        if not systemd.active(UNIT):
            raise Failure("holding requests", "the dead-man does not run", f"see `systemctl status {UNIT}`")
        before = load()
        if before and before.state == "armed" and not before.peer and _streaming(True) != "1":
            raise Failure("holding requests", "the standby does not confirm commits", "see its journal")
        fence = save(rules.hold(before, who, now(), state.boot(), pause, time.time()))
        if fence.peer:
            _part(config, fence, str(body["part"]))
        else:
            for part in ("hold", "drain", "close"):
                if part == "close" and not state.CLOSED.exists():
                    _still_confirms()
                order(config, body, "hold", lambda part=part: _part(config, fence, part), part=part)  # type: ignore[misc]
            # `fence` waits for its end; until it asks, the last checkpoint is on its way.
            serving.begin_to_stop_database(config)
        return shown(fence)


def _still_confirms() -> None:
    """Writes under way wait for the standby. When it has gone silent, ending the app would cut them off: this side opens
    again at once instead, and they end well."""
    end = time.monotonic() + CONFIRMS
    asked = (
        f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{postgres.STANDBY}'"
        " AND sync_state = 'sync' AND flush_lsn >= pg_current_wal_flush_lsn()"
    )
    while postgres.sql(asked) != "1":
        if time.monotonic() > end:
            why = f"the standby confirmed nothing for {CONFIRMS} s: requests under way would be cut off"
            raise Failure("holding requests", why, "see `move.py status` on the new side; then run it again")
        time.sleep(0.1)


def _part(config: dict[str, Any], fence: Fence, part: str) -> None:
    if part == "hold":
        serving.hold(config, fence.max_pause + BEYOND)
    elif part == "drain":
        serving.drain(config, left(fence))
    else:
        serving.close(config, left(fence))


def fence(config: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The database has ended cleanly and can start as a standby only. Says where it ended."""
    what = "fencing the database"
    with _locked(what):
        now_ = rules.held(what, load(), asked(body), now(), state.boot())
        if now_.state == "held":
            lsn = serving.stop_database(config, min(left(now_), systemd.STOP))
            now_ = save(rules.fenced(now_, lsn))
        return shown(now_)


def permit(config: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The one permit to promote, on the disk before it is told."""
    state.side(config, "old", "giving the permit to promote")
    with _locked("giving the permit to promote"):
        before = load()
        after = rules.permit(before, asked(body), now(), state.boot(), time.time())
        if after != before:
            serving.must_be_shut(config)
            save(after)
        return shown(after)


def forward(config: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """What is held goes to the new side. Only after the permit."""
    with _locked("forwarding to the new side"):
        fence = load()
        if fence and fence.peer and rules.same(fence, asked(body)) and fence.state != "permitted":
            fence = save(rules.told(fence, float(body["permitted_at"])))
        if fence is None or not rules.same(fence, asked(body)) or fence.state != "permitted":
            raise Failure("forwarding to the new side", "no permit was given here", rules.STALE)
        more = {"permitted_at": fence.permitted_at}
        if fence.peer:
            serving.forward(config)
        else:
            order(config, body, "forward", lambda: serving.forward(config), **more)
        return {**shown(fence), "served_at": time.time()}


def reopen(config: dict[str, Any], body: dict[str, Any], why: str) -> dict[str, Any]:
    """Everything is put back, unless the permit was given. body: {} for the operator and the dead-man."""
    who = asked(body) if body else None
    with _locked("reopening this side"):
        return put_back(config, why, who)


def put_back(config: dict[str, Any], why: str, who: Asked | None) -> dict[str, Any]:
    current = load()
    fence = rules.reopen(current, why, who)
    if fence is None:
        return shown(current)
    save(fence)
    wrong = opening.reopen(config)
    if not fence.peer:
        for one in state.own_machines(config):
            if one["name"] != config["machine"]:
                try:
                    remote.call(one, "reopen", {"id": fence.id, "attempt": fence.attempt}, 240)
                except Failure:
                    # It asks by itself as soon as it can.
                    continue
    if wrong:
        raise Failure(
            "reopening this side",
            f"does not run: {', '.join(wrong)}",
            "it is tried again every second; see `systemctl status` of it",
        )
    return shown(save(rules.reopened(fence)))


def order(
    config: dict[str, Any],
    body: dict[str, Any],
    verb: str,
    own: Callable[[], None] | None = None,
    **more: object,
) -> None:
    """The same of all machines of this side at once. Raises the first Failure."""
    work: dict[str, Any] = {"": own} if own else {}
    for one in state.own_machines(config):
        if one["name"] != config["machine"]:
            request = {**body, **more}
            work[one["name"]] = lambda one=one, request=request: remote.call(one, verb, request, WAIT)
    if work:
        remote.side_by_side(work)


def shown(fence: Fence | None) -> dict[str, Any]:
    """For answers and for `status`. deadline: seconds since 1970."""
    if fence is None:
        return {"state": "none", "id": "", "attempt": 0, "deadline": 0.0, "why": ""}
    here = fence.boot == state.boot()
    body = fence.body()
    body["deadline"] = round(time.time() + fence.deadline - now(), 3) if here else 0.0
    return body
