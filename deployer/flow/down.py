"""`deploy down`: delete the deployment's machines. The secrets bundle and receipts stay."""

from __future__ import annotations

import shutil
from typing import Any

from deployer.core.errors import InputError
from deployer.core.events import Event, Sink
from deployer.flow.request import Request
from deployer.flow.session import Session


def down(request: Request, sink: Sink) -> dict[str, Any]:
    """Delete every machine that carries this deployment's label, each with what was made for it.

    What lies on them is gone; the caller has asked. On bare metal nothing is touched: the machines are the operator's.
    """
    from deployer.state.journal import Journal, intention
    from deployer.state.lock import lock

    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        project = session.project
        with lock(project.state_dir, "down"):
            machines = session.existing()
            names = ", ".join(machines)
            if machines and not request.confirm(
                f"delete {len(machines)} machine(s) of {project.deployment} with all their data: {names}. Go on?"
            ):
                raise InputError(
                    "down", "stopped before anything was deleted", "run it again and say yes, or use --yes"
                )
            journal = Journal(project.state_dir)
            for name, machine in machines.items():
                sink(Event("machine", "delete machine", machine=name, status="start"))
                with intention(journal, "delete_machine", name, id=machine.id):
                    session.provider.delete_machine(machine)
                sink(Event("machine", "machine deleted", machine=name, status="ok"))
        # A cache of what no longer exists.
        shutil.rmtree(project.state_dir, ignore_errors=True)
    return {"deployment": str(project.deployment), "deleted": list(machines)}
