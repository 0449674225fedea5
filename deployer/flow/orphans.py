"""`deploy orphans`: what carries our label at a vendor, costs money, and belongs to nothing that runs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployer.core.errors import InputError
from deployer.core.events import Event, Sink
from deployer.core.machine import Deployment
from deployer.core.provider import Listing, Resource
from deployer.flow.request import Request
from deployer.flow.vendors import Skipped, Vendor, ask, configured


@dataclass(frozen=True)
class Orphan:
    """why: in words."""

    vendor: Vendor
    resource: Resource
    why: str

    def to_json(self, now: datetime) -> dict[str, Any]:
        """age: seconds, None when the vendor does not say when it was made."""
        resource = self.resource
        return {
            "inventory": self.vendor.inventory,
            "kind": resource.kind,
            "name": resource.name,
            "id": resource.id,
            "deployment": str(resource.deployment),
            "created": resource.created,
            "age": _age(resource.created, now),
            "price": resource.price,
            "currency": resource.currency,
            "data": resource.data,
            "why": self.why,
        }


def orphans(
    request: Request,
    sink: Sink,
    delete: Sequence[str],
    names: Sequence[str],
    files: Sequence[Path] = (),
) -> dict[str, Any]:
    """orphans, cost (a month, by currency), deleted, skipped. delete: names or ids of orphans, or KIND:NAME.

    Raises InputError for a name that no orphan has: what belongs to a deployment that runs is never deleted here.
    """
    sink(Event("stage", "asking the vendors", status="start"))
    vendors, skipped = configured(request.root, names, files)
    listing = [vendor for vendor in vendors if isinstance(vendor.provider, Listing)]
    own = [vendor for vendor in vendors if vendor not in listing]
    skipped += [Skipped(vendor.inventory, "nothing of ours costs money there") for vendor in own]
    answers, refused = ask(listing, _resources)
    sink(Event("stage", "asking the vendors", status="ok"))
    found = _orphans(request.root, answers)
    chosen = [_chosen(name, found) for name in dict.fromkeys(delete)]
    if chosen:
        _delete(request, sink, [orphan for orphan in found if orphan in chosen])
        found = [orphan for orphan in found if orphan not in chosen]
    now = datetime.now(UTC)
    return {
        "orphans": [orphan.to_json(now) for orphan in found],
        "cost": _cost(found),
        "deleted": [orphan.to_json(now) for orphan in chosen],
        "skipped": [vars(item) for item in [*skipped, *refused]],
    }


def _resources(vendor: Vendor) -> list[Resource]:
    provider = vendor.provider
    return list(provider.resources()) if isinstance(provider, Listing) else []


def _orphans(root: Path, answers: Sequence[tuple[Vendor, Sequence[Resource]]]) -> list[Orphan]:
    """Each once, though several inventories may name the same account."""
    alive = {one.deployment for _, listed in answers for one in listed if one.kind == "machine"}
    ours = {vendor.project.deployment for vendor, _ in answers}
    known = {vendor.project.deployment for vendor, _ in answers if _remembered(vendor)}
    found: dict[tuple[str, str, str], Orphan] = {}
    for vendor, listed in answers:
        for resource in listed:
            deployment = resource.deployment
            if deployment in ours and deployment in alive | known:
                continue
            key = (vendor.project.inventory.provider, resource.kind, resource.id)
            why = _why(resource, vendor.project.stack.name, ours, alive)
            found.setdefault(key, Orphan(vendor, resource, why))
    return list(found.values())


def _remembered(vendor: Vendor) -> bool:
    """This computer saw its machines, and no `down` has been there since."""
    from deployer.state.machines import load

    return bool(load(vendor.project.state_dir))


def _why(resource: Resource, stack: str, ours: set[Deployment], alive: set[Deployment]) -> str:
    deployment = resource.deployment
    runs = " and has machines: see whose it is" if deployment in alive else ""
    if deployment.stack != stack:
        return f"the stack {deployment.stack} is not this project's{runs}"
    if deployment not in ours:
        return f"no inventory {deployment.inventory} is here{runs}"
    return "data that a down has kept" if resource.data else "its deployment has no machines"


def _chosen(name: str, found: Sequence[Orphan]) -> Orphan:
    matching = [one for one in found if name in _ids(one.resource)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        ways = ", ".join(f"{one.resource.kind}:{one.resource.name} ({one.resource.id})" for one in matching)
        raise InputError("choosing what to delete", f"{name} may be several: {ways}", "name it by its id")
    near = difflib.get_close_matches(name, [word for one in found for word in _ids(one.resource)], n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise InputError(
        "choosing what to delete",
        f'no orphan is called "{name}"{hint}',
        "deploy orphans lists them; what belongs to a deployment that runs is not deleted here",
    )


def _ids(resource: Resource) -> tuple[str, str, str]:
    return resource.id, resource.name, f"{resource.kind}:{resource.name}"


def _delete(request: Request, sink: Sink, chosen: Sequence[Orphan]) -> None:
    """In the order in which the vendor can. A deployment of this project that is being brought up is left alone."""
    from deployer.state.lock import lock

    data = [one.resource.name for one in chosen if one.resource.data]
    words = ", ".join(f"{one.resource.kind} {one.resource.name}" for one in chosen)
    loss = f" ({', '.join(data)}: with data)" if data else ""
    if not request.confirm(f"delete {words}{loss} for ever. Go on?"):
        raise InputError("orphans", "stopped before anything was deleted", "run it again and say yes")
    with ExitStack() as stack:
        for folder in {
            one.vendor.project.state_dir
            for one in chosen
            if one.resource.deployment == one.vendor.project.deployment
        }:
            stack.enter_context(lock(folder, "orphans"))
        for one in chosen:
            provider, resource = one.vendor.provider, one.resource
            assert isinstance(provider, Listing)
            provider.delete_resource(resource)
            sink(Event("notice", f"deleted the {resource.kind} {resource.name} ({resource.id})"))


def _cost(found: Sequence[Orphan]) -> Mapping[str, float]:
    cost: dict[str, float] = {}
    for one in found:
        if one.resource.price:
            currency = one.resource.currency
            cost[currency] = round(cost.get(currency, 0.0) + one.resource.price, 2)
    return cost


def _age(created: str, now: datetime) -> float | None:
    try:
        made = datetime.fromisoformat(created)
    except ValueError:
        return None
    made = made if made.tzinfo else made.replace(tzinfo=UTC)
    return round(max((now - made).total_seconds(), 0.0), 1)
