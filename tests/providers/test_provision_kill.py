"""`up` killed at every call that it makes at a vendor while it makes machines, before the call and after its work was
done: run again it ends as one that was not killed, with nothing left over and nothing made twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from deployer.state.journal import Journal
from tests.providers.killing import Bench
from tests.rig.hetzner.faults import AFTER, BEFORE

# Points of the quick sample, spread over all calls.
SAMPLE = 2


@pytest.fixture(params=["hetzner", pytest.param("aws", marks=pytest.mark.long)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path)
    yield made
    made.close()


def check(
    bench: Bench,
    choose: Callable[[int], list[int]],
    at_once: int = 1,
    moments: Sequence[str] = (BEFORE, AFTER),
) -> None:
    """at_once: machines that are made at a time. With one, each index is the same call in each run, and all must be
    reached; with two a run may be done before, since what both look for is there already."""
    project = bench.fresh()
    bench.fake.calls.clear()
    bench.good(project)
    calls = len(bench.fake.calls)
    wanted = bench.state()
    assert sum(1 for kind, _ in wanted if kind == "machine") == 2, wanted
    tried = 0
    for at in choose(calls):
        for when in moments:
            project = bench.fresh()
            bench.fake.calls.clear()
            reached = bench.killed(project, at, when, at_once)
            assert reached or at_once > 1, f"call {at} {when} was not reached"
            bench.good(project, at_once)
            assert bench.state() == wanted, f"killed {when} call {at}"
            assert Journal(project / ".deploy" / "cloud").pending() == [], f"killed {when} call {at}"
            tried += reached
    print(f"\n{bench.vendor}: killed at {tried} points of {calls} calls, {at_once} machine(s) at a time")


def spread(calls: int) -> list[int]:
    return sorted({calls * number // SAMPLE for number in range(SAMPLE)})


def test_killed_at_some_calls(bench: Bench) -> None:
    check(bench, spread)


def test_killed_while_machines_are_made_side_by_side(bench: Bench) -> None:
    """In the second half of the calls, where both are at work."""
    check(bench, lambda calls: [calls * 2 // 3], at_once=2)


@pytest.mark.long
def test_killed_at_every_call(bench: Bench) -> None:
    check(bench, lambda calls: list(range(calls)))


@pytest.mark.long
def test_killed_at_every_call_side_by_side(bench: Bench) -> None:
    check(bench, lambda calls: list(range(calls)), at_once=2, moments=(AFTER,))
