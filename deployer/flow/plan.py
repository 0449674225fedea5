"""`deploy plan`: what `up` would do, and nothing else. Changes neither machines nor files of the project."""

from __future__ import annotations

from deployer.core.errors import DeployError
from deployer.core.events import Sink
from deployer.core.machine import Facts
from deployer.core.plan import Change, Plan
from deployer.core.provider import Preparing
from deployer.flow import names, provision
from deployer.flow.diff import diff
from deployer.flow.look import look
from deployer.flow.observe import nothing
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session


def plan(request: Request, sink: Sink) -> Plan:
    """The differences. A machine that does not exist is compared with nothing; where there is no secrets bundle yet,
    throw-away secrets stand for those that the first `up` makes."""
    with Session.open(request, sink, make_secrets=False, draft=True) as session:
        try:
            return _plan(session)
        except DeployError as error:
            session.mask.error(error)
            raise


def _plan(session: Session) -> Plan:
    provider, notes = session.provider, []
    if isinstance(provider, Preparing) and (needs := list(provider.missing())):
        notes.append(f"up installs on this computer: {', '.join(needs)}")
    existing = session.existing()
    specs = session.machine_specs()
    changes: list[Change] = list(provision.missing(specs, existing))
    absent = {change.name for change in changes}
    for name in provision.unwanted(specs, existing):
        notes.append(f"{name} is not in the inventory and is left alone")
    machines = {
        spec.name: existing[spec.name] if spec.name in existing else provision.placeholder(spec)
        for spec in specs
    }
    there = {name: machine for name, machine in machines.items() if name not in absent}
    named = names.plan(session, machines)
    changes += named.changes
    notes += named.notes
    warnings: tuple[str, ...] = (*named.degraded, *(f"up will stop: {text}" for text in named.conflicts))
    if there:
        view = look(session, there, session.connect(there, SSH), timeout=SSH, probes=False)
        changes += view.changes
        warnings += view.warnings
    if absent:
        listed = session.specs(
            {name: machines[name] for name in machines}, {name: Facts() for name in machines}
        )
        wanted = session.wanted({name: listed[name] for name in absent})
        for name in sorted(absent):
            changes += diff(wanted[name], nothing(name))
            warnings += tuple(warning for spec in listed[name] for warning in spec.warnings)
    return Plan(tuple(changes), tuple(dict.fromkeys(warnings)), tuple(notes))
