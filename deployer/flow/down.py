"""`deploy down`: delete the deployment's machines. The secrets bundle and receipts stay."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.machine import Facts, Machine
from deployer.core.provider import Keeping, Listing, Resource
from deployer.flow import generations, names, provision
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session

if TYPE_CHECKING:
    from deployer.state.journal import Journal

# Seconds for all services of a machine to stop; Kannel alone takes ten.
STOP = 180


def down(request: Request, sink: Sink) -> dict[str, Any]:
    """Delete every machine that carries this deployment's label, each with what was made for it.

    What lies on their disks is gone; the caller has asked. Data volumes stay, and are told with their price, unless
    request.destroy_data is the stack's name. Machines that are the operator's own (bare metal) are not deleted: our
    services on them are stopped and disabled, and data, packages and firewall stay.
    """
    from deployer.state.journal import Journal
    from deployer.state.lock import lock

    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        project = session.project
        _check_name(request.destroy_data, project.stack.name)
        destroyed: list[str] = []
        with lock(project.state_dir, "down"):
            machines = session.existing()
            ours = {name: machine for name, machine in machines.items() if machine.ours}
            lasting = {name: machine for name, machine in machines.items() if not machine.ours}
            keeping = isinstance(session.provider, Keeping)
            if ours:
                what = "all on their disks; data volumes stay" if keeping else "all their data"
                _confirm(session, f"delete {_words(session, ours)} with {what}. Go on?")
            if request.destroy_data and keeping:
                _confirm(session, f"delete the data volumes of {project.deployment} for ever. Go on?")
            if lasting:
                _confirm(session, f"stop our services on {_words(session, lasting)}, which stay. Go on?")
            named = names.remove(session)
            for text in named.degraded:
                session.sink(Event("warning", text))
            journal = Journal(project.state_dir)
            provision.delete(session.provider, ours, journal, session.sink)
            if lasting:
                session.connected(session.connect(lasting, SSH), SSH)
                stop_services(session, lasting)
            _leftovers(session, journal)
            if request.destroy_data:
                destroyed = _destroy_data(session, journal)
            generations.release(session)
            kept = [one for one in _resources(session) if one.data]
        # A cache of what no longer exists.
        shutil.rmtree(project.state_dir, ignore_errors=True)
    return {
        "deployment": str(project.deployment),
        "deleted": list(ours),
        "stopped": list(lasting),
        "destroyed": destroyed,
        "kept": [
            {"name": one.name, "id": one.id, "price": one.price, "currency": one.currency} for one in kept
        ],
        "dns": [change.to_json() for change in named.changes],
    }


def _words(session: Session, machines: Mapping[str, Machine]) -> str:
    return f"{len(machines)} machine(s) of {session.project.deployment} ({', '.join(machines)})"


def _confirm(session: Session, question: str) -> None:
    if not session.request.confirm(question):
        raise InputError(
            "down", "stopped before anything was changed", "run it again and say yes, or use --yes"
        )


def _check_name(given: str, stack: str) -> None:
    if given and given != stack:
        raise InputError(
            "checking --destroy-data",
            f'"{given}" is not the name of this stack, which is "{stack}"; nothing was touched',
            f"deploy down --destroy-data {stack} deletes its data volumes for ever",
        )


def _resources(session: Session) -> list[Resource]:
    """What the vendor still has of this deployment, in the order in which it can be deleted."""
    provider = session.provider
    if not isinstance(provider, Listing):
        return []
    return [one for one in provider.resources() if one.deployment == session.project.deployment]


def _leftovers(session: Session, journal: Journal) -> None:
    """Delete what a killed run made beside machines that do not exist any more; nothing that holds data."""
    from deployer.state.journal import intention

    provider = session.provider
    for resource in _resources(session):
        if resource.data or not isinstance(provider, Listing):
            continue
        with intention(journal, "delete_resource", resource.name, kind=resource.kind, id=resource.id):
            provider.delete_resource(resource)
        session.sink(Event("notice", f"deleted the {resource.kind} {resource.name}, which was left over"))


def _destroy_data(session: Session, journal: Journal) -> list[str]:
    from deployer.state.journal import intention

    provider = session.provider
    if not isinstance(provider, Keeping):
        return []
    with intention(journal, "delete_data", session.project.stack.name) as result:
        names = list(provider.delete_data(session.project.deployment))
        result["names"] = names
    for name in names:
        session.sink(Event("machine", f"data volume {name} deleted", status="ok"))
    return names


def stop_services(session: Session, machines: Mapping[str, Machine]) -> None:
    """Last started first. What base runs (SSH, firewall, upgrades) goes on: it guards the operator's machine."""
    specs = session.specs(machines, {name: Facts() for name in machines})
    for name, listed in specs.items():
        units = [
            unit.name
            for spec in reversed(listed)
            if spec.name != "base"
            for unit in spec.units
            if unit.wanted
        ]
        quoted = " ".join(map(shlex.quote, units))
        session.sink(Event("machine", f"stop {len(units)} units", machine=name, status="start"))
        # Without its digest a component is started again by the next `up`.
        command = f"systemctl disable --now --quiet {quoted}; rm -f /var/lib/deploy/applied/*"
        code, out, err = session.engine.run(name, command, timeout=STOP)
        if code:
            raise DeployError(
                "stopping our services",
                (err or out).strip()[-500:],
                "run the same command again",
                machine=name,
            )
        session.sink(Event("machine", "services stopped", machine=name, status="ok"))
