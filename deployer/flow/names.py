"""Names: glue between the components' records and the vendors of DNS. Reverse names: reverse.py.

Without the section `dns` in the inventory nothing here is run but `differences`, and no library of DNS is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deployer.core.component import ComponentSpec, DnsRecord
from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.machine import Machine, MachineSpec
from deployer.core.plan import Change
from deployer.flow import provision

if TYPE_CHECKING:
    from deployer.dns.manage import Names, Planned
    from deployer.flow.session import Session

# Seconds that the name servers have to show a change, before services start that need it; and for one look.
SETTLE, LOOK = 60, 4
UNKNOWN = "(known after create)"
# Differences that `status` tells one by one.
MOST = 6


@dataclass(frozen=True)
class Naming:
    """changes: rows of a plan; notes: what is left as it is; refused: the names and types of it;
    degraded: a vendor of two that cannot be talked to; conflicts: names that are somebody else's."""

    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    refused: frozenset[tuple[str, str]] = frozenset()
    degraded: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


def managed(session: Session) -> bool:
    return bool(session.project.inventory.dns)


def records(specs: Iterable[Sequence[ComponentSpec]]) -> list[DnsRecord]:
    """All records that the deployment wants, each once."""
    listed = {record for listed in specs for spec in listed for record in spec.dns}
    return sorted(listed, key=lambda record: (record.name, record.type, record.value))


def _names(session: Session, wanted: Sequence[DnsRecord]) -> Names:
    from deployer.dns.manage import Names

    project = session.project
    return Names(project.inventory.dns, project.stack.domain, project.deployment, wanted, takes=session.takes)


def _naming(planned: Planned) -> Naming:
    failed = [f"DNS vendor {label}: {error.why}" for label, error in planned.failed.items()]
    return Naming(planned.changes, planned.notes, planned.refused, tuple(failed), planned.conflicts)


def plan(session: Session, machines: Mapping[str, Machine]) -> Naming:
    """What `apply` would change. Machines that do not exist yet are placeholders."""
    if not managed(session):
        return Naming()
    from deployer.dns import manage

    wanted = records(session.specs(machines, {}).values())
    naming = _naming(manage.plan(_names(session, wanted)))
    unknown = {machine.address for machine in machines.values() if machine.status == "absent"}
    return replace(naming, changes=tuple(_veiled(change, unknown) for change in naming.changes))


def _veiled(change: Change, addresses: Iterable[str]) -> Change:
    detail = change.detail
    for address in addresses:
        detail = detail.replace(address, UNKNOWN)
    return replace(change, detail=detail)


def check(session: Session, specs: Sequence[MachineSpec], existing: Mapping[str, Machine]) -> None:
    """Before money is spent: credentials are good, and no name is somebody else's. Raises DeployError."""
    if managed(session):
        machines = {spec.name: existing.get(spec.name) or provision.placeholder(spec) for spec in specs}
        stop(session, plan(session, machines))


def stop(session: Session, naming: Naming) -> None:
    """Raise for names that are taken."""
    if naming.conflicts:
        raise DeployError(
            f"planning the names of {session.project.deployment}",
            f"{len(naming.conflicts)} of them cannot be set; nothing was changed",
            "remove what is in the way or choose another domain; another deployment's names go with its deploy down",
            detail="\n".join(naming.conflicts),
        )


def apply(session: Session, machines: Mapping[str, Machine]) -> Naming:
    """Set the records, and wait until the zone's name servers answer so; what still differs then is a warning."""
    from deployer.dns import authoritative, manage

    wanted = records(session.specs(machines, {}).values())
    session.sink(Event("stage", "names", status="start"))
    naming = _naming(manage.apply(_names(session, wanted)))
    # Those that were left as they are, the notes name.
    set_now = [record for record in wanted if (record.name, record.type) not in naming.refused]
    left = authoritative.settle(set_now, session.project.inventory.dns, _resolvers(session), SETTLE)
    for text in _few([str(one) for one in left]):
        session.sink(Event("warning", f"not as set after {SETTLE} s: {text}"))
    session.sink(Event("stage", "names", status="ok"))
    return naming


def remove(session: Session) -> Naming:
    """Take our records away, before the machines go: no name may lead to an address that somebody else gets.

    A vendor that cannot be talked to holds nothing up; what stays there is told.
    """
    if not managed(session):
        return Naming()
    from deployer.dns import manage

    try:
        return _naming(manage.remove(_names(session, ())))
    except DeployError as error:
        return Naming(degraded=(f"records stay there: {error.what}: {error.why}",))


# --- what the world sees ---


def differences(session: Session, wanted: Sequence[DnsRecord]) -> list[str]:
    """What authoritative servers answer differently, in a few lines. Never raises."""
    inventory = session.project.inventory
    if inventory.catch and not inventory.dns:
        # A rehearsal whose names nobody shall know.
        return []
    from deployer.dns import authoritative

    found = authoritative.differences(wanted, inventory.dns, _resolvers(session), LOOK)
    alone = {one.found for one in found if not one.server}
    unseen = [
        f"DNS: {session.project.stack.domain}: {why}"
        f" ({sum(one.found == why and not one.server for one in found)} records were not looked at)"
        for why in sorted(alone)
    ]
    return unseen + _few([f"DNS: {one}" for one in found if one.server])


def _few(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST
    return [*lines[:MOST], *([f"DNS: and {more} more"] if more > 0 else [])]


def _resolvers(session: Session) -> tuple[str, ...]:
    return session.project.inventory.doctor.resolvers
