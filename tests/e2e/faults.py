"""Faults of a move as data: when, what, and what is true then."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.e2e.attempts import Attempt
from tests.e2e.moving import Site
from tests.rig.cutting import Cut, no_updates

# Seconds: of the verb's --max-pause in these cases; what a loaded computer adds; a machine's boot with all services.
MAX_PAUSE, SLACK, BOOT = 20, 15, 120
# Letters and texts that may come twice when a side dies: those in flight.
TWICE = 6
# Phases before the machines are told to switch over.
EARLY = ("preflight", "target", "channel", "copy", "standby")


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

    @property
    def alone(self) -> bool:
        """Whether the machines go on with the cutover by themselves."""
        return self.fault == "operator" and self.phase not in EARLY and self.phase != "settle"


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

# In the order of a move: one that was left under way is gone on with by the next case, so that one move has many faults.
CASES = (
    Case("preflight", "names"),
    *(Case(phase, "operator", fresh=phase == "target") for phase in ("preflight", "target")),
    Case("target", "engine"),
    *(Case("channel", fault) for fault in ("operator", "engine", "cut")),
    Case("channel", "disk", fresh=True),
    *(Case("copy", fault, fresh=True) for fault in ("operator", "engine")),
    *(Case("copy", fault) for fault in ("cut", "new")),
    Case("copy", "old", failed=True, serves=False),
    *(Case("standby", fault) for fault in ("operator", "stuck")),
    Case("cutover", "names"),
    *(Case("armed", fault) for fault in ("stuck", "cut", "new")),
    *(Case("held", fault) for fault in ("cut", "new")),
    *(Case(phase, "old", failed=True, serves=False) for phase in ("armed", "held")),
    Case("held", "app", failed=True, serves=False),
    # From here on most moves take place.
    *(Case(phase, "operator") for phase in ("cutover", "armed", "held", "fenced", "permitted", "forwards")),
    Case("fenced", "new", failed=True),
    Case("fenced", "old", failed=True, serves=False),
    # Whether the permit was asked for before is chance.
    Case("fenced", "cut", failed=True, serves=False),
    Case("permitted", "old", failed=True),
    Case("permitted", "new", failed=True, serves=False),
    *(Case("settle", fault) for fault in ("operator", "engine", "names")),
    Case("settle", "new", failed=True, serves=False),
    Case("settle", "cut", failed=True),
    Case("settle", "old", failed=True),
)
