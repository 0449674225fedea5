"""`deploy plan`: what `up` would do, and nothing else. Changes neither machines nor files of the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from deployer.core.errors import DeployError, UnreachableError
from deployer.core.events import Sink
from deployer.core.machine import Facts, Machine
from deployer.core.plan import Change, Plan
from deployer.core.provider import Preparing
from deployer.flow import mending, names, places, provision, registry, reverse, sizes, texts
from deployer.flow.diff import diff
from deployer.flow.look import look
from deployer.flow.observe import nothing
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session
from deployer.flow.sizes import Sized


def plan(request: Request, sink: Sink) -> Plan:
    """The differences. A machine that does not exist is compared with nothing; where there is no secrets bundle yet,
    throw-away secrets stand for those that the first `up` makes."""
    with Session.open(request, sink, make_secrets=False, draft=True) as session:
        try:
            return _plan(session)
        except DeployError as error:
            session.mask.error(error)
            raise


@dataclass(frozen=True)
class _Part:
    """A part of the plan: what one way of looking found."""

    changes: Sequence[Change] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()


def _plan(session: Session) -> Plan:
    existing = session.existing()
    sized = sizes.choose(session, session.machine_specs(), existing)
    machines = {spec.name: existing.get(spec.name) or provision.placeholder(spec) for spec in sized.specs}
    if registry.sells(session.project.inventory.provider):
        sized = replace(sized, specs=tuple(sizes.opened(session, sized.specs, machines)))
    destroy, unknown = provision.destroyed(session.request.allow_destroy, sized.specs, existing)
    listed = places.places(session.provider, sized, existing, destroy)
    todo = provision.missing(sized.specs, existing)
    parts = [
        _Part(
            [
                *places.detailed(todo, listed),
                *places.made(sized, existing),
                *(Change(name, "", "machine", name, "remove", "not in the inventory") for name in destroy),
            ],
            [*sized.warnings, *unknown],
            [*_needs(session), *_left(sized, existing, destroy)],
        )
    ]
    up = {name: one for name, one in machines.items() if name not in {change.name for change in todo}}
    parts += _looked_at(session, sized, machines, up)
    parts.append(
        _new(session, sized, machines, [name for name in machines if not _booted(existing.get(name))])
    )
    return Plan(
        tuple(change for part in parts for change in part.changes),
        tuple(dict.fromkeys(text for part in parts for text in part.warnings)),
        tuple(dict.fromkeys(text for part in parts for text in part.notes)),
        tuple(listed),
    )


def _booted(machine: Machine | None) -> bool:
    """There is something on it, even if it is stopped now; what a killed run left of a machine never started."""
    return machine is not None and machine.status != "failed"


def _needs(session: Session) -> list[str]:
    provider = session.provider
    if isinstance(provider, Preparing) and (needs := list(provider.missing())):
        return [f"up installs on this computer: {', '.join(needs)}"]
    return []


def _left(sized: Sized, existing: Mapping[str, Machine], destroy: Mapping[str, Machine]) -> list[str]:
    """What is not in the inventory and stays, and what cannot be looked at."""
    notes = [
        f"{name} is not in the inventory and is left alone; up --allow-destroy {name} deletes it"
        for name in provision.unwanted(sized.specs, existing)
        if name not in destroy
    ]
    stopped = [name for name, machine in existing.items() if machine.status == "stopped"]
    return notes + [f"{name} is stopped: what differs on it is seen once it runs" for name in stopped]


def _looked_at(
    session: Session, sized: Sized, machines: Mapping[str, Machine], up: Mapping[str, Machine]
) -> list[_Part]:
    """The vendors' settings, names, and the machines that run; all asked at the same time."""
    connection = session.connect(up, SSH) if up else None
    with ThreadPoolExecutor(3) as pool:
        drifting = pool.submit(mending.look, session, sized.specs, machines, up)
        reversing = pool.submit(reverse.look, session, machines, up)
        naming = pool.submit(names.plan, session, machines)
        inside = _Part()
        if connection:
            try:
                view = look(session, up, connection, timeout=SSH, probes=False)
                changes: Sequence[Change] = view.changes
                if session.request.details:
                    changes = texts.with_diffs(session, view.wanted, changes)
                inside = _Part(changes, view.warnings)
            except UnreachableError as error:
                # Where the vendor's firewall was changed by hand, that is the news.
                if not drifting.result().changes:
                    raise
                inside = _Part(warnings=[f"{error.machine} was not looked at: {error.why}"])
        drift, named, reversed = drifting.result(), naming.result(), reversing.result()
    warnings = [*named.degraded, *(f"up will stop: {text}" for text in named.conflicts)]
    return [
        _Part(drift.changes, drift.warnings),
        _Part([*named.changes, *reversed.changes], [*warnings, *reversed.warnings], named.notes),
        inside,
    ]


def _new(session: Session, sized: Sized, machines: Mapping[str, Machine], absent: Sequence[str]) -> _Part:
    """Everything on machines that do not exist yet."""
    if not absent:
        return _Part()
    listed = session.specs(machines, {name: Facts() for name in machines})
    wanted = session.wanted({name: listed[name] for name in absent})
    changes = [change for name in sorted(absent) for change in diff(wanted[name], nothing(name))]
    if session.request.details:
        changes = texts.with_diffs(session, wanted, changes)
    return _Part(changes, [text for name in absent for spec in listed[name] for text in spec.warnings])
