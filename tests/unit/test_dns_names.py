"""The glue: rows of a plan, and that without the section dns no library of DNS is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.core.component import DnsRecord
from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.model import DnsService, MachineEntry
from deployer.core.plan import Change
from deployer.dns import authoritative
from deployer.flow import names

RECORDS = (DnsRecord("mail.example.org", "A", "192.0.2.1"),)


def session(tmp_path: Path, provider: object, dns: tuple[DnsService, ...] = (), catch: bool = False) -> Any:
    entries = (MachineEntry("m-1", ("mail", "app")), MachineEntry("d-1", ("database",)))
    doctor = SimpleNamespace(resolvers=())
    project = SimpleNamespace(
        state_dir=tmp_path / "state",
        stack=SimpleNamespace(domain="example.org"),
        inventory=SimpleNamespace(machines=entries, dns=dns, catch=catch, doctor=doctor),
    )
    events: list[Event] = []
    return SimpleNamespace(project=project, provider=provider, sink=events.append, events=events)


def test_an_address_that_is_not_known_yet_is_not_shown() -> None:
    change = Change("", "dns", "dns", "example.org A", "create", "192.0.2.1 at hetzner")
    assert names._veiled(change, {"192.0.2.1"}).detail == "(known after create) at hetzner"


def test_conflicts_stop(tmp_path: Path) -> None:
    run = session(tmp_path, object())
    run.project.deployment = "demo@here"
    names.stop(run, names.Naming())
    with pytest.raises(DeployError) as caught:
        names.stop(run, names.Naming(conflicts=("A of example.org: taken",)))
    assert caught.value.detail == "A of example.org: taken"


def test_a_rehearsal_without_vendors_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authoritative, "differences", lambda *_: pytest.fail("asked"))
    assert names.differences(session(tmp_path, object(), catch=True), RECORDS) == []


def test_many_differences_are_told_in_a_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        authoritative.Difference(f"h{n}.example.org", "A", "192.0.2.53", "is not there") for n in range(9)
    ]
    lines += [authoritative.Difference(f"i{n}.example.org", "A", "", "nobody") for n in range(3)]
    monkeypatch.setattr(authoritative, "differences", lambda *_: lines)
    told = names.differences(session(tmp_path, object()), RECORDS)
    assert told[0] == "DNS: example.org: nobody (3 records were not looked at)"
    assert told[1] == "DNS: A of h0.example.org at 192.0.2.53: is not there"
    assert told[-1] == "DNS: and 3 more" and len(told) == 8


def test_without_the_section_nothing_of_dns_is_loaded() -> None:
    code = (
        "import sys\nfrom deployer.flow import up, plan, down, status, names\n"
        "print(*(m for m in sys.modules if m.split('.')[0] in ('dns', 'octodns') or m.startswith('deployer.dns')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
