"""Machines made side by side: what is on disk when, what one error does to the others, what is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from deployer.core.errors import DeployError, QuotaError
from deployer.core.events import Event, discard
from deployer.core.machine import Deployment, Machine, MachineSpec
from deployer.flow import mending, provision
from deployer.state.journal import Journal
from tests.unit import fakevendor

DEPLOYMENT = Deployment("demo", "cloud")
SPECS = [MachineSpec(f"demo-app-{number}", ("app",)) for number in (1, 2, 3)]


class Slow(fakevendor.Fake):
    """Each creation does `work` before it answers."""

    def __init__(self, work: Callable[[str], None]) -> None:
        super().__init__(fakevendor.Account(), DEPLOYMENT)
        self.work = work

    def create_machine(self, deployment: Deployment, spec: MachineSpec) -> Machine:
        self.work(spec.name)
        return super().create_machine(deployment, spec)


class SideBySide(Slow):
    at_once = 3


class _Project:
    deployment = DEPLOYMENT


def create(provider: Any, journal: Journal, sink: Callable[[Event], None] = discard) -> dict[str, Machine]:
    return provision.create(provider, cast(Any, _Project), SPECS, {}, journal, sink)


def test_machines_are_made_at_the_same_time_each_with_its_intent_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    together = threading.Barrier(3, timeout=10)

    def work(name: str) -> None:
        assert name in [intent.name for intent in journal.pending()]
        together.wait()

    events: list[Event] = []
    made = create(SideBySide(work), journal, events.append)
    assert list(made) == [spec.name for spec in SPECS]
    assert journal.pending() == []
    noted = {entry["result"]["id"] for entry in journal.entries() if "done" in entry}
    assert noted == {machine.id for machine in made.values()}
    for name in made:
        assert [event.status for event in events if event.machine == name] == ["start", "ok"]


def test_a_provider_that_does_not_promise_it_is_asked_one_by_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    busy = threading.Lock()
    order: list[str] = []

    def work(name: str) -> None:
        assert busy.acquire(blocking=False)
        order.append(name)
        busy.release()

    create(Slow(work), journal)
    assert order == [spec.name for spec in SPECS]


def test_one_error_lets_the_others_end_and_is_raised(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    together = threading.Barrier(3, timeout=10)
    failed = threading.Event()

    def work(name: str) -> None:
        together.wait()
        if name == SPECS[1].name:
            failed.set()
            raise QuotaError("making the server", "limit reached", "ask for more")
        assert failed.wait(10)
        time.sleep(0.1)

    provider = SideBySide(work)
    with pytest.raises(QuotaError) as caught:
        create(provider, journal)
    assert caught.value.machine == SPECS[1].name
    assert [intent.name for intent in journal.pending()] == [SPECS[1].name]

    # The next run makes what is missing, and the intents of all former runs are settled.
    journal.intend("create_machine", SPECS[1].name)
    provider.work = lambda name: None
    existing = {machine.name: machine for machine in provider.list_machines(DEPLOYMENT)}
    assert sorted(existing) == [SPECS[0].name, SPECS[2].name]
    provision.create(provider, cast(Any, _Project), SPECS, existing, journal, discard)
    assert journal.pending() == []


def test_of_several_errors_the_first_machines_is_raised_and_the_rest_told(tmp_path: Path) -> None:
    together = threading.Barrier(3, timeout=10)

    def work(name: str) -> None:
        together.wait()
        raise DeployError("making the server", f"no room for {name}", "try another type")

    events: list[Event] = []
    with pytest.raises(DeployError) as caught:
        create(SideBySide(work), Journal(tmp_path / "state"), events.append)
    assert caught.value.machine == SPECS[0].name
    warned = [event.machine for event in events if event.kind == "warning"]
    assert warned == [SPECS[1].name, SPECS[2].name]


def test_nothing_more_is_begun_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provision, "AT_ONCE", 2)
    failed = threading.Event()
    begun: list[str] = []

    def work(name: str) -> None:
        begun.append(name)
        if name == SPECS[0].name:
            failed.set()
            raise QuotaError("making the server", "limit reached", "ask for more")
        assert failed.wait(10)
        time.sleep(0.2)

    with pytest.raises(QuotaError):
        create(SideBySide(work), Journal(tmp_path / "state"))
    assert SPECS[2].name not in begun


def test_what_a_killed_run_left_of_a_machine_is_not_compared() -> None:
    left = fakevendor.machine(SPECS[0].name, DEPLOYMENT)
    left = Machine(left.name, "", "failed", left.address, labels=left.labels)
    provider = fakevendor.Fake(fakevendor.Account(), DEPLOYMENT)

    class Session:
        pass

    session = cast(Any, Session())
    session.provider = provider
    assert mending.look(session, SPECS[:1], {left.name: left}, [left.name]) == mending.Drift()
