"""Look at a deployment: connect, observe, compare. `plan`, `status` and `up` begin with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from deployer.core.component import ComponentSpec, Probe
from deployer.core.errors import DeployError, LeaseError
from deployer.core.events import Event
from deployer.core.machine import Facts, Machine
from deployer.core.plan import Change
from deployer.core.probe import Result
from deployer.flow import observe
from deployer.flow.diff import diff
from deployer.flow.session import Session
from deployer.flow.wanted import Wanted

SYSTEM = "debian 13"


@dataclass(frozen=True)
class View:
    """What was found and how it differs. probes: results by "machine component/name" (on machines) and from outside."""

    machines: Mapping[str, Machine]
    specs: Mapping[str, list[ComponentSpec]]
    wanted: Mapping[str, Wanted]
    found: Mapping[str, observe.Found]
    changes: tuple[Change, ...]

    def of(self, machine: str) -> list[Change]:
        return [change for change in self.changes if change.machine == machine]

    @property
    def warnings(self) -> tuple[str, ...]:
        listed = [warning for specs in self.specs.values() for spec in specs for warning in spec.warnings]
        return tuple(dict.fromkeys(listed))


def look(
    session: Session,
    machines: Mapping[str, Machine],
    connection: Future[Any] | None,
    *,
    timeout: float,
    lease: Mapping[str, Any] | None = None,
    scripts: Mapping[str, str] | None = None,
    probes: bool = True,
) -> View:
    """Observe the machines and compare. connection: of `session.connect`; None when they are connected.

    While SSH connects, everything is rendered with the facts of last time; facts that changed are rendered again.
    Raises LeaseError when somebody else holds the lease that is asked for.
    """
    session.sink(Event("stage", "looking at the machines", status="start"))
    began = time.monotonic()
    facts = _remembered(session)
    specs = session.specs(machines, facts)
    requests = {
        name: observe.request_for(specs[name], lease=lease, scripts=scripts, probes=probes)
        for name in machines
    }
    if connection is None:
        found = observe.observe(session.engine, requests)
        wanted = session.wanted(specs)
    else:
        with ThreadPoolExecutor(1) as pool:
            rendering = pool.submit(session.wanted, specs)
            session.connected(connection, timeout)
            found = observe.observe(session.engine, requests)
            wanted = rendering.result()
    _check(found)
    now = {name: item.facts for name, item in found.items()}
    if any(now[name] != facts.get(name, Facts()) for name in machines):
        specs = session.specs(machines, now)
        wanted = session.wanted(specs)
        _remember(session, now)
    session.sink(
        Event("stage", "looking at the machines", status="ok", seconds=round(time.monotonic() - began, 2))
    )
    changes = [change for name in machines for change in diff(wanted[name], found[name])]
    return View(machines, specs, wanted, found, tuple(changes))


def _check(found: Mapping[str, observe.Found]) -> None:
    for name, item in found.items():
        lease = item.part("lease")
        if lease and not lease["granted"]:
            raise LeaseError(
                "taking the lease",
                str(lease["why"]),
                "wait until the other run ends; a lease that nobody renews expires by itself",
                machine=name,
            )
    for name, item in found.items():
        if item.facts.system != SYSTEM:
            raise DeployError(
                "looking at the machine",
                f"it runs {item.facts.system}, and the components are made for Debian 13",
                "install Debian 13 on it",
                machine=name,
            )


def _remembered(session: Session) -> dict[str, Facts]:
    import json

    try:
        data = json.loads((session.project.state_dir / "facts.json").read_text(encoding="utf-8"))
        return {name: Facts(**entry) for name, entry in data.items()}
    except (OSError, ValueError, TypeError):
        return {}


def _remember(session: Session, facts: Mapping[str, Facts]) -> None:
    import json
    from dataclasses import asdict

    from deployer.state.files import make_private, write_atomically

    make_private(session.project.state_dir)
    text = json.dumps({name: asdict(entry) for name, entry in facts.items()})
    write_atomically(session.project.state_dir / "facts.json", text)


# --- probes ---


def outside(specs: Mapping[str, Sequence[ComponentSpec]]) -> list[Probe]:
    """Probes that run on the operator's computer."""
    return [probe for listed in specs.values() for spec in listed for probe in spec.probes if probe.outside]


@dataclass(frozen=True)
class ProbeResult:
    """One probe's answer. machine: "" for one from outside."""

    machine: str
    component: str
    name: str
    ok: bool
    detail: str
    seconds: float
    degrades: bool
    unit: str = ""

    def to_json(self) -> dict[str, object]:
        return dict(vars(self))


def results(view: View, outer: Sequence[Result]) -> list[ProbeResult]:
    """All probes of a view: those that ran on the machines, and `outer` from outside."""
    answers = {result.name: result for result in outer}
    listed = []
    for machine, specs in view.specs.items():
        inner = view.found[machine].part("probes")
        for spec in specs:
            for probe in spec.probes:
                if probe.outside:
                    if probe.name not in answers:
                        continue
                    one = answers[probe.name]
                    ok, detail, seconds, where = one.ok, one.detail, one.seconds, ""
                else:
                    raw = inner.get(
                        f"{spec.name}/{probe.name}", {"ok": False, "detail": "did not run", "seconds": 0}
                    )
                    ok, detail, seconds, where = raw["ok"], raw["detail"], raw["seconds"], machine
                listed.append(
                    ProbeResult(where, spec.name, probe.name, ok, detail, seconds, probe.degrades, probe.unit)
                )
    return listed
