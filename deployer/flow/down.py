"""`deploy down`: delete the deployment's machines. The secrets bundle and receipts stay."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from typing import Any

from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.machine import Facts, Machine
from deployer.flow import names
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session

# Seconds for all services of a machine to stop; Kannel alone takes ten.
STOP = 180


def down(request: Request, sink: Sink) -> dict[str, Any]:
    """Delete every machine that carries this deployment's label, each with what was made for it.

    What lies on them is gone; the caller has asked. Machines that are the operator's own (bare metal) are not
    deleted: our services on them are stopped and disabled, and data, packages and firewall stay.
    """
    from deployer.state.lock import lock

    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        project = session.project
        with lock(project.state_dir, "down"):
            machines = session.existing()
            ours = {name: machine for name, machine in machines.items() if machine.ours}
            lasting = {name: machine for name, machine in machines.items() if not machine.ours}
            if ours:
                _confirm(session, f"delete {_words(session, ours)} with all their data. Go on?")
            if lasting:
                _confirm(session, f"stop our services on {_words(session, lasting)}, which stay. Go on?")
            named = names.remove(session)
            for text in named.degraded:
                session.sink(Event("warning", text))
            if ours:
                _delete(session, ours)
            if lasting:
                _stop_services(session, lasting)
        # A cache of what no longer exists.
        shutil.rmtree(project.state_dir, ignore_errors=True)
    return {
        "deployment": str(project.deployment),
        "deleted": list(ours),
        "stopped": list(lasting),
        "dns": [change.to_json() for change in named.changes],
    }


def _words(session: Session, machines: Mapping[str, Machine]) -> str:
    return f"{len(machines)} machine(s) of {session.project.deployment} ({', '.join(machines)})"


def _confirm(session: Session, question: str) -> None:
    if not session.request.confirm(question):
        raise InputError(
            "down", "stopped before anything was changed", "run it again and say yes, or use --yes"
        )


def _delete(session: Session, machines: Mapping[str, Machine]) -> None:
    from deployer.state.journal import Journal, intention

    journal = Journal(session.project.state_dir)
    for name, machine in machines.items():
        session.sink(Event("machine", "delete machine", machine=name, status="start"))
        with intention(journal, "delete_machine", name, id=machine.id):
            session.provider.delete_machine(machine)
        session.sink(Event("machine", "machine deleted", machine=name, status="ok"))


def _stop_services(session: Session, machines: Mapping[str, Machine]) -> None:
    """Last started first. What base runs (SSH, firewall, upgrades) goes on: it guards the operator's machine."""
    session.connected(session.connect(machines, SSH), SSH)
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
