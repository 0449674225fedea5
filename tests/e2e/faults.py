"""Faults of a move as data: when, what, and what is true then. `suffer` carries one out."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from tests.e2e.attempts import Attempt, Looking, live
from tests.e2e.crowd import Crowd
from tests.e2e.moving import Moving, Site
from tests.rig.cutting import Cut, no_updates

# Seconds: of the verb's --max-pause in these cases; what a loaded computer adds; a machine's boot with all services.
MAX_PAUSE, SLACK, BOOT = 20, 15, 120
# Letters and texts that may come twice when a side dies: those in flight.
TWICE = 6


@dataclass(frozen=True)
class Case:
    """phase: a key of PHASES, when the fault strikes; fault: a key of FAULTS.

    fresh: the target must be made anew; failed: requests may fail, as when the machine that serves is dead; serves:
    somebody serves again within --max-pause although the fault lasts.
    """

    phase: str
    fault: str
    fresh: bool = False
    failed: bool = False
    serves: bool = True

    def __str__(self) -> str:
        return f"{self.phase}-{self.fault}"


# --- when ---


def _stage(name: str) -> Callable[[Attempt], bool]:
    return lambda attempt: attempt.said(name)


def _fence(*states: str) -> Callable[[Attempt], bool]:
    return lambda attempt: attempt.state("old", "fence").get("state") in states


def _standby(attempt: Attempt) -> bool:
    """Its database takes the stream."""
    if not attempt.said("copy"):
        return False
    new = attempt.site("new")
    return bool(new and new.runs and new.console("pgrep -f walreceiver", check=False).strip())


def _forwards(attempt: Attempt) -> bool:
    old = attempt.site("old")
    return bool(old and (old.disk / "var/lib/deploy/moving/forwarding").exists())


PHASES: dict[str, Callable[[Attempt], bool]] = {
    "preflight": _stage("preflight"),
    "target": _stage("target"),
    "channel": _stage("channel"),
    "copy": _stage("copy"),
    "standby": _standby,
    "cutover": _stage("cutover"),
    # The old side's word, from its disk: a look every few milliseconds.
    "armed": _fence("armed", "held", "fenced", "permitted"),
    "held": _fence("held", "fenced", "permitted"),
    "fenced": _fence("fenced", "permitted"),
    "permitted": _fence("permitted"),
    "forwards": _forwards,
    "settle": _stage("settle"),
}

# --- what ---


def _side(attempt: Attempt, side: str) -> Site:
    site = attempt.site(side)
    assert site, f"the {side} side has no machine"
    return site


@contextmanager
def _operator(attempt: Attempt) -> Iterator[None]:
    attempt.kill()
    yield


@contextmanager
def _engine(attempt: Attempt) -> Iterator[None]:
    attempt.kill_engines()
    yield


def _dead(side: str) -> Callable[[Attempt], AbstractContextManager[None]]:
    @contextmanager
    def fault(attempt: Attempt) -> Iterator[None]:
        _side(attempt, side).pull_the_plug()
        try:
            yield
        finally:
            attempt.moving.switch_on(attempt.old if side == "old" else attempt.new)

    return fault


@contextmanager
def _cut(attempt: Attempt) -> Iterator[None]:
    wire = Cut(_side(attempt, "old").folder, _side(attempt, "new").folder)
    try:
        wire.both()
        yield
    finally:
        wire.heal()


@contextmanager
def _names(attempt: Attempt) -> Iterator[None]:
    """Both vendors of DNS: one answers 500, the other takes no updates."""
    faults = attempt.moving.hetzner.faults
    rule = faults.error(500, "server_error", path=r"/zones.*", times=None)
    try:
        with no_updates(attempt.moving.rig.internet.address):
            yield
    finally:
        faults.rules.remove(rule)


@contextmanager
def _disk(attempt: Attempt) -> Iterator[None]:
    """Too small for the database. What lies below comes back."""
    new, where = _side(attempt, "new"), "/var/lib/postgresql"
    new.console(
        f"mount -t tmpfs -o size=20m,mode=755 none {where} && chown postgres: {where} &&"
        f" install -d -o postgres -g postgres {where}/17"
    )
    try:
        yield
    finally:
        new.console(f"umount -l {where}", check=False)


@contextmanager
def _stuck(attempt: Attempt) -> Iterator[None]:
    """The receiver of the stream is stopped whenever there is one."""
    new, ended = _side(attempt, "new"), threading.Event()

    def stop() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError, AssertionError):
                new.console("pkill -STOP -f walreceiver", check=False)
            ended.wait(0.5)

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    try:
        yield
    finally:
        ended.set()
        stopper.join(70)
        new.console("pkill -CONT -f walreceiver", check=False)


@contextmanager
def _app(attempt: Attempt) -> Iterator[None]:
    new, folder = _side(attempt, "new"), "/etc/systemd/system/matrix-synapse.service.d"
    new.console(
        f"mkdir -p {folder} && printf '[Service]\\nExecStartPre=/bin/false\\n' >{folder}/zz-broken.conf"
        " && systemctl daemon-reload"
    )
    try:
        yield
    finally:
        new.console(
            f"rm -f {folder}/zz-broken.conf; systemctl daemon-reload; systemctl reset-failed", check=False
        )


FAULTS: dict[str, Callable[[Attempt], AbstractContextManager[None]]] = {
    "operator": _operator,
    "engine": _engine,
    "old": _dead("old"),
    "new": _dead("new"),
    "cut": _cut,
    "names": _names,
    "disk": _disk,
    "stuck": _stuck,
    "app": _app,
}

CASES = (
    *(Case(phase, "operator", fresh=phase in ("target", "copy")) for phase in PHASES),
    *(Case(phase, "engine", fresh=phase == "copy") for phase in ("target", "channel", "copy", "settle")),
    *(Case(phase, "old", failed=True, serves=False) for phase in ("copy", "armed", "held", "fenced")),
    Case("permitted", "old", failed=True),
    Case("settle", "old", failed=True),
    *(Case(phase, "new", failed=phase == "fenced") for phase in ("copy", "armed", "held", "fenced")),
    Case("permitted", "new", failed=True, serves=False),
    Case("settle", "new", failed=True, serves=False),
    *(Case(phase, "cut") for phase in ("channel", "copy", "armed", "held")),
    # Whether the permit was asked for before is chance.
    Case("fenced", "cut", failed=True, serves=False),
    Case("settle", "cut", failed=True),
    *(Case(phase, "names") for phase in ("preflight", "cutover", "settle")),
    Case("channel", "disk", fresh=True),
    Case("standby", "stuck"),
    Case("armed", "stuck"),
    Case("held", "app", failed=True, serves=False),
)


# --- carried out ---


def ready(moving: Moving, crowd: Crowd, case: Case) -> tuple[str, str, tuple[str, ...]]:
    """From where to where the next move leads, and the verb's words for it. Ends what was left under way."""
    place, move = live(moving, BOOT), moving.move
    if move and move.phase in ("preparing", "settling"):
        moving.moved("--resume")
        place, move = live(moving, BOOT), moving.move
    other = "aws" if place == "hetzner" else "hetzner"
    if move and move.phase == "moved":
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


def suffer(moving: Moving, crowd: Crowd, case: Case) -> str:
    """The move with the fault, and what is done after it; in words. It ends with the new side live."""
    old, new, words = ready(moving, crowd, case)
    before = len(crowd.log.failed())
    with ExitStack() as stack:
        looking = stack.enter_context(Looking(moving))
        stack.enter_context(crowd)
        attempt = Attempt(moving, old, new, *words, "--max-pause", str(MAX_PAUSE))
        try:
            assert attempt.until(PHASES[case.phase]), f"it ended before {case.phase}: {attempt.error}"
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
        if code == 0:
            ended = "went on by itself"
        else:
            with contextlib.suppress(AssertionError):
                live(moving, BOOT)
            ended = _again(moving, new, words)
        assert live(moving, BOOT) == new
        time.sleep(3)
    assert looking.both == [], looking.both
    assert moving.primaries() == [new] and moving.leads_to() == [moving.site(new).address]
    crowd.check(failed=case.failed, twice=TWICE if case.failed else 0)
    lost = len(crowd.log.failed()) - before
    return f"{old} -> {new}: {meanwhile} served after {again:.0f} s; {ended}; {lost} failed requests"


def _again(moving: Moving, new: str, words: tuple[str, ...]) -> str:
    """Until the move has taken place."""
    # On a loaded computer a probe may be red once, after the move was made: it says so, and is run again.
    told = []
    for tried in (words, ("--resume",), ("--resume",)):
        run = moving.operator.run("migrate", "--yes", *tried)
        if run.code == 0:
            return f"ended by `migrate {' '.join(tried)}`" + (f", after {told}" if told else "")
        told.append(str(json.loads(run.out.strip().splitlines()[-1]).get("why", ""))[:200])
    if moving.move.phase == "moved":
        moving.operator.at(new).good("up", "--yes")
        return f"ended by `up`, after {told}"
    raise AssertionError((told, run.code, run.out[-3000:], run.err[-2000:]))
