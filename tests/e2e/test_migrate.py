"""The service moves to another vendor while a crowd uses it: requests wait for seconds, and nothing is lost or doubled."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.attempts import Attempt, Looking, live, pressure
from tests.e2e.by_hand import by_hand
from tests.e2e.crowd import Crowd, Pace
from tests.e2e.faults import Case
from tests.e2e.moving import Moving
from tests.e2e.scratch import within
from tests.e2e.suffering import suffer
from tests.rig.world import World

# Two stacks, two vendors and a crowd: twelve minutes.
pytestmark = pytest.mark.long

# Seconds that requests may wait in a clean move with the Matrix app.
PAUSE = 10.0
# Seconds of a client's own way beside the pause.
BESIDE = 3.0
# Percent of time in which something waits for a processor, above which this computer has other work; and how much longer
# a pause may then be.
BUSY, LONGER = 60, 3


@dataclass
class Life:
    """The stack in its world. crowd: who uses it; place: where it is live; moves: what each move returned."""

    moving: Moving
    crowd: Crowd
    place: str
    moves: list[dict[str, Any]] = field(default_factory=list)

    def move(self, *words: str, to: str) -> dict[str, Any]:
        """With the crowd at work before, during and after it. Nobody may notice more than a wait."""
        moving, crowd, old = self.moving, self.crowd, self.place
        busy = pressure() > BUSY
        with crowd, Looking(moving) as looking:
            time.sleep(4)
            began = time.time()
            done: dict[str, Any] = moving.moved(*words)["migrate"]
            self.place = to
            assert moving.leads_to() == [moving.site(to).address]
            time.sleep(6)
        busy = busy or pressure() > BUSY
        waited = crowd.log.longest(since=began)
        assert live(moving, 10) == to
        assert looking.both == [] and looking.looks > 3, looking
        print(f"\n{old} -> {to}: {figures(done)}, longest wait {waited:.1f} s\n  {crowd.figures()}")
        crowd.check()
        slower = LONGER if busy else 1
        # The app's own start is told apart: here both sides, the crowd and the watch share one computer.
        assert done["pause_seconds"] - done["app_start_seconds"] <= PAUSE * slower, (done, busy)
        assert waited <= done["pause_seconds"] + BESIDE * slower, (waited, done)
        self.moves.append({**done, "old": old, "new": to, "longest_wait": waited})
        return done


def figures(done: dict[str, Any]) -> str:
    phases = ", ".join(f"{one['name']} {one['seconds']:.1f}" for one in done["phases"])
    return (
        f"pause {done['pause_seconds']:.2f} s (of it the app's start {done['app_start_seconds']:.2f}), in all"
        f" {done['total_seconds']:.0f} s ({phases}); cutover {done['cutover']}"
    )


@pytest.fixture(scope="module")
def life(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("migrate")
    with Moving(rig, package_layer, folder) as moving:
        moving.up("hetzner")
        yield Life(moving, moving.crowd("hetzner", 2, Pace(newcomer=12)), "hetzner")
    shutil.rmtree(folder, ignore_errors=True)


def test_rehearsed(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole move into machines that go away again. Nobody notices, and it says what pause to expect."""
    moving, operator = life.moving, life.moving.operator.at("hetzner")
    words = ("--yes", "--rehearse", "--from", "hetzner", "--to", "aws")
    # The copy is a primary too: its machine is closed, and goes away.
    with life.crowd:
        done = moving.operator.good("migrate", *words).result["rehearsal"]
        time.sleep(2)
    assert moving.serving() == ["hetzner"] and moving.move is None
    assert [one.name for one in moving.all()] == ["hetzner", "baremetal"]
    assert moving.leads_to() == [moving.site("hetzner").address]
    assert 0 < done["expected_pause_seconds"] < 30, done
    with capsys.disabled():
        print(f"\nrehearsed: {done}\n  {life.crowd.figures()}")
    life.crowd.check()
    assert operator.good("plan", "--exit-code").result["changes"] == []
    assert operator.good("status").result["ok"]


def test_to_another_vendor(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        life.move("--from", "hetzner", "--to", "aws", to="aws")
    assert life.crowd.joined
    old = life.moving.site("hetzner")
    assert not old.primary and not old.app
    # Who knows the old address only is served, by the new side.
    assert old.answer() == 200


def test_nothing_is_left_to_do(life: Life) -> None:
    moving = life.moving
    assert moving.operator.at(life.place).good("plan", "--exit-code").result["changes"] == []
    status = moving.operator.at(life.place).good("status").result
    said = moving.site(life.place).console(
        "journalctl --no-pager -o cat -n 20 -u 'deploy-backups-*'", check=False
    )
    assert status["ok"], (said, status)


def test_back_with_what_was_written_in_between(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    with life.crowd:
        time.sleep(5)
    with capsys.disabled():
        life.move("--back", to="hetzner")
    joined = life.crowd.joined
    life.crowd.newcomer()
    assert life.crowd.joined == joined + 1, life.crowd.troubles


@pytest.mark.parametrize("case", [Case("held", "operator")], ids=str)
def test_a_fault_in_the_middle(life: Life, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """All the others: test_migrate_faults."""
    life.crowd.forget()
    told = suffer(life.moving, life.crowd, case)
    life.place = live(life.moving, 10)
    with capsys.disabled():
        print(f"\n{case}: {told}")


@pytest.mark.long
def test_round_by_three_vendors(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """Each move from a place that has been retired before; and the same by hand, of the same data."""
    moving, way = life.moving, ["aws", "baremetal", "hetzner"]
    if life.place != "hetzner" or moving.move.phase != "ended":
        way = [place for place in way if place != life.place] if life.place != "hetzner" else way
        moving.retire()
        life.crowd.outside.account = moving.account(life.place)
    with capsys.disabled():
        for place in way:
            life.move("--from", life.place, "--to", place, to=place)
            said = moving.retire()["retired"]
            assert said["rotated"], said
            life.crowd.outside.account = moving.account(place)
        machine, shell = moving.rig.bare("spare", *moving.layers)
        try:
            hand = by_hand(moving.site(life.place), shell, machine.host_key_public)
        finally:
            shell.close()
            moving.rig.provider.delete_machine(machine)
        print("\nfrom       to         pause  app  longest wait    all")
        for one in life.moves:
            print(
                f"{one['old']:<10} {one['new']:<10} {one['pause_seconds']:>5.1f} {one['app_start_seconds']:>4.1f}"
                f" {one['longest_wait']:>13.1f} {one['total_seconds']:>6.0f}"
            )
        print(f"by hand, with nobody at it and names not counted: nobody was served for {hand.stopped:.1f} s")
        life.crowd.check()


@pytest.mark.long
def test_the_old_machine_refuses_when_it_is_switched_on_again(
    life: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its plug is pulled as soon as it has given its permit."""
    moving, old = life.moving, life.place
    new = "aws" if old == "hetzner" else "hetzner"
    if moving.move and moving.move.phase == "moved":
        moving.retire()
        life.crowd.outside.account = moving.account(old)
    life.crowd.forget()
    with Looking(moving) as looking:
        with life.crowd:
            time.sleep(3)
            attempt = Attempt(moving, old, new, "--from", old, "--to", new)
            assert attempt.until(lambda one: one.state("old", "fence").get("state") == "permitted")
            moving.site(old).pull_the_plug()
            code = attempt.end()
            if code and moving.operator.run("migrate", "--yes", "--resume").code:
                # It is the operator's word that it does not come back.
                moving.moved("--resume", "--old-is-dead")
            life.place = new
            assert live(moving, 60) == new
            moving.switch_on(old)
            former = moving.site(old)
            within(90, "the old machine", lambda: former.console("systemctl is-system-running", check=False))
            time.sleep(20)
        assert moving.serving() == [new]
        assert not former.primary and not former.app
        why = former.console("cat /run/deploy-guard/refused; journalctl -u deploy-guard -o cat", check=False)
        assert f"agora@{new}" in why, why
    assert looking.both == []
    life.crowd.check(failed=True, twice=4)
    with capsys.disabled():
        print(f"\nthe old machine says: {why.strip().splitlines()[0]}")
