"""`deploy up`: everything, from nothing, idempotent."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deployer.core.errors import DeployError, InputError, UnreachableError
from deployer.core.events import Event, Sink
from deployer.core.machine import Machine, MachineSpec
from deployer.core.plan import Change, Plan
from deployer.flow import (
    catalogue,
    generations,
    mending,
    names,
    places,
    provision,
    registry,
    reverse,
    sizes,
    summary,
)
from deployer.flow.apply import phases
from deployer.flow.leasing import Lease
from deployer.flow.look import ProbeResult, View, look, outside, results
from deployer.flow.mending import Drift
from deployer.flow.request import Request
from deployer.flow.session import SSH, SSH_NEW, Session
from deployer.flow.sizes import Sized
from deployer.probes import run as run_probes

if TYPE_CHECKING:
    from deployer.state.journal import Journal

# Seconds that all phases together may take (a first installation over a slow line).
APPLY = 3600
# Seconds after a change in which probes may still turn green, and between two times of asking.
SETTLE, PAUSE = 30, 3


def up(request: Request, sink: Sink) -> dict[str, Any]:
    """Make the machines what the project says; the summary as plain data.

    Raises DeployError saying where it stopped; the next run continues from there.
    """
    started, began = datetime.now(UTC), time.monotonic()
    with Session.open(request, sink, make_secrets=True) as session:
        try:
            return _up(session, started, began)
        except DeployError as error:
            session.mask.error(error)
            raise


def _up(session: Session, started: datetime, began: float) -> dict[str, Any]:
    from deployer.state.lock import lock

    with lock(session.project.state_dir, "up") as held:
        _restoring(session)
        standing = generations.check(session)
        run = make_machines(session, held, started, began, standing)
        generations.claim(session, standing)
        return converge(session, run)


def _restoring(session: Session) -> None:
    """A restore that has not ended. While the data of before are whole, this run is the end of it: what it fetched is
    old soon. Raises DeployError when they are not."""
    from deployer.state import restoring

    order = restoring.load(session.project.state_dir)
    if order is None or order.claimed:
        return
    if order.placing:
        raise DeployError(
            f"bringing {session.project.deployment} up",
            f"a restore from {order.repository} that began {order.began} was broken off while it put data in place",
            "run deploy restore again: it goes on there",
        )
    words = f"the restore from {order.repository} that began {order.began} is given up: the data of before are used"
    session.sink(Event("warning", words))
    restoring.forget(session.project.state_dir)


def make_machines(
    session: Session,
    held: Any,
    started: datetime,
    began: float,
    standing: generations.Standing | None = None,
) -> Run:
    """The machines, made or started where they are missing. held: the lock of the state folder.

    standing: of an `up`, which must not begin an empty database where backups of a full one exist.
    """
    from deployer.state.journal import Journal

    project = session.project
    provision.prepare(session.provider, session.sink)
    existing = session.existing()
    journal = Journal(project.state_dir)
    specs: Sequence[MachineSpec] = session.machine_specs()
    destroy = _destroyed(session, specs, existing)
    if todo := [change.name for change in provision.missing(specs, existing)]:
        if standing and not standing.take:
            generations.refuse_empty(session, existing)
        session.provider.check()
        names.check(session, specs, existing)
    sized = sizes.choose(session, specs, existing)
    for warning in sized.warnings:
        session.sink(Event("warning", warning))
    if todo:
        sized = replace(sized, specs=tuple(_opened(session, sized.specs, existing)))
        _confirm(session, _making(session, sized, existing, todo))
    machines = provision.create(session.provider, project, sized.specs, existing, journal, session.sink)
    return Run(sized.specs, machines, frozenset(todo), destroy, journal, held, started, began)


@dataclass(frozen=True)
class Run:
    """machines: all wanted ones; new: names of those that were made or started; destroy: to be deleted at the end."""

    specs: Sequence[MachineSpec]
    machines: Mapping[str, Machine]
    new: Collection[str]
    destroy: Mapping[str, Machine]
    journal: Journal
    held: Any
    started: datetime
    began: float
    # Whether a receipt of an `up` is written: not where the verb writes one of its own.
    record: bool = True
    # Seconds in which probes may still turn green after a change.
    patience: float = SETTLE


def _destroyed(
    session: Session, specs: Sequence[MachineSpec], existing: Mapping[str, Machine]
) -> dict[str, Machine]:
    """The machines to delete once the others are well; asks for each. The rest of what nobody names is told."""
    destroy, unknown = provision.destroyed(session.request.allow_destroy, specs, existing)
    for warning in unknown:
        session.sink(Event("warning", warning))
    for name in provision.unwanted(specs, existing):
        if name not in destroy:
            text = f"{name} is not in the inventory and is left alone; --allow-destroy {name} deletes it"
            session.sink(Event("warning", text))
    if destroy:
        _confirm(
            session, f"delete {', '.join(destroy)} with all on its disk, once the others are well. Go on?"
        )
    return destroy


def _opened(
    session: Session, specs: Sequence[MachineSpec], existing: Mapping[str, Machine]
) -> list[MachineSpec]:
    machines = {spec.name: existing.get(spec.name) or provision.placeholder(spec) for spec in specs}
    return sizes.opened(session, specs, machines)


def _making(session: Session, sized: Sized, existing: Mapping[str, Machine], todo: Collection[str]) -> str:
    """The question, with what it will cost."""
    listed = [place for place in places.places(session.provider, sized, existing) if place.name in todo]
    plan = Plan(machines=tuple(listed))
    price = f", {places.cost_words(plan.cost, plan.approximate)}" if plan.cost else ""
    return f"{len(todo)} machine(s) to make or start for {session.project.deployment}{price}. Go on?"


def converge(session: Session, run: Run) -> dict[str, Any]:
    """Bring the machines of a run to what the project says; the summary. Writes the receipt of an `up`."""
    machines, new = run.machines, bool(run.new)
    timeout = SSH_NEW if new else SSH
    connection = session.connect(machines, timeout)
    _save(session, machines)
    with ThreadPoolExecutor(4) as pool, Lease(session, machines, run.held) as lease:
        # From outside, before anything is changed, while the machines are looked at: on an unchanged deployment
        # these are the answers, and nothing is asked twice.
        early = pool.submit(_outer, session, machines) if not new else None
        naming = pool.submit(names.plan, session, machines) if names.managed(session) else None
        older = [name for name in machines if name not in run.new]
        drifting = pool.submit(mending.look, session, run.specs, machines, older)
        reversing = pool.submit(reverse.look, session, machines, older)
        try:
            view = look(session, machines, connection, timeout=timeout, lease=lease.take())
            drift, mended = drifting.result(), False
        except UnreachableError:
            # Somebody may have closed SSH in the vendor's firewall.
            drift, mended = drifting.result(), True
            if not drift.changes:
                raise
            _mend(session, drift, machines, ask=True)
            connection = session.connect(machines, timeout)
            view = look(session, machines, connection, timeout=timeout, lease=lease.take())
        lease.renew_from_now_on()
        reversed = reversing.result()
        for warning in (*drift.warnings, *reversed.warnings, *view.warnings):
            session.sink(Event("warning", warning))
        outer = early.result() if early else None
        named = naming.result() if naming else names.Naming()
        names.stop(session, named)
        changes = [*drift.changes, *named.changes, *reversed.changes, *view.changes]
        todo = changes[len(drift.changes) :] if mended else changes
        if todo:
            generations.confirm_newest(session)
            _announce(session, todo)
            _confirm(session, f"{len(todo)} change(s). Go on?")
        if drift.changes and not mended:
            _mend(session, drift, machines)
        if any(change.kind == "volume" for change in drift.changes):
            # A volume that was attached or has grown: there is more to do on its machine now.
            machines = _again(session, run)
            view = look(session, machines, None, timeout=timeout)
            changes += [change for change in view.changes if change not in changes]
        if named.changes:
            # Before the services: certificate authorities look for the names.
            names.apply(session, machines)
        unreversed = reverse.put(session, machines, reversed)
        if view.changes:
            _apply(session, view)
            view = look(session, machines, None, timeout=timeout)
            _settled(session, view)
        if changes:
            outer = None
        probes = results(view, _outer(session, machines, view) if outer is None else outer)
        if changes and _red(probes):
            view, probes = _patiently(session, machines, view, probes, timeout, run.patience)
        body = summary.build(session, view, changes, probes, time.monotonic() - run.began, new)
        body["degraded"] += [*named.degraded, *unreversed]
        body["notes"] += named.notes
        lease.release()
    if run.destroy and not _red(probes):
        provision.delete(session.provider, run.destroy, run.journal, session.sink)
        body["deleted"] = list(run.destroy)
    if run.record and (changes or new or run.destroy):
        from deployer.state import receipts

        deployment = session.project.deployment
        receipts.write(session.project.root, "up", deployment, summary.receipt(body), run.started)
    catalogue.write_changed(session)
    _judge(session, probes)
    return body


def _patiently(
    session: Session,
    machines: Mapping[str, Machine],
    view: View,
    probes: list[ProbeResult],
    timeout: float,
    patience: float,
) -> tuple[View, list[ProbeResult]]:
    """Ask again for a while: a machine that was just changed is busy (a first backup, caches that fill), and a probe
    that is a little late then is no failure."""
    deadline = time.monotonic() + patience
    while _red(probes) and time.monotonic() < deadline:
        red = ", ".join(f"{one.component}/{one.name}" for one in _red(probes))
        session.sink(Event("notice", f"not green yet: {red}; asking again"))
        time.sleep(PAUSE)
        view = look(session, machines, None, timeout=timeout)
        probes = results(view, _outer(session, machines, view))
    return view, probes


def _mend(session: Session, drift: Drift, machines: Mapping[str, Machine], *, ask: bool = False) -> None:
    if ask:
        _announce(session, drift.changes)
        _confirm(session, f"{len(drift.changes)} change(s) at the vendor, which may be why. Go on?")
    mending.mend(session, drift, machines)


def _again(session: Session, run: Run) -> dict[str, Machine]:
    """The wanted machines as the vendor has them now."""
    existing = session.existing()
    return {
        spec.name: provision.pinned(existing.get(spec.name, run.machines[spec.name]), spec)
        for spec in run.specs
    }


def _save(session: Session, machines: Mapping[str, Machine]) -> None:
    from deployer.state.machines import save

    save(session.project.state_dir, machines.values())


def _confirm(session: Session, question: str) -> None:
    if not session.request.confirm(question):
        raise InputError(
            "up", "stopped before anything was changed", "run it again and say yes, or use --yes"
        )


def _announce(session: Session, changes: Sequence[Change]) -> None:
    for change in changes:
        session.sink(
            Event(
                "change",
                f"{change.component}: {change}" if change.component else str(change),
                machine=change.machine,
                status="",
                data=change.to_json(),
            )
        )


def _apply(session: Session, view: View) -> None:
    work = {name: (view.wanted[name], view.found[name], view.of(name)) for name in view.machines}
    carry_out(session, phases(work, registry.component_names()))


def carry_out(session: Session, listed: Sequence[Mapping[str, Any]]) -> None:
    """Have the engine work through phases. Raises DeployError for the first step that failed."""
    failed = session.engine.ask("apply", bound=APPLY, phases=listed)["failed"]
    if failed:
        detail = "\n".join(part for part in (failed["detail"], failed.get("journal", "")) if part)
        raise DeployError(
            f"{failed['phase']}, step {failed['step']!r}",
            failed["why"],
            "mend what the lines above name and run the same command again: it continues here",
            machine=failed["machine"],
            detail=detail,
        )


def _settled(session: Session, view: View) -> None:
    """After applying, nothing may be left to do; what is left is told, since the next run would do it again."""
    for change in view.changes:
        session.sink(
            Event(
                "warning", f"still to do after this run: {change.component}: {change}", machine=change.machine
            )
        )


def _outer(session: Session, machines: Mapping[str, Machine], view: View | None = None) -> Sequence[Any]:
    specs = view.specs if view else session.specs(machines, {})
    return run_probes(outside(specs), session.trusted_ca())


def _red(probes: Sequence[ProbeResult]) -> list[ProbeResult]:
    return [probe for probe in probes if not probe.ok and not probe.degrades]


def _judge(session: Session, probes: Sequence[ProbeResult]) -> None:
    """Red probes fail the run; those that only degrade are told."""
    red = _red(probes)
    if not red:
        return
    first = red[0]
    units = [first.unit] if first.unit else []
    detail = "\n".join(f"{probe.component}/{probe.name}: {probe.detail or 'no answer'}" for probe in red)
    if first.machine and units:
        code, out, _ = session.engine.run(
            first.machine, f"journalctl --no-pager -o short -n 12 -u {units[0]}", timeout=15
        )
        detail += "\n" + session.mask.text(out if code == 0 else "")
    raise DeployError(
        f"probing {session.project.deployment}",
        f"{len(red)} probe(s) are red",
        "deploy status shows all of them, deploy logs COMPONENT the journal of one",
        machine=first.machine or None,
        detail=detail,
    )
