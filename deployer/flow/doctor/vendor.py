"""Checks of the machines' vendor: credentials, quota, what it will cost, what it can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployer.core.errors import CredentialError, DeployError, QuotaError
from deployer.core.finding import Finding
from deployer.core.machine import Machine, MachineSpec, Size
from deployer.core.provider import Offer


def access(provider: str, error: DeployError | None) -> list[Finding]:
    """What `Provider.check` came to: credentials, quota, region and image, as far as the vendor can say."""
    what = {
        "vendor.credentials": "credentials",
        "vendor.quota": "quota",
        "vendor.ready": "region, image and account",
    }
    if error is None:
        words = "nothing to ask: the machines are your own" if provider == "ssh" else "good"
        return [Finding(id, "ok", text, provider, words) for id, text in what.items()]
    kind = {CredentialError: "vendor.credentials", QuotaError: "vendor.quota"}.get(
        type(error), "vendor.ready"
    )
    found = []
    for id, text in what.items():
        if id == kind:
            found.append(Finding(id, "fail", text, provider, error.why, error.next))
        elif kind == "vendor.quota" and id == "vendor.credentials":
            found.append(Finding(id, "ok", text, provider, "good"))
        else:
            found.append(Finding(id, "skipped", text, provider, f"not known: {what[kind]} failed"))
    return found


def fits(offer: Offer, size: Size) -> bool:
    return offer.cores >= size.cores and offer.memory >= size.memory and offer.disk >= size.disk


def prices(
    provider: str, offers: Sequence[Offer], specs: Sequence[MachineSpec], existing: Mapping[str, Machine]
) -> list[Finding]:
    """What each machine costs a month, and all together. offers: cheapest first."""
    id, what = "vendor.price", "price"
    if not offers:
        return [Finding(id, "skipped", what, provider, "it sells no machines")]
    if all(one.price == 0 for one in offers):
        # Sizes are not enforced there, so there is nothing to fit.
        text = f"free: they share {offers[0].name} ({_offered(offers[0])})"
        return [Finding(id, "ok", what, provider, text)]
    found, total, unknown = [], 0.0, False
    currency = offers[0].currency
    for spec in specs:
        machine = existing.get(spec.name)
        if machine and machine.price:
            total, currency = total + machine.price, machine.currency or currency
            text = f"{machine.type or 'machine'}, {_money(machine.price, machine.currency)}: exists"
            found.append(Finding(id, "ok", what, spec.name, text))
            continue
        one, offer = _price(spec, offers, bool(machine))
        found.append(one)
        if offer:
            total += offer.price
        unknown = unknown or offer is None
    more = ", without those named above that nothing fits" if unknown else ""
    text = f"{_money(total, currency)} for {len(specs)} machine(s){more}; traffic and volumes not counted"
    if total:
        found.append(Finding("vendor.total", "ok", "price of all machines", provider, text))
    return found


def _price(spec: MachineSpec, offers: Sequence[Offer], exists: bool) -> tuple[Finding, Offer | None]:
    named = str(spec.options.get("type", "") or spec.type)
    offer = next((one for one in offers if (one.name == named if named else fits(one, spec.size))), None)
    id, what = "vendor.price", "price"
    if offer:
        size, cost = _offered(offer), _money(offer.price, offer.currency)
        small = bool(named) and not fits(offer, spec.size)
        if small:
            wish = f"{offer.name} ({size}) is smaller than its roles wish for ({_size(spec.size)})"
            return Finding(
                id, "warn", what, spec.name, wish, "take a larger type:, or lower sizes: in stack.yaml"
            ), offer
        return Finding(id, "ok", what, spec.name, f"{offer.name} ({size}): {cost}"), offer
    if exists:
        return Finding(
            id, "skipped", what, spec.name, "it exists, and the vendor does not say its price"
        ), None
    text = (
        f"the vendor has no type {named!r} here" if named else f"no type of the region has {_size(spec.size)}"
    )
    return Finding(
        id, "fail", what, spec.name, text, "take another type: or region, or lower sizes: in stack.yaml"
    ), None


def _offered(offer: Offer) -> str:
    return f"{offer.cores} cores, {offer.memory:g} GiB, disk {offer.disk} GiB"


def _size(size: Size) -> str:
    return f"{size.cores} cores, {size.memory:g} GiB, disk {size.disk} GiB"


def _money(amount: float, currency: str) -> str:
    return f"{amount:.2f} {currency} a month".replace("  ", " ")


def reverse(provider: str, name: str, settable: bool, smarthosts: bool) -> Finding:
    """Whether the mail machine's address can answer with `name`, before there is one."""
    id, what = "vendor.reverse", "reverse names"
    if settable:
        return Finding(id, "ok", what, provider, "deploy up sets them")
    text = "the toolkit cannot set them there"
    if smarthosts:
        return Finding(id, "ok", what, provider, f"{text}; not needed while smarthosts send the mail")
    next = f"find out how {name} becomes the reverse name of the mail machine's address (panel or support)"
    return Finding(id, "warn", what, provider, text, next)
