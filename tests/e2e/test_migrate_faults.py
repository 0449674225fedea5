"""A move with a fault in each of its phases: it goes on when it is run again, or the old side serves again by itself; never
do two serve, and nothing that was acknowledged is lost.

One case alone: -k 'held-operator'. What a case left under way, the next one goes on with, or ends first.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.core.moving import PREPARING, SETTLING
from tests.e2e.attempts import Attempt, Looking, live
from tests.e2e.crowd import Crowd, Pace
from tests.e2e.faults import BOOT, CASES, MAX_PAUSE, PHASES, TWICE, Case
from tests.e2e.moving import Moving
from tests.e2e.scratch import within
from tests.e2e.suffering import end, ready, suffer
from tests.rig.cutting import Cut
from tests.rig.world import World

pytestmark = pytest.mark.long

Ground = tuple[Moving, Crowd]
# A newcomer may be in the middle of it when a machine dies; that is no request that failed.
PACE = Pace(newcomer=0, read=2.0)


@pytest.fixture(scope="module")
def ground(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("faults")
    with Moving(rig, package_layer, folder) as moving:
        moving.up("hetzner")
        crowd = moving.crowd("hetzner", 2, PACE)
        yield moving, crowd
        if moving.move and moving.move.phase in (PREPARING, SETTLING):
            end(moving)
            live(moving, BOOT)
            crowd.check(failed=True, twice=TWICE)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def done() -> Iterator[dict[str, str]]:
    yield {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault(
    ground: Ground, done: dict[str, str], case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    moving, crowd = ground
    # What failed in a case before is that one's.
    crowd.forget()
    done[str(case)] = suffer(moving, crowd, case)
    with capsys.disabled():
        print(f"\n{len(done)} of {len(CASES)}: {case}: {done[str(case)]}")


def test_contact_lost_between_the_permit_and_its_answer(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one window in which both sides may be closed. Nobody serves, and it says so; then --resume decides."""
    moving, crowd = ground
    for tried in range(5):
        crowd.forget()
        old, new, words = ready(moving, crowd, Case("permitted", "cut"))
        with Looking(moving) as looking, crowd:
            attempt = Attempt(moving, old, new, *words, "--max-pause", str(MAX_PAUSE))
            assert attempt.until(PHASES["cutover"])
            wire = Cut(moving.site(old).folder, moving.site(new).folder)
            try:
                # On the disk before it is told: there are some milliseconds, and on some days too few.
                assert attempt.until(PHASES["permitted"], pause=0.001)
                wire.at_once()
                code, permit = attempt.end(), attempt.state("new", "conduct").get("permit")
                told = attempt.error
                if permit == "asked":
                    assert code > 0 and "--resume" in told["next"] and "closed" in told["why"], (code, told)
                    assert attempt.state("old", "fence")["state"] == "permitted"
                    assert moving.serving() == []
                    # The old side stays closed, also after its longest pause.
                    time.sleep(MAX_PAUSE)
                    assert moving.serving() == []
            finally:
                wire.heal()
                attempt.kill()
            if moving.move.phase != "moved":
                moving.moved("--resume")
            assert live(moving, BOOT) == new
            time.sleep(3)
        assert looking.both == []
        crowd.check(failed=True, twice=TWICE)
        if permit == "asked":
            with capsys.disabled():
                print(f"\ncontact lost, at try {tried + 1}: {told['why']}")
            return
    raise AssertionError("the answer was always faster than the cut")


def test_the_old_side_is_dead_for_good(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    """Commits wait for the standby before anything is held, so that nothing acknowledged is lost with the machine."""
    moving, crowd = ground
    crowd.forget()
    old, new, words = ready(moving, crowd, Case("held", "old"))
    with Looking(moving) as looking, crowd:
        attempt = Attempt(moving, old, new, *words, "--max-pause", str(MAX_PAUSE))
        assert attempt.until(PHASES["held"])
        moving.site(old).pull_the_plug()
        died, at = time.monotonic(), time.time()
        try:
            assert attempt.end() > 0 and attempt.error["next"], attempt.error
            assert "does not answer" in attempt.error["why"], attempt.error
            assert moving.serving() == []
            done = moving.moved("--resume", "--old-is-dead")
            assert any("lost with it" in one for one in done["notes"]), done["notes"]
            assert live(moving, BOOT) == new
            seconds = time.monotonic() - died
        finally:
            former = moving.switch_on(old)
        within(BOOT, "the old machine", lambda: former.console("systemctl is-system-running", check=False))
        time.sleep(20)
        assert moving.serving() == [new] and not former.primary and not former.app
    assert looking.both == []
    # Every message; of what lay on that disk alone, what the receipt says.
    crowd.check(failed=True, twice=TWICE, died=at)
    moving.retire()
    crowd.outside.account = moving.account(new)
    with capsys.disabled():
        print(f"\nthe old side died while it held: the new one served {seconds:.0f} s after")


def test_two_operators(ground: Ground) -> None:
    """The second is told who is at work; the first one's move is not disturbed."""
    moving, crowd = ground
    crowd.forget()
    old, new, words = ready(moving, crowd, Case("copy", "operator"))
    with Looking(moving) as looking, crowd:
        first = Attempt(moving, old, new, *words)
        assert first.until(PHASES["target"])
        second = Attempt(moving, old, new, *words)
        assert second.end(120) == 1 and second.error["why"], second.error
        assert first.end() == 0
    assert looking.both == [] and live(moving, 10) == new
    crowd.check()


def test_how_many(done: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{len(done)} of {len(CASES)} cases, and three by name")
