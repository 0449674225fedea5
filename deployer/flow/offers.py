"""`deploy offers`: what machines cost, vendor beside vendor. Asks, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployer.core.events import Event, Sink
from deployer.core.machine import ROLES, SIZES, Size
from deployer.core.provider import Keeping, Offer
from deployer.flow import registry, sizes
from deployer.flow.request import Request
from deployer.flow.vendors import Skipped, Vendor, ask, configured


def offers(
    request: Request, sink: Sink, role: str | None, names: Sequence[str], files: Sequence[Path] = ()
) -> dict[str, Any]:
    """offers: inventory, type, cores, memory, disk (GiB), price a month, cheapest first (approximate: the vendor could not
    be asked, so it is about that); skipped: inventory and why.

    role: only what is large enough for it ("all": for everything on one machine), with the price of its data volume
    where the vendor has such. The sizes are the stack's.
    """
    sink(Event("stage", "asking the vendors", status="start"))
    vendors, skipped = configured(request.root, names, files)
    selling = [vendor for vendor in vendors if registry.sells(vendor.project.inventory.provider)]
    own = [vendor for vendor in vendors if vendor not in selling]
    skipped += [Skipped(vendor.inventory, "it sells no machines: they are your own") for vendor in own]
    answers, refused = ask(selling, lambda vendor: vendor.provider.offers())
    rows: list[dict[str, Any]] = []
    for vendor, listed in answers:
        rows += _rows(vendor, listed, role)
    size = _size(vendors[0], role) if vendors and role else None
    sink(Event("stage", "asking the vendors", status="ok"))
    return {
        "role": role or "",
        "size": vars(size) if size else {},
        "offers": sorted(rows, key=lambda row: (row["price"], row["inventory"], row["type"])),
        "skipped": [vars(item) for item in [*skipped, *refused]],
    }


def _size(vendor: Vendor, role: str) -> Size:
    wanted = ROLES if role == "all" else (role,)
    return sizes.total(vendor.project.stack.sizes.get(name, SIZES[name]) for name in wanted)


def _rows(vendor: Vendor, listed: Sequence[Offer], role: str | None) -> list[dict[str, Any]]:
    keeping = isinstance(vendor.provider, Keeping)
    size = _size(vendor, role) if role else Size()
    volume = size.disk if keeping else 0
    beside = sizes.volume_price(vendor.provider, volume)
    return [
        {
            "inventory": vendor.inventory,
            "provider": vendor.project.inventory.provider,
            "type": offer.name,
            "cores": offer.cores,
            "memory": offer.memory,
            "disk": offer.disk,
            "volume": volume,
            "price": round(offer.price + beside, 2),
            "currency": offer.currency,
            "approximate": offer.approximate,
        }
        for offer in listed
        if sizes.fits(offer, size, volume=keeping)
    ]
