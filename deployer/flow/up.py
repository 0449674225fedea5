"""`deploy up`: everything, from nothing, idempotent."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.machine import Machine
from deployer.core.plan import Change
from deployer.flow import names, observe, provision, registry, summary
from deployer.flow.apply import phases
from deployer.flow.look import ProbeResult, View, look, outside, results
from deployer.flow.request import Request
from deployer.flow.session import SSH, SSH_NEW, Session
from deployer.probes import run as run_probes

# Seconds that all phases together may take (a first installation over a slow line).
APPLY = 3600


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
    from deployer.state.journal import Journal
    from deployer.state.lock import lock

    project = session.project
    with lock(project.state_dir, "up") as held:
        provision.prepare(session.provider, session.sink)
        existing = session.existing()
        specs = session.machine_specs()
        todo = provision.missing(specs, existing)
        extra = provision.unwanted(specs, existing)
        if extra:
            session.sink(Event("warning", f"not in the inventory and left alone: {', '.join(extra)}"))
        if todo:
            session.provider.check()
            names.check(session, specs, existing)
            _confirm(session, f"{len(todo)} machine(s) to make or start for {project.deployment}. Go on?")
        journal = Journal(project.state_dir)
        machines = provision.create(session.provider, project, specs, existing, journal, session.sink)
        return _converge(session, machines, held, bool(todo), started, began)


def _converge(
    session: Session, machines: Mapping[str, Machine], held: Any, new: bool, started: datetime, began: float
) -> dict[str, Any]:
    timeout = SSH_NEW if new else SSH
    connection = session.connect(machines, timeout)
    _save(session, machines)
    with ThreadPoolExecutor(2) as pool, _Lease(session, machines, held) as lease:
        # From outside, before anything is changed, while the machines are looked at: on an unchanged deployment
        # these are the answers, and nothing is asked twice.
        early = pool.submit(_outer, session, machines) if not new else None
        naming = pool.submit(names.plan, session, machines) if names.managed(session) else None
        view = look(session, machines, connection, timeout=timeout, lease=lease.take())
        lease.renew_from_now_on()
        for warning in view.warnings:
            session.sink(Event("warning", warning))
        outer = early.result() if early else None
        named = naming.result() if naming else names.Naming()
        names.stop(session, named)
        changes = [*named.changes, *view.changes]
        if changes:
            _announce(session, changes)
            _confirm(session, f"{len(changes)} change(s). Go on?")
        if named.changes:
            # Before the services: certificate authorities look for the names.
            names.apply(session, machines)
        wanted = names.records(view.specs.values())
        unreversed = names.reverse(session, machines, wanted)
        if view.changes:
            _apply(session, view)
            view = look(session, machines, None, timeout=timeout)
            _settled(session, view)
        if changes:
            outer = None
        probes = results(view, _outer(session, machines, view) if outer is None else outer)
        body = summary.build(session, view, changes, probes, time.monotonic() - began, new)
        body["degraded"] += [*named.degraded, *unreversed]
        body["notes"] += named.notes
        lease.release()
    if changes or new:
        from deployer.state import receipts

        receipts.write(session.project.root, "up", session.project.deployment, summary.receipt(body), started)
    _judge(session, probes)
    return body


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
                f"{change.component}: {change}",
                machine=change.machine,
                status="",
                data=change.to_json(),
            )
        )


def _apply(session: Session, view: View) -> None:
    work = {name: (view.wanted[name], view.found[name], view.of(name)) for name in view.machines}
    failed = session.engine.ask("apply", bound=APPLY, phases=phases(work, registry.component_names()))[
        "failed"
    ]
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


def _judge(session: Session, probes: Sequence[ProbeResult]) -> None:
    """Red probes fail the run; those that only degrade are told."""
    red = [probe for probe in probes if not probe.ok and not probe.degrades]
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


class _Lease:
    """The lease on every machine of the deployment, for one run: taken by observing, renewed by a thread, released."""

    def __init__(self, session: Session, machines: Mapping[str, Machine], held: Any) -> None:
        from deployer.state import lease

        self._session, self._machines = session, machines
        self._common = {
            "rule": lease.rule_source(),
            "lease": lease.wanted(held.lease).to_json(),
            "ours": list(held.ours),
        }
        self._every = lease.SECONDS / 4
        self._ended = threading.Event()
        self._holding = False

    def take(self) -> dict[str, Any]:
        return {**self._common, "do": "take"}

    def renew_from_now_on(self) -> None:
        self._holding = True
        threading.Thread(target=self._renew, daemon=True).start()

    def _renew(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self._ask("take")
            except DeployError:
                # The run itself will meet the broken connection, and says it better.
                return

    def _ask(self, do: str) -> None:
        requests = {name: {"lease": {**self._common, "do": do}} for name in self._machines}
        observe.observe(self._session.engine, requests)

    def release(self) -> None:
        self._ended.set()
        if self._holding:
            self._holding = False
            self._ask("release")

    def __enter__(self) -> _Lease:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.release()
        except DeployError:
            # Already failing for a better reason; the lease expires by itself.
            pass
