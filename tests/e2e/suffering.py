"""A fault of a move, carried out: `suffer`. One move can have many, one after the other; `end` ends what is under way."""

from __future__ import annotations

import contextlib
import json
import time
from contextlib import ExitStack

from deployer.core.moving import MOVED, PREPARING, SETTLING
from deployer.flow.moves import inventory
from tests.e2e.attempts import Attempt, Looking, live
from tests.e2e.crowd import Crowd
from tests.e2e.faults import BOOT, FAULTS, MAX_PAUSE, PHASES, SLACK, TWICE, Case
from tests.e2e.moving import Moving


def ready(moving: Moving, crowd: Crowd, case: Case) -> tuple[str, str, tuple[str, ...]]:
    """From where to where the next move leads, and the verb's words for it. One that was left under way is gone on with when
    the case's phase lies before it; otherwise it is ended first."""
    place, move = live(moving, BOOT), moving.move
    if move and (move.phase == PREPARING or (move.phase == SETTLING and case.phase == "settle")):
        old, new = inventory(move.old), inventory(move.new)
        return old, new, ("--from", old, "--to", new)
    if move and move.phase == SETTLING:
        end(moving)
        place, move = live(moving, BOOT), moving.move
    other = "aws" if place == "hetzner" else "hetzner"
    if move and move.phase == MOVED:
        follows = False
        with contextlib.suppress(AssertionError):
            former = moving.site(other)
            # Whether there is a way back: a machine that was dead does not follow, others do so after some seconds.
            deadline = time.monotonic() + 20
            while not follows and former.runs and time.monotonic() < deadline:
                follows = former.postmaster(former.leader) == "standby"
                time.sleep(0.5)
        if follows and not case.fresh:
            return place, other, ("--back",)
        moving.retire()
        crowd.outside.account = moving.account(place)
    return place, other, ("--from", place, "--to", other)


def suffer(moving: Moving, crowd: Crowd, case: Case) -> str:
    """The move with the fault; in words. Afterwards one side serves. A move that did not take place is left under way: the
    next case goes on with it, or `end`."""
    for _ in range(2):
        # Nobody is at it yet: it may replace what the crowd logs in with.
        old, new, words = ready(moving, crowd, case)
        left = bool(moving.move and moving.move.phase in (PREPARING, SETTLING))
        attempt = Attempt(moving, old, new, *words, "--max-pause", str(MAX_PAUSE))
        if told := _struck(moving, crowd, case, attempt, left):
            return told
    raise AssertionError(f"two moves ended before {case.phase}")


def _struck(moving: Moving, crowd: Crowd, case: Case, attempt: Attempt, left: bool) -> str:
    """ "" when a move that was left under way took place before it came to the case's phase: the machines had gone on."""
    before, old, new = len(crowd.log.failed()), attempt.old, attempt.new
    with ExitStack() as stack:
        looking = stack.enter_context(Looking(moving))
        stack.enter_context(crowd)
        try:
            if not attempt.until(PHASES[case.phase]):
                assert left and attempt.end() == 0, f"it ended before {case.phase}: {attempt.error}"
                return ""
            with FAULTS[case.fault](attempt):
                struck = time.monotonic()
                meanwhile = live(moving, MAX_PAUSE + SLACK) if case.serves else "nobody"
                again = time.monotonic() - struck
                code = attempt.end() if case.fault != "operator" else -9
                told = attempt.error if code > 0 else {}
                assert code <= 0 or (told.get("why") and told.get("next")), (code, told, attempt.err[-2000:])
        finally:
            attempt.kill()
        # All that was broken is whole again. One side serves, by itself or after the next run.
        ended, serves = _after(moving, case, attempt, code)
        time.sleep(3)
    assert looking.both == [], looking.both
    # Until the move has settled the names may lead to the old side, which forwards.
    places = {serves} if serves == old or moving.move.phase == MOVED else {old, new}
    assert moving.primaries() == [serves]
    assert moving.leads_to()[0] in {moving.site(place).address for place in places}
    crowd.check(failed=case.failed, twice=TWICE if case.failed else 0)
    lost = len(crowd.log.failed()) - before
    return f"{old} -> {new}: {meanwhile} served after {again:.0f} s; {ended}; {lost} failed requests"


def _after(moving: Moving, case: Case, attempt: Attempt, code: int) -> tuple[str, str]:
    """What became of the move, in words; and who serves."""
    if code == 0:
        return "went on by itself", live(moving, BOOT)
    serves = ""
    with contextlib.suppress(AssertionError):
        serves = live(moving, BOOT)
    if serves == attempt.old and not case.alone and not PHASES["permitted"](attempt):
        return "the old side serves on", serves
    if serves == attempt.new and case.phase == "settle":
        return "the new side serves", serves
    return end(moving), live(moving, BOOT)


def end(moving: Moving) -> str:
    """What is under way, run again until it has taken place; in words."""
    # On a loaded computer a probe may be red once, after the move was made: it says so, and is run again.
    new, told = inventory(moving.move.new), list[str]()
    for _ in range(2):
        run = moving.operator.run("migrate", "--yes", "--resume")
        if run.code == 0:
            return "ended by `migrate --resume`" + (f", after {told}" if told else "")
        told.append(str(json.loads(run.out.strip().splitlines()[-1]).get("why", ""))[:200])
    if moving.move.phase == MOVED:
        moving.operator.at(new).good("up", "--yes")
        return f"ended by `up`, after {told}"
    raise AssertionError((told, run.code, run.out[-3000:], run.err[-2000:]))
