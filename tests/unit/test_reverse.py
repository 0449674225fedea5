"""Reverse names: seen as the vendor or DNS says them, set where they differ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.machine import Machine
from deployer.core.model import MachineEntry
from deployer.core.plan import Change
from deployer.flow import reverse
from deployer.flow.reverse import Reverse
from deployer.probes import names as resolving
from deployer.probes.names import Answer

NAME = "mail.example.org"
MACHINES = {
    "m-1": Machine("m-1", "7", "running", "192.0.2.1", "2001:db8::1"),
    "d-1": Machine("d-1", "8", "running", "192.0.2.2"),
}


@dataclass
class Setting:
    """Sets reverse names, which it refuses while `why` says so."""

    why: str = ""
    names: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def set_reverse_dns(self, machine: Machine, name: str) -> None:
        self.asked.append(machine.name)
        if self.why:
            raise DeployError("setting the reverse name", self.why)
        self.names |= {machine.address: name, machine.address6: name}


@dataclass
class Telling(Setting):
    """Also tells them."""

    silent: str = ""

    def reverse_dns(self, machine: Machine) -> Mapping[str, str]:
        if self.silent:
            raise DeployError("asking", self.silent)
        return {one: self.names.get(one, "") for one in (machine.address, machine.address6) if one}


def session(tmp_path: Path, provider: object) -> Any:
    entries = (MachineEntry("m-1", ("mail", "app")), MachineEntry("d-1", ("database",)))
    doctor = SimpleNamespace(resolvers=("192.0.2.53",))
    project = SimpleNamespace(
        state_dir=tmp_path / "state",
        stack=SimpleNamespace(domain="example.org"),
        inventory=SimpleNamespace(machines=entries, doctor=doctor),
    )
    events: list[Event] = []
    return SimpleNamespace(project=project, provider=provider, sink=events.append, events=events)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """Address -> what DNS says of it."""
    known: dict[str, Answer] = {}
    monkeypatch.setattr(resolving.Resolver, "reverse", lambda _, address: known.get(address, Answer()))
    return known


def test_a_new_mail_machine_gets_its_name_and_no_other(tmp_path: Path) -> None:
    vendor = Telling()
    assert reverse.put(session(tmp_path, vendor), MACHINES, Reverse()) == []
    assert vendor.asked == ["m-1"]


def test_a_name_changed_at_the_vendor_is_seen_and_put_back(tmp_path: Path) -> None:
    vendor = Telling()
    run = session(tmp_path, vendor)
    reverse.put(run, MACHINES, Reverse())
    found = reverse.look(run, MACHINES, MACHINES)
    assert found.changes == () and found.right("m-1")
    vendor.names["192.0.2.1"] = "static.1.2.0.192.clients.example.net."
    found = reverse.look(run, MACHINES, MACHINES)
    assert found.changes == (
        Change(
            "m-1",
            "",
            "dns",
            "reverse name of 192.0.2.1",
            "change",
            f"static.1.2.0.192.clients.example.net -> {NAME}",
        ),
    )
    assert reverse.put(run, MACHINES, found) == []
    assert vendor.names["192.0.2.1"] == NAME and len(vendor.asked) == 2
    assert reverse.put(run, MACHINES, reverse.look(run, MACHINES, MACHINES)) == []
    assert len(vendor.asked) == 2, "an unchanged run only looks"


def test_a_name_that_was_deleted(tmp_path: Path) -> None:
    (first, second) = reverse.look(session(tmp_path, Telling()), MACHINES, MACHINES).changes
    assert (first.detail, second.name) == (f"none -> {NAME}", "reverse name of 2001:db8::1")


def test_only_what_exists_is_looked_at(tmp_path: Path) -> None:
    assert reverse.look(session(tmp_path, Telling()), MACHINES, ["d-1"]) == Reverse()


def test_a_vendor_that_does_not_tell_is_a_warning_and_changes_nothing(tmp_path: Path) -> None:
    vendor = Telling()
    run = session(tmp_path, vendor)
    reverse.put(run, MACHINES, Reverse())
    vendor.silent = "503"
    found = reverse.look(run, MACHINES, MACHINES)
    assert found.changes == () and found.warnings == ("m-1: its reverse name could not be looked at: 503",)
    assert reverse.put(run, MACHINES, found) == [] and len(vendor.asked) == 1


def test_a_vendor_that_only_sets_is_asked_once(tmp_path: Path, resolver: dict[str, Answer]) -> None:
    resolver |= {one: Answer(why="no answer") for one in ("192.0.2.1", "2001:db8::1")}
    vendor = Setting()
    run = session(tmp_path, vendor)
    for _ in range(2):
        assert reverse.put(run, MACHINES, reverse.look(run, MACHINES, MACHINES)) == []
    assert len(vendor.asked) == 1
    moved = MACHINES | {"m-1": Machine("m-1", "9", "running", "192.0.2.9")}
    reverse.put(run, moved, Reverse())
    assert len(vendor.asked) == 2


def test_where_only_dns_tells_it_is_asked_once_resolvers_have_forgotten(
    tmp_path: Path, resolver: dict[str, Answer]
) -> None:
    vendor = Setting()
    run = session(tmp_path, vendor)
    reverse.put(run, MACHINES, Reverse())
    resolver |= {
        "192.0.2.1": Answer((f"{NAME}.", "other.example.net.")),
        "2001:db8::1": Answer((f"{NAME}.",)),
    }
    assert reverse.look(run, MACHINES, MACHINES) == Reverse(), "what was just set is not believed to be wrong"
    path = tmp_path / "state" / "reverse.json"
    old = path.stat().st_mtime - reverse.REMEMBERED - 1
    os.utime(path, (old, old))
    found = reverse.look(run, MACHINES, MACHINES)
    assert [change.detail for change in found.changes] == [f"other.example.net -> {NAME}"]
    reverse.put(run, MACHINES, found)
    assert len(vendor.asked) == 2


def test_a_refusal_is_told_and_tried_again(tmp_path: Path) -> None:
    vendor = Setting("the name does not lead there")
    run = session(tmp_path, vendor)
    assert reverse.put(run, MACHINES, Reverse()) == [
        "reverse name of m-1 is not set: the name does not lead there; the next up tries again"
    ]
    vendor.why = ""
    assert reverse.put(run, MACHINES, Reverse()) == []
    assert len(vendor.asked) == 2


def test_a_vendor_without_reverse_names_is_asked_nothing(tmp_path: Path) -> None:
    run = session(tmp_path, object())
    assert reverse.look(run, MACHINES, MACHINES) == Reverse()
    assert reverse.put(run, MACHINES, Reverse()) == []
