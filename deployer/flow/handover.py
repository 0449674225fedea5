"""The cutover as the operator's computer sees it: start it on the machines, follow it, and what comes after it.

The machines carry it out by themselves (components/moving/service); when this computer dies, they end it or take it back.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any

from deployer.components.moving import actions
from deployer.components.moving.actions import Cutover, Fence
from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.flow import moves
from deployer.flow import up as bringing
from deployer.flow.moves import Sides
from deployer.flow.session import SSH

# Seconds in which the probes of the new side may turn green, whose first full backups run.
PATIENCE = 120
# Seconds between two looks; beyond its bound on the pause that a cutover may take; for one look.
EVERY, SLACK, LOOK = 1.0, 900, 20
# Beyond the longest pause that the new side may not answer before the old one is asked: a restart of it takes less.
SILENT = 60


class TakenBackError(DeployError):
    """The cutover did not take place; the old side serves."""


def cutover(sides: Sides, max_pause: float, *, old_is_dead: bool) -> Cutover:
    """Have the service handed over; ends when the new side serves.

    max_pause: seconds after which the old side opens again, unless it has given its permit. Raises TakenBackError when it
    was not handed over, DeployError when nobody may know or when the new side does not come up.
    """
    lead = sides.lead("new")
    request = actions.cutover_request(sides.move.id, max_pause, old_is_dead=old_is_dead)
    sides.ask("new", lead, "cutover", stdin=request, timeout=LOOK)
    return follow(sides, max_pause)


def follow(sides: Sides, max_pause: float) -> Cutover:
    """Follow a cutover that was started."""
    began = heard = time.monotonic()
    told = ""
    while True:
        found = _look(sides)
        if found is None and time.monotonic() - heard > max_pause + SILENT:
            raise _silence(sides, time.monotonic() - heard)
        if found is not None:
            heard = time.monotonic()
            if found.phase and found.phase != told:
                told = found.phase
                sides.new.sink(
                    Event("step", f"cutover: {found.phase}", machine=sides.lead("new"), status="start")
                )
            if found.state == "done":
                return found
            if found.state in ("failed", "unknown"):
                raise _failure(sides, found)
        if time.monotonic() - began > max_pause + SLACK:
            raise DeployError(
                "handing the service over",
                f"it has not ended after {max_pause + SLACK:.0f} s",
                "run the same command again: it asks both sides what they know",
                machine=sides.lead("new"),
            )
        time.sleep(EVERY)


def _silence(sides: Sides, seconds: float) -> DeployError:
    """The new side does not answer. By now the old one has opened or given its permit: its word says what is true."""
    lead = sides.lead("new")
    what = "handing the service over"
    why = f"the new side has not answered for {seconds:.0f} s"
    try:
        fence = sides.status("old").fence
    except DeployError as error:
        next = "see whether both machines run; deploy migrate --resume asks them what they know"
        return DeployError(what, f"{why}, and the old one does not answer: {error.why}", next, machine=lead)
    if fence.state == "permitted":
        return DeployError(
            what,
            f"{why}; {sides.move.old} has given its permit and stays closed, so {sides.move.new} is the live side",
            "start its machine, then run deploy migrate --resume",
            machine=lead,
        )
    return TakenBackError(
        what,
        f"{why}. {sides.move.old} serves as before ({_fence(fence)})",
        "see whether the new machine runs, then run the same command again",
        machine=lead,
    )


def _look(sides: Sides) -> Cutover | None:
    """What the new side says; None where it does not answer now. It goes on without us."""
    lead = sides.lead("new")
    try:
        return sides.progress()
    except DeployError:
        with contextlib.suppress(DeployError):
            session = sides.new
            session.connected(session.connect({lead: sides.machines["new"][lead]}, SSH), SSH)
        return None


def _failure(sides: Sides, found: Cutover) -> DeployError:
    error, lead = found.error, sides.lead("new")
    what = error.get("what") or f"handing the service over ({found.phase})"
    why = error.get("why") or "it failed, and did not say why"
    if found.state == "unknown":
        return DeployError(
            what,
            f"{why}. Both sides are closed: the old one may have given its permit, and its answer did not arrive",
            f"deploy migrate --resume asks it again; when it is gone for good: deploy migrate --resume --old-is-dead "
            f"(it says what it found: {_old(sides)})",
            machine=lead,
        )
    if found.permit == "given":
        return DeployError(
            what,
            f"{why}. {sides.move.new} is the live side, and does not serve yet",
            error.get("next") or "mend what is named and run deploy migrate --resume: it goes on from there",
            machine=lead,
        )
    return TakenBackError(
        what,
        f"{why}. {_stays(sides)}",
        error.get("next") or "run the same command again; the copies are kept up to date meanwhile",
        machine=lead,
    )


def _stays(sides: Sides) -> str:
    """Nothing was handed over."""
    try:
        fence = sides.status("old").fence
    except DeployError as error:
        return f"Nothing was handed over: the service is still {sides.move.old}'s, which does not answer ({error.why})"
    return f"{sides.move.old} serves as before ({_fence(fence)})"


def _old(sides: Sides) -> str:
    """The old side's own word."""
    try:
        fence = sides.status("old").fence
    except DeployError as error:
        return f"it does not answer: {error.why}"
    return _fence(fence)


def _fence(fence: Fence) -> str:
    words = {
        "none": "it was never asked to hold anything",
        "armed": "it is about to hold requests",
        "held": "it holds requests, and opens by itself",
        "fenced": "it is closed, and opens by itself",
        "permitted": "it has given its permit, and stays closed",
        "reopened": "it has opened again",
    }
    text = words.get(fence.state, fence.state)
    return f"{text}: {fence.why}" if fence.why else text


def reopened(sides: Sides) -> None:
    """Have the old side open again, for who gives a move up. Raises DeployError after its permit."""
    sides.ask("old", sides.lead("old"), "reopen")


# --- after it ---


def settle(sides: Sides, run: bringing.Run) -> dict[str, Any]:
    """The new side is live: the bundle, the claims, the names and all that `up` sees to; the summary."""
    moves.moved(sides)
    # Its first backups begin, and keep a small machine busy.
    return bringing.converge(sides.new, replace(run, record=False, new=frozenset(), patience=PATIENCE))


def keep_way_back(sides: Sides) -> str:
    """The old side becomes the new one's standby, so that the same move leads back; what became of it, in words."""
    lead = sides.lead("old")
    try:
        sides.ask("old", lead, "follow")
        deadline = time.monotonic() + moves.WORK
        while time.monotonic() < deadline:
            now = sides.status("old").follow
            if now.state == "streaming":
                return f"{sides.move.old} follows: deploy migrate --back leads there, until deploy retire"
            if now.state == "failed":
                return f"no way back yet: {now.error.get('why') or 'the old side does not follow'}"
            time.sleep(EVERY)
    except DeployError as error:
        return f"no way back yet: {error.why}"
    return f"no way back yet: {sides.move.old} has not begun to follow after {moves.WORK} s"
