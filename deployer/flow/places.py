"""The machines of a plan: what each one is, costs, and lets in; and what would be made at the vendor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from deployer.core.machine import Machine, MachineSpec
from deployer.core.plan import Change, Place
from deployer.core.provider import Provider
from deployer.flow import sizes
from deployer.flow.sizes import Sized


def places(
    provider: Provider,
    sized: Sized,
    existing: Mapping[str, Machine],
    destroy: Collection[str] = (),
) -> list[Place]:
    """One for each machine, those that the inventory does not name at the end. sized: with openings."""
    found = [_place(provider, spec, sized, existing.get(spec.name)) for spec in sized.specs]
    wanted = {spec.name for spec in sized.specs}
    for name, machine in existing.items():
        if name not in wanted:
            state = "remove" if name in destroy else "unwanted"
            place = Place(name, state, (), machine.type, machine.address, 0, machine.price, machine.currency)
            found.append(replace(place, approximate=machine.approximate))
    return found


def _place(provider: Provider, spec: MachineSpec, sized: Sized, machine: Machine | None) -> Place:
    openings = tuple(f"{opening.number}/{opening.protocol}" for opening in spec.openings)
    if machine and (machine.price or spec.name not in sized.offers):
        state = "start" if machine.status in ("stopped", "failed") else "exists"
        return Place(
            spec.name,
            state,
            spec.roles,
            machine.type,
            machine.address,
            0,
            machine.price,
            machine.currency,
            openings,
            machine.approximate,
        )
    offer = sized.offers.get(spec.name)
    price = round(offer.price + sizes.volume_price(provider, spec.volume), 2) if offer else 0.0
    return Place(
        spec.name,
        "start" if machine else "create",
        spec.roles,
        spec.type,
        machine.address if machine else "",
        spec.volume,
        price,
        offer.currency if offer and price else "",
        openings,
        bool(offer and price and offer.approximate),
    )


def made(sized: Sized, existing: Mapping[str, Machine]) -> list[Change]:
    """Volumes and openings of machines that do not exist yet. The machines themselves: provision.missing."""
    changes = []
    for spec in sized.specs:
        if spec.name in existing:
            continue
        if spec.volume:
            changes.append(
                Change(spec.name, "", "volume", f"{spec.name}: {spec.volume} GiB", "create", "at /srv/data")
            )
        if spec.openings:
            changes.append(
                Change(
                    spec.name,
                    "",
                    "firewall",
                    spec.name,
                    "create",
                    f"lets in {sizes.opening_words(spec.openings)}",
                )
            )
    return changes


def detailed(changes: Sequence[Change], listed: Sequence[Place]) -> list[Change]:
    """The changes of machines with type and price."""
    by_name = {place.name: place for place in listed}
    found = []
    for change in changes:
        place = by_name.get(change.name)
        if change.kind == "machine" and change.action == "create" and place and place.type:
            price = money(place.price, place.currency, place.approximate)
            detail = f"{change.detail}; {place.type}, {price}"
            change = replace(change, detail=detail)
        found.append(change)
    return found


def money(amount: float, currency: str, approximate: bool = False) -> str:
    """ "13.06 EUR a month"; "~13.06 ..." where the vendor could not be asked (Offer.approximate)."""
    return f"{'~' if approximate else ''}{amount:.2f} {currency} a month"


def cost_words(cost: Mapping[str, float], approximate: bool = False) -> str:
    """Vendors may count in several currencies, which are not converted."""
    return " and ".join(money(amount, currency, approximate) for currency, amount in sorted(cost.items()))
