"""The order of a restore on the operator's computer: what a second command, and an `up` between, make of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployer.core.errors import DeployError, InputError
from deployer.core.generation import Generation
from deployer.flow import restore as flow
from deployer.flow.recovery import RepositoryError, Restored
from deployer.flow.request import Request
from deployer.flow.restore import Wish
from deployer.flow.session import Session
from deployer.state import restoring as state
from deployer.state.restoring import Order
from tests.unit.test_generations import account, backed_up, root, run
from tests.unit.test_vendors import Log

__all__ = ["account", "root"]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def folder(root: Path) -> Path:
    return root / ".deploy" / "cloud"


def decide(root: Path, wish: Wish) -> Order:
    with Session.open(Request(root, "cloud", confirm=lambda _: True), Log(), make_secrets=False) as session:
        return flow.decide(session, wish, NOW)


def test_the_same_command_again_goes_on(root: Path) -> None:
    run(root)
    backed_up(root)
    first = decide(root, Wish())
    assert first.repository == "west"
    assert decide(root, Wish()) == first == decide(root, Wish(repository="west"))


def test_another_repository_can_be_taken_until_data_are_put_in_place(root: Path) -> None:
    run(root)
    first = decide(root, Wish(repository="east"))
    second = decide(root, Wish(repository="west"))
    assert second.id != first.id and second.instead == first.id
    state.save(folder(root), replace(second, placing=True))
    with pytest.raises(InputError, match="its data are in place"):
        decide(root, Wish(repository="east"))
    assert decide(root, Wish()).id == second.id


def test_an_old_order_is_not_carried_out_over_somebody_who_became_live(root: Path) -> None:
    run(root)
    order = decide(root, Wish(repository="east"))
    with Session.open(Request(root, "cloud"), Log(), make_secrets=False) as session:
        same = Generation(order.generation, "agora@gone")
        flow._still_right(session, same, order)
        assert session.taking == {"agora@gone"}
        with pytest.raises(InputError, match="became live since it began"):
            flow._still_right(session, replace(same, number=order.generation + 1), order)


def test_up_ends_a_restore_that_has_changed_nothing(root: Path) -> None:
    run(root)
    decide(root, Wish(repository="east"))
    run(root)
    assert state.load(folder(root)) is None


def test_up_does_not_start_what_is_half_in_place(root: Path) -> None:
    run(root)
    state.save(folder(root), replace(decide(root, Wish(repository="east")), placing=True))
    with pytest.raises(DeployError, match="was broken off while it put data in place") as caught:
        run(root)
    assert "deploy restore" in caught.value.next


def test_a_damaged_repository_gives_way_when_none_was_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root)
    backed_up(root)
    asked = []

    def bring_back(session: Session, view: object, order: Order, **_: object) -> Restored:
        asked.append(order)
        if order.repository == "east":
            raise RepositoryError("copying the backup", "damage in the repository", "take another")
        return Restored({})

    monkeypatch.setattr(flow, "bring_back", bring_back)
    log = Log()
    with Session.open(Request(root, "cloud", confirm=lambda _: True), log, make_secrets=False) as session:
        begun = flow.decide(session, Wish(repository="east"), NOW)
        with pytest.raises(RepositoryError):
            flow._data(session, None, begun, named=True)  # type: ignore[arg-type]
        _, order = flow._data(session, None, begun, named=False)  # type: ignore[arg-type]
    assert [one.repository for one in asked] == ["east", "east", "west"]
    assert order.repository == "west" and order.instead == begun.id and order.id != begun.id
    assert state.load(folder(root)) == order
