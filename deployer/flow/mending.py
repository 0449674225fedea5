"""What somebody changed by hand at the machines' vendor: seen while SSH connects, shown by `plan`, put back by `up`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.machine import Machine, MachineSpec
from deployer.core.plan import Change, Kind
from deployer.core.provider import ByHand, Mending
from deployer.flow import sizes

if TYPE_CHECKING:
    from deployer.flow.session import Session

# Machines that are asked about at a time: vendors count calls a second.
AT_ONCE = 4


@dataclass(frozen=True)
class Drift:
    """changes: one for each difference; specs: of the machines that differ, for `mend`; warnings: what only the
    operator can change, and what could not be looked at."""

    changes: tuple[Change, ...] = ()
    specs: Mapping[str, MachineSpec] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def look(
    session: Session, specs: Sequence[MachineSpec], machines: Mapping[str, Machine], names: Collection[str]
) -> Drift:
    """Ask the vendor about the machines `names`, which exist. A vendor that does not answer is a warning, since the
    machines themselves can be looked at all the same. machines: all of the deployment, also those to be made."""
    provider = session.provider
    # What a killed run left of a machine has no id, and nothing to compare: create_machine finishes it.
    there = {name: machines[name] for name in names if machines[name].id}
    if not isinstance(provider, Mending) or not there:
        return Drift()
    asker = provider
    full = {spec.name: spec for spec in sizes.opened(session, specs, machines) if spec.name in there}

    def ask(name: str) -> tuple[list[Change], list[str]]:
        try:
            found = list(asker.drift(there[name], full[name]))
        except DeployError as error:
            words = f"{name} could not be compared with the vendor's settings: {error.what}: {error.why}"
            return [], [words]
        changes = [_change(name, text) for text in found if not isinstance(text, ByHand)]
        return changes, [f"{text} (up does not change that)" for text in found if isinstance(text, ByHand)]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(full, pool.map(ask, full), strict=True))
    # What machines share is told by each of them.
    told: set[tuple[str, str]] = set()
    changes = []
    for listed, _ in answers.values():
        for change in listed:
            if (change.name, change.detail) not in told:
                told.add((change.name, change.detail))
                changes.append(change)
    differing = {name: full[name] for name, (listed, _) in answers.items() if listed}
    warnings = [text for _, listed in answers.values() for text in listed]
    return Drift(tuple(changes), differing, tuple(dict.fromkeys(warnings)))


def _change(machine: str, text: str) -> Change:
    """The provider's words as a row: what stands before the first colon is the thing."""
    name, colon, detail = text.partition(": ")
    if not colon:
        name, detail = machine, text
    first = name.split(" ", 1)[0]
    kind: Kind = first if first in ("firewall", "volume") else "machine"  # type: ignore[assignment]
    return Change(machine, "", kind, name.removeprefix(f"{kind} "), "change", detail)


def mend(session: Session, drift: Drift, machines: Mapping[str, Machine]) -> None:
    """Put it back, and say what is still different then (some things only the operator can change)."""
    provider = session.provider
    if not isinstance(provider, Mending):
        return
    for name, spec in drift.specs.items():
        session.sink(
            Event("machine", "put back what was changed at the vendor", machine=name, status="start")
        )
        try:
            provider.mend(machines[name], spec)
            left = provider.drift(machines[name], spec)
        except DeployError as error:
            error.machine = error.machine or name
            raise
        # What only the operator can change was told before.
        for text in (one for one in left if not isinstance(one, ByHand)):
            session.sink(Event("warning", f"still so at the vendor: {text}", machine=name))
        session.sink(Event("machine", "the vendor's settings are as wanted", machine=name, status="ok"))
