"""Our decision as octoDNS's plan: it compares, guards the extent of what changes, and hands it to the vendor's module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from octodns.processor.base import BaseProcessor
from octodns.provider.plan import Plan, UnsafePlan
from octodns.record import Create, Delete, Record, Update
from octodns.record.rr import Rrset as OctoRrset
from octodns.zone import Zone

from deployer.core.errors import DeployError
from deployer.dns import owners, vendors
from deployer.dns.merge import Decision
from deployer.dns.rrset import Key, Rrset, View, strings

Decide = Callable[[View, Mapping[Key, Rrset]], Decision]


class Ours(BaseProcessor):
    """Narrows octoDNS's view to what is ours, and says what it shall become."""

    def __init__(self, zone: str, wanted: Mapping[Key, Rrset], decide: Decide) -> None:
        super().__init__("ours")
        self.zone, self._wanted, self._decide = zone, wanted, decide
        self.decision = Decision()
        self.exists = True

    def process_source_and_target_zones(
        self, desired: Any, existing: Any, target: Any, lenient: bool = False
    ) -> tuple[Any, Any]:
        known = vendors.readable(target)
        view = vendors.view_of(existing) if known is None else known
        wanted = {key: value for key, value in self._wanted.items() if key[1] in target.SUPPORTS}
        decision = self._decide(view, wanted)
        decision.view = dict(view)
        left_out = sorted({key[1] for key in self._wanted} - {key[1] for key in wanted})
        decision.notes += [f"{type} records are not supported by this vendor's module" for type in left_out]
        self.decision = decision
        before, after = Zone(desired.name, []), Zone(desired.name, [])
        for key in relevant(view, wanted, decision):
            if (there := view.get(key)) and (record := _record(before, there)):
                before.add_record(record, lenient=True)
            shall = decision.after.get(key, decision.owners.get(key, there))
            if shall and (record := _record(after, shall)):
                after.add_record(record, lenient=True)
        return after, before


def relevant(view: View, wanted: Mapping[Key, Rrset], decision: Decision) -> list[Key]:
    """What is wanted, what is owned, and the ownership sets: the whole that shares are counted of."""
    own = [entry.key for entry in owners.entries(owners.sets(view))]
    sets = [rrset.key for rrset in owners.sets(view)]
    return sorted({*wanted, *own, *sets, *decision.after, *decision.owners})


def _record(zone: Any, rrset: Rrset) -> Any:
    """octoDNS's object; None for what it has no word for (an alias of Route 53), which is never ours."""
    name = zone.hostname_from_fqdn(f"{rrset.name}.")
    if rrset.type == "TXT":
        # Byte for byte, whatever the bytes are.
        texts = [strings(value).decode("latin-1").replace(";", "\\;") for value in rrset.values]
        return Record.new(zone, name, {"type": "TXT", "ttl": rrset.ttl, "values": texts}, lenient=True)
    try:
        found = OctoRrset(f"{rrset.name}.", rrset.type, rrset.ttl, list(rrset.values))
        return Record.from_rrset(zone, found, lenient=True)
    except Exception:
        return None


def plan(provider: Any, zone: str, ours: Ours) -> Any:
    """octoDNS's plan; None when there is nothing to do. One reading of the zone."""
    seen: list[bool] = []
    populate = provider.populate

    def watched(*args: Any, **named: Any) -> Any:
        exists = populate(*args, **named)
        seen.append(exists is not False)
        return exists

    provider.populate = watched
    try:
        found = provider.plan(Zone(f"{zone}.", []), processors=[ours])
    finally:
        del provider.populate
    ours.exists = all(seen)
    return found


def carry_out(provider: Any, plan: Any, decision: Decision, limit: int | None) -> None:
    """Apply in an order that a kill cannot spoil: first ownership of old and new, then the records, then ownership of
    the new alone. limit: percent of our records that may be deleted; None when the operator said to delete.

    Raises DeployError when the plan is over the limit; nothing is changed then.
    """
    share = 1.0 if limit is None else limit / 100
    records = [change for change in plan.changes if _key(change) not in decision.owners]
    _guard(_part(plan, records, share))
    grown = {key: _union(decision.view.get(key), after) for key, after in decision.owners.items()}
    steps: Sequence[tuple[list[Any], Mapping[Key, Rrset | None]]] = (
        (_changes(plan, decision.view, grown), grown),
        (records, decision.after),
        (_changes(plan, grown, decision.owners), decision.owners),
    )
    for changes, goal in steps:
        if changes:
            if isinstance(provider, vendors.Exact):
                provider.goal = goal
            provider.apply(_part(plan, changes, 1.0))


def _key(change: Any) -> Key:
    return change.record.fqdn.rstrip(".").lower(), change.record._type


def _part(plan: Any, changes: list[Any], share: float) -> Any:
    # Updates are no measure: a new machine moves nearly every name, and what is updated is ours by its owner's record.
    return Plan(
        plan.existing,
        plan.desired,
        changes,
        plan.exists,
        update_pcent_threshold=1.0,
        delete_pcent_threshold=share,
    )


def _guard(plan: Any) -> None:
    try:
        plan.raise_if_unsafe()
    except UnsafePlan as error:
        raise DeployError(
            "changing DNS records",
            f"the plan goes too far: {error}",
            "look at it with deploy plan; when it is meant, raise `limit:` (percent) in the inventory's entry under dns",
        ) from None


def _union(before: Rrset | None, after: Rrset | None) -> Rrset | None:
    if before is None or after is None:
        return after or before
    return Rrset(*before.key, before.ttl, tuple(dict.fromkeys((*before.values, *after.values))))


def _changes(plan: Any, before: Mapping[Key, Rrset | None], after: Mapping[Key, Rrset | None]) -> list[Any]:
    """octoDNS's changes that lead from one to the other."""
    found = []
    for key, shall in after.items():
        old = before.get(key)
        if old == shall:
            continue
        existing = _record(plan.existing, old) if old else None
        new = _record(plan.desired, shall) if shall else None
        if existing and new:
            found.append(Update(existing, new))
        elif new or existing:
            found.append(Create(new) if new else Delete(existing))
    return found
