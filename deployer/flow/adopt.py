"""`deploy adopt`: make this computer know a deployment that another one brought up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.events import Event, Sink
from deployer.core.machine import Machine, MachineSpec
from deployer.flow import provision, summary
from deployer.flow.look import View, look
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session

ROLES = "deploy-roles"


def adopt(request: Request, sink: Sink) -> dict[str, Any]:
    """Rebuild what this computer keeps in the state folder, from the labels at the vendor and the secrets bundle.

    machines: as found; missing and unwanted: against the inventory; changes: how many differences `plan` would show,
    None when the machines could not be looked at (then why); written: files. Changes nothing at the vendor or on
    machines. Raises DeployError when no machine carries the deployment's labels.
    """
    from deployer.state.lock import lock
    from deployer.state.machines import save

    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        state = session.project.state_dir
        with lock(state, "adopt"):
            existing = session.existing()
            specs = session.machine_specs()
            machines = session.running()
            save(state, machines.values())
            known = session.known_hosts(machines)
            authority = summary.ca_file(session)
            view, why = _look(session, machines)
            written = [str(state / "machines.json"), str(known), authority]
            if view:
                written.append(str(state / "facts.json"))
        return {
            "deployment": str(session.project.deployment),
            "machines": [_row(machine) for machine in machines.values()],
            "missing": [spec.name for spec in specs if spec.name not in existing],
            "unwanted": provision.unwanted(specs, existing),
            "changes": len(view.changes) if view else None,
            "written": written,
            "notes": [*_odd(specs, machines), *([why] if why else []), *_next(session, view)],
        }


def _row(machine: Machine) -> dict[str, object]:
    return {
        "name": machine.name,
        "status": machine.status,
        "address": machine.address,
        "type": machine.type,
        "created": machine.created,
    }


def _look(session: Session, machines: Mapping[str, Machine]) -> tuple[View | None, str]:
    """The machines themselves, with the host keys of the bundle; or why they cannot be looked at."""
    up = {name: one for name, one in machines.items() if one.status not in ("stopped", "failed")}
    if not up:
        return None, "no machine runs, so none was looked at"
    try:
        return look(session, up, session.connect(up, SSH), timeout=SSH, probes=False), ""
    except DeployError as error:
        session.mask.error(error)
        where = f" ({error.machine})" if error.machine else ""
        session.sink(Event("warning", f"{error.what}{where}: {error.why}"))
        return None, f"the machines were not looked at: {error.why}" + (
            f"; {error.next}" if error.next else ""
        )


def _odd(specs: Sequence[MachineSpec], machines: Mapping[str, Machine]) -> list[str]:
    """Where the labels say something else than the inventory of this folder."""
    notes = []
    for spec in specs:
        label = machines[spec.name].labels.get(ROLES, "") if spec.name in machines else ""
        roles = label.replace(".", " ").replace(",", " ").replace("-", " ").split()
        if roles and sorted(roles) != sorted(spec.roles):
            notes.append(
                f"{spec.name} was made as {', '.join(roles)}, and the inventory says {', '.join(spec.roles)}: "
                "see that stack.yaml and the inventory are those of the other computer"
            )
    return notes


def _next(session: Session, view: View | None) -> list[str]:
    name = session.project.inventory.name
    if view is None:
        return []
    if view.changes:
        return [f"it differs from this folder's files: deploy plan --provider {name} shows how"]
    return [f"it is as this folder's files say: deploy status --provider {name}"]
