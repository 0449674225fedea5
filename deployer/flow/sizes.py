"""Sizes without vendors: which machine type, data volume and openings follow from the roles of a machine."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from deployer.core.component import ComponentSpec
from deployer.core.errors import DeployError, InputError
from deployer.core.machine import Machine, MachineSpec, Opening, Size
from deployer.core.provider import Keeping, Offer, Provider, VolumePrices
from deployer.flow import registry

if TYPE_CHECKING:
    from deployer.flow.session import Session

SSH_PORT = 22
# Types that an error names.
FEW = 6


@dataclass(frozen=True)
class Sized:
    """specs: with type and volume filled in; offers: by machine, those that were chosen for machines to be made."""

    specs: tuple[MachineSpec, ...]
    offers: Mapping[str, Offer] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def total(sizes: Iterable[Size]) -> Size:
    """What several roles on one machine need: they take turns on its cores, and share neither memory nor disk."""
    listed = list(sizes)
    return Size(
        max((size.cores for size in listed), default=0),
        sum(size.memory for size in listed),
        sum(size.disk for size in listed),
    )


def fits(offer: Offer, size: Size, *, volume: bool = False) -> bool:
    """The type is large enough. volume: the data lie on a volume of their own, so the type's disk need not hold them."""
    room = volume or offer.disk >= size.disk
    return offer.cores >= size.cores and offer.memory >= size.memory and room


def words(size: Size) -> str:
    return f"{size.cores} cores, {size.memory:g} GiB of memory, {size.disk} GiB of disk"


def offer_words(offer: Offer) -> str:
    price = f"{'~' if offer.approximate else ''}{offer.price:.2f} {offer.currency}"
    return f"{offer.name} ({offer.cores} cores, {offer.memory:g} GiB, {price})"


def choose(session: Session, specs: Sequence[MachineSpec], existing: Mapping[str, Machine]) -> Sized:
    """Type and volume of every machine. A machine that exists keeps its type; the vendor is asked for its offers only
    when one has to be made. Raises InputError for a type that the vendor does not have, DeployError when none fits."""
    provider = session.provider
    keeping = isinstance(provider, Keeping)
    sells = registry.sells(session.project.inventory.provider)
    offers: Sequence[Offer] | None = None
    made: list[MachineSpec] = []
    chosen: dict[str, Offer] = {}
    warnings: list[str] = []
    for spec in specs:
        sized = replace(spec, volume=spec.size.disk if keeping else 0)
        named = str(spec.options.get("type") or "")
        known = existing[spec.name].type if spec.name in existing else ""
        if sells and known:
            if named and named != known:
                warnings.append(
                    f"{spec.name}: type {known} -> {named} is not changed by up: stop the machine, change its type in "
                    "the vendor's console, and run deploy up, which starts it"
                )
            sized = replace(sized, type=known)
        elif sells:
            offers = provider.offers() if offers is None else offers
            offer = pick(spec, named, offers, volume=keeping)
            chosen[spec.name] = offer
            sized = replace(sized, type=offer.name)
            if not fits(offer, spec.size, volume=keeping):
                warnings.append(
                    f"{offer_words(offer)} is less than the roles of {spec.name} need: {words(spec.size)}"
                )
        made.append(sized)
    return Sized(tuple(made), chosen, tuple(warnings))


def pick(spec: MachineSpec, named: str, offers: Sequence[Offer], *, volume: bool) -> Offer:
    """The offer that the inventory names, else the cheapest that fits."""
    fitting = sorted(
        (offer for offer in offers if fits(offer, spec.size, volume=volume)),
        key=lambda offer: (offer.price, offer.name),
    )
    suggestion = "; ".join(map(offer_words, fitting[:FEW]))
    if named:
        found = next((offer for offer in offers if offer.name == named), None)
        if found:
            return found
        near = difflib.get_close_matches(named, [offer.name for offer in offers], n=3)
        hint = f'; did you mean "{", ".join(near)}"?' if near else ""
        raise InputError(
            "choosing a machine type",
            f'the vendor has no type "{named}" here{hint}',
            f"what fits its roles: {suggestion}" if fitting else "see deploy offers",
            machine=spec.name,
        )
    if not fitting:
        raise DeployError(
            "choosing a machine type",
            f"none of the vendor's {len(offers)} types here has {words(spec.size)}",
            "lower sizes: in stack.yaml, spread the roles over more machines, or take another region; deploy offers "
            "lists all types",
            machine=spec.name,
        )
    return fitting[0]


def volume_price(provider: Provider, size: int) -> float:
    """A month, in the currency of the offers; 0 where the provider does not say."""
    return provider.volume_price(size) if size and isinstance(provider, VolumePrices) else 0.0


# --- openings ---


def opened(
    session: Session, specs: Sequence[MachineSpec], machines: Mapping[str, Machine]
) -> list[MachineSpec]:
    """The specs with what the vendor's own firewall lets in. machines: all of the deployment, placeholders too."""
    listed = session.specs(machines, {})
    return [replace(spec, openings=openings(listed[spec.name])) for spec in specs]


def openings(specs: Iterable[ComponentSpec]) -> tuple[Opening, ...]:
    """SSH, and every port that a component opens to the world. What the stack's machines say to one another goes over
    their private network, or is let in by a rule of the provider's own."""
    world = {(port.number, port.protocol) for spec in specs for port in spec.ports if "world" in port.sources}
    return tuple(Opening(number, protocol) for number, protocol in sorted(world | {(SSH_PORT, "tcp")}))


def opening_words(listed: Iterable[Opening]) -> str:
    return ", ".join(f"{opening.number}/{opening.protocol}" for opening in listed)
