"""What the old side's record may become: the heart of "never two primaries"."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.components.moving.programs import load

rules = load("rules")
Failure = load("ground").Failure
ONE, TWO = rules.Asked("m", 1), rules.Asked("m", 2)
BOOT, NEXT = "boot-1", "boot-2"


def armed(now: float = 0, who: Any = ONE) -> Any:
    return rules.arm(None, who, now, BOOT, 120)


def held(now: float = 0) -> Any:
    return rules.hold(armed(now), ONE, now, BOOT, 30, 1000.0)


def fenced(now: float = 0) -> Any:
    return rules.fenced(held(now), "0/3000028")


def permitted(now: float = 0) -> Any:
    return rules.permit(fenced(now), ONE, now, BOOT, 1001.0)


def test_the_way_to_the_permit() -> None:
    fence = armed(5)
    assert (fence.state, fence.deadline) == ("armed", 125)
    fence = rules.hold(fence, ONE, 10, BOOT, 30, 1000.0)
    assert (fence.state, fence.deadline, fence.held_at) == ("held", 40, 1000.0)
    fence = rules.fenced(rules.held("x", fence, ONE, 20, BOOT), "0/3000028")
    fence = rules.permit(fence, ONE, 39.9, BOOT, 1029.0)
    assert (fence.state, fence.permitted_at) == ("permitted", 1029.0)


def test_the_same_words_again_change_nothing_and_lengthen_nothing() -> None:
    assert rules.arm(armed(0), ONE, 50, BOOT, 120) == armed(0)
    assert rules.hold(held(0), ONE, 20, BOOT, 30, 2000.0) == held(0)
    assert rules.arm(held(0), ONE, 20, BOOT, 120) == held(0)
    assert rules.permit(permitted(0), ONE, 20, BOOT, 2000.0) == permitted(0)
    # Its answer may have been lost: whoever has it hears it also after the deadline, and after a boot.
    assert rules.permit(permitted(0), ONE, 9999, NEXT, 2000.0) == permitted(0)


@pytest.mark.parametrize("make", [armed, held, permitted])
def test_no_permit_but_from_fenced(make: Any) -> None:
    if make is permitted:
        with pytest.raises(Failure, match="given to attempt 1"):
            rules.permit(make(), TWO, 1, BOOT, 1.0)
    else:
        with pytest.raises(Failure):
            rules.permit(make(), ONE, 1, BOOT, 1.0)


@pytest.mark.parametrize(
    ("now", "boot", "who"),
    [(30, BOOT, ONE), (31, BOOT, ONE), (1, NEXT, ONE), (1, BOOT, TWO), (1, BOOT, rules.Asked("other", 1))],
)
def test_no_permit_after_the_deadline_nor_a_boot_nor_to_another(now: float, boot: str, who: Any) -> None:
    with pytest.raises(Failure):
        rules.permit(fenced(), who, now, boot, 1.0)


def test_no_permit_without_a_place_where_the_database_ended() -> None:
    with pytest.raises(Failure):
        rules.permit(replace(fenced(), lsn=""), ONE, 1, BOOT, 1.0)
    with pytest.raises(Failure):
        rules.permit(replace(fenced(), peer=True), ONE, 1, BOOT, 1.0)


def test_the_dead_man() -> None:
    for fence in (armed(), held(), fenced()):
        assert not rules.due(fence, fence.deadline - 0.1, BOOT)
        assert "passed" in rules.due(fence, fence.deadline, BOOT)
        assert "started anew" in rules.due(fence, 0, NEXT)
    for boot, now in itertools.product((BOOT, NEXT), (0, 1e9)):
        assert not rules.due(permitted(), now, boot)
        assert not rules.due(None, now, boot)
    back = rules.reopen(held(), "why")
    # Killed while it reopened, it goes on.
    assert back.state == "reopening" and rules.due(back, 0, BOOT) == "why"
    assert not rules.due(rules.reopened(back), 1e9, NEXT)


def test_reopening() -> None:
    assert rules.reopen(None, "why") is None
    for fence in (armed(), held(), fenced()):
        assert rules.reopen(fence, "why").state == "reopening"
        assert rules.reopen(fence, "why", TWO) is None
    with pytest.raises(Failure, match="gave the permit"):
        rules.reopen(permitted(), "why")
    with pytest.raises(Failure, match="gave the permit"):
        rules.reopen(permitted(), "why", ONE)


def test_nothing_of_an_attempt_that_is_over_counts() -> None:
    over = rules.reopened(rules.reopen(fenced(), "time"))
    words: tuple[Callable[[], object], ...] = (
        lambda: rules.hold(over, ONE, 1, BOOT, 30, 1.0),
        lambda: rules.held("x", over, ONE, 1, BOOT),
        lambda: rules.permit(over, ONE, 1, BOOT, 1.0),
        lambda: rules.arm(over, ONE, 1, BOOT, 120),
    )
    for word in words:
        with pytest.raises(Failure):
            word()
    again = rules.arm(over, TWO, 1, BOOT, 120)
    assert again.state == "armed" and not again.lsn
    with pytest.raises(Failure):
        rules.permit(rules.fenced(rules.hold(again, TWO, 2, BOOT, 30, 1.0), "0/4"), ONE, 3, BOOT, 1.0)
    with pytest.raises(Failure, match="not yet reopened"):
        rules.arm(held(), TWO, 1, BOOT, 120)
    with pytest.raises(Failure, match="gave its permit"):
        rules.arm(permitted(), TWO, 1, BOOT, 120)


def test_whatever_is_said_in_whatever_order_a_permit_and_an_opening_exclude_each_other() -> None:
    chance = random.Random(7)
    for _ in range(3000):
        fence, now, boot = None, 0.0, BOOT
        given: set[tuple[str, int]] = set()
        for _ in range(12):
            now += chance.choice((0.1, 5, 29, 31))
            boot = chance.choice((BOOT,) * 12 + (NEXT,))
            who = chance.choice((ONE, ONE, TWO))
            word = chance.choice(("arm", "hold", "fence", "permit", "reopen", "dead-man"))
            try:
                if word == "arm":
                    after = rules.arm(fence, who, now, boot, 120)
                elif word == "hold":
                    after = rules.hold(fence, who, now, boot, 30, 1.0)
                elif word == "fence":
                    after = rules.fenced(rules.held("x", fence, who, now, boot), "0/1")
                elif word == "permit":
                    after = rules.permit(fence, who, now, boot, 1.0)
                    given.add((who.id, who.attempt))
                else:
                    if word == "dead-man" and not rules.due(fence, now, boot):
                        continue
                    after = rules.reopen(fence, "why", who if word == "reopen" else None)
                    if after is None:
                        continue
                    assert not given
                    after = rules.reopened(after)
            except Failure:
                continue
            if given:
                # The end: it stays as it is, and belongs to one.
                assert after.state == "permitted" and len(given) == 1
            fence = after


def test_a_record_is_read_back() -> None:
    assert rules.parse(fenced().body()) == fenced()
    assert rules.parse({}) is None
    assert rules.parse({**armed().body(), "of later": 1}) == armed()
