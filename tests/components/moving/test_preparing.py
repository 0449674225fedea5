"""A machine is closed for a move to it; never one that may be live."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.components.moving.programs import load

preparing, state, systemd = load("preparing"), load("state"), load("systemd")
Failure = load("ground").Failure
CONFIG: dict[str, Any] = {
    "id": "m-2", "side": "new", "lead": True, "machine": "new/m", "machines": [], "copies": [], "units": [],
    "sms_first": [], "timers": [], "database_unit": "", "proxy_unit": "",
}  # fmt: skip


class Machine:
    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.closed, self.guard, self.stopped = root / "closed", True, [""]
        for module in (preparing, state):
            patch.setattr(module, "CLOSED", self.closed)
            patch.setattr(module, "FENCED", root / "fenced")
        patch.setattr(state, "STATE", root)
        patch.setattr(state, "RUN", root / "run")
        patch.setattr(preparing, "compiled", lambda: None)
        patch.setattr(systemd, "active", lambda unit: self.guard and unit == systemd.GUARD)
        patch.setattr(systemd, "running", lambda units: [])
        patch.setattr(systemd, "stop", lambda units, *bound: self.stopped.extend(units))
        patch.setattr(preparing, "opening", SimpleNamespace(end_quiet=lambda config: None))

    def gave(self, found: str) -> None:
        """Its fence's record, of the move before."""
        body = {"id": "m-1", "attempt": 1, "state": found, "deadline": 0.0, "boot": "x", "max_pause": 30.0}
        body |= {"held_at": 0.0, "permitted_at": 0.0, "lsn": "", "why": "", "peer": False}
        state.save("fence", body)
        fence = preparing.fence.load()
        assert fence and fence.state == found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_bare_machine(machine: Machine) -> None:
    machine.guard = False
    assert preparing.prepare(CONFIG)["prepared"] and machine.closed.exists()


def test_a_live_one(machine: Machine) -> None:
    with pytest.raises(Failure, match="may serve"):
        preparing.prepare(CONFIG)
    assert not machine.closed.exists()


@pytest.mark.parametrize("found", ["armed", "held", "fenced"])
def test_one_in_its_pause(machine: Machine, found: str) -> None:
    machine.closed.touch()
    machine.gave(found)
    with pytest.raises(Failure, match="may serve"):
        preparing.prepare(CONFIG)


def test_one_that_gave_its_permit_and_was_opened_since(machine: Machine) -> None:
    machine.gave("permitted")
    with pytest.raises(Failure, match="may serve"):
        preparing.prepare(CONFIG)


def test_back_before_its_guard_has_looked(machine: Machine) -> None:
    """Within the minute after a move."""
    machine.closed.touch()
    machine.gave("permitted")
    assert preparing.prepare(CONFIG)["prepared"]
    assert systemd.GUARD in machine.stopped
