"""Checks of the machines' vendor: credentials, quota, what it will cost, what it can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from deployer.core.errors import CredentialError, DeployError, QuotaError
from deployer.core.finding import Finding
from deployer.core.machine import Machine, MachineSpec
from deployer.core.provider import Offer
from deployer.flow import sizes
from deployer.flow.places import money


def access(provider: str, error: DeployError | None, remarks: Sequence[str] = ()) -> list[Finding]:
    """What `Provider.check` came to: credentials, quota, region and image, as far as the vendor can say.

    remarks: those of a check that was good (core.provider.Remarking).
    """
    what = {
        "vendor.credentials": "credentials",
        "vendor.quota": "quota",
        "vendor.ready": "region, image and account",
    }
    if error is None:
        words = "nothing to ask: the machines are your own" if provider == "ssh" else "good"
        good = [Finding(id, "ok", text, provider, words) for id, text in what.items()]
        if not remarks:
            return good
        next = "see the account's limits in the vendor's console before machines are made"
        told = [
            Finding("vendor.quota", "warn", what["vendor.quota"], provider, text, next) for text in remarks
        ]
        return [*(one for one in good if one.id != "vendor.quota"), *told]
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


def prices(
    provider: str,
    offers: Sequence[Offer],
    specs: Sequence[MachineSpec],
    existing: Mapping[str, Machine],
    volume_price: Callable[[int], float] | None = None,
) -> list[Finding]:
    """What each machine costs a month, and all together.

    volume_price: of a data volume of so many GiB; None: the provider has no volumes, and data lie on the machine's disk.
    """
    id, what = "vendor.price", "price"
    if not offers:
        return [Finding(id, "skipped", what, provider, "it sells no machines")]
    if all(one.price == 0 for one in offers):
        # Sizes are not enforced there, so there is nothing to fit.
        one = offers[0]
        text = f"free: they share {one.name} ({one.cores} cores, {one.memory:g} GiB, disk {one.disk} GiB)"
        return [Finding(id, "ok", what, provider, text)]
    found, sum, unknown = [], 0.0, 0
    for spec in specs:
        finding, price = _price(spec, offers, existing.get(spec.name), volume_price)
        found.append(finding)
        sum += price or 0
        unknown += price is None
    about = any(one.approximate for one in offers) or any(one.approximate for one in existing.values())
    words = f"{money(sum, offers[0].currency, about)} for {len(specs) - unknown} machine(s); traffic is not counted"
    if unknown:
        words += f"; {unknown} more above has no price"
    if sum:
        found.append(Finding("vendor.total", "ok", "price of all machines", provider, words))
    return found


def _price(
    spec: MachineSpec,
    offers: Sequence[Offer],
    machine: Machine | None,
    volume_price: Callable[[int], float] | None,
) -> tuple[Finding, float | None]:
    """One machine's finding, and its price where it is known."""
    id, what, volume = "vendor.price", "price", volume_price is not None
    if machine and machine.price:
        price = money(machine.price, machine.currency, machine.approximate)
        text = f"{machine.type or 'machine'}, {price}: exists"
        return Finding(id, "ok", what, spec.name, text), machine.price
    named = (machine.type if machine else "") or str(spec.options.get("type") or "")
    try:
        offer = sizes.pick(spec, named, offers, volume=volume)
    except DeployError as error:
        if machine:
            text = "it exists, and the vendor does not say its price"
            return Finding(id, "skipped", what, spec.name, text), None
        return Finding(id, "fail", what, spec.name, error.why, error.next), None
    beside = volume_price(spec.size.disk) if volume_price and spec.size.disk else 0.0
    text = f"{sizes.offer_words(offer)}"
    if beside:
        text += f", volume of {spec.size.disk} GiB {beside:.2f}"
    text += f": {money(offer.price + beside, offer.currency, offer.approximate)}"
    if not sizes.fits(offer, spec.size, volume=volume):
        next = "take a larger type:, or lower sizes: in stack.yaml"
        text += f"; less than its roles need ({sizes.words(spec.size)})"
        return Finding(id, "warn", what, spec.name, text, next), offer.price + beside
    return Finding(id, "ok", what, spec.name, text), offer.price + beside


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
