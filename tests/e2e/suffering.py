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
            # Whether there is a way back: a machine that was dead does not follow.
            follows = former.postmaster(former.leader) == "standby"
        if follows and not case.fresh:
            return place, other, ("--back",)
        moving.retire()
        crowd.outside.account = moving.account(place)
    return place, other, ("--from", place, "--to", other)


def attempted(moving: Moving, crowd: Crowd, case: Case) -> Attempt:
    """A move that has come to the case's phase."""
    for _ in range(2):
        old, new, words = ready(moving, crowd, case)
        left = bool(moving.move and moving.move.phase in (PREPARING, SETTLING))
        attempt = Attempt(moving, old, new, *words, "--max-pause", str(MAX_PAUSE))
        try:
            if attempt.until(PHASES[case.phase]):
                return attempt
            # The machines had gone on with what was left: it took place before this case came to its turn.
            assert left and attempt.end() == 0, f"it ended before {case.phase}: {attempt.error}"
        except BaseException:
            attempt.kill()
            raise
    raise AssertionError(f"two moves ended before {case.phase}")


def suffer(moving: Moving, crowd: Crowd, case: Case) -> str:
    """The move with the fault; in words. Afterwards one side serves. A move that did not take place is left under way: the
    next case goes on with it, or `end`."""
    before = len(crowd.log.failed())
    with ExitStack() as stack:
        looking = stack.enter_context(Looking(moving))
        stack.enter_context(crowd)
        attempt = attempted(moving, crowd, case)
        old, new = attempt.old, attempt.new
        try:
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
        serves = live(moving, BOOT) if code == 0 else ""
        if code == 0:
            ended = "went on by itself"
        else:
            with contextlib.suppress(AssertionError):
                serves = live(moving, BOOT)
            if serves == old and not case.alone and not PHASES["permitted"](attempt):
                ended = "the old side serves on"
            elif serves == new and case.phase == "settle":
                ended = "the new side serves"
            else:
                ended = end(moving)
                serves = live(moving, BOOT)
        time.sleep(3)
    assert looking.both == [], looking.both
    assert moving.primaries() == [serves] and moving.leads_to() == [moving.site(serves).address]
    crowd.check(failed=case.failed, twice=TWICE if case.failed else 0)
    lost = len(crowd.log.failed()) - before
    return f"{old} -> {new}: {meanwhile} served after {again:.0f} s; {ended}; {lost} failed requests"


def end(moving: Moving) -> str:
    """What is under way, run again until it has taken place; in words."""
    # On a loaded computer a probe may be red once, after the move was made: it says so, and is run again.
    new, told = inventory(moving.move.new), []
    for _ in range(2):
        run = moving.operator.run("migrate", "--yes", "--resume")
        if run.code == 0:
            return "ended by `migrate --resume`" + (f", after {told}" if told else "")
        told.append(str(json.loads(run.out.strip().splitlines()[-1]).get("why", ""))[:200])
    if moving.move.phase == MOVED:
        moving.operator.at(new).good("up", "--yes")
        return f"ended by `up`, after {told}"
    raise AssertionError((told, run.code, run.out[-3000:], run.err[-2000:]))
