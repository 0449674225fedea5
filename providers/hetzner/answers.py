"""The vendor's servers as our machines."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from deployer.core.machine import Machine
from providers.hetzner.prices import Prices, monthly
from providers.hetzner.settings import MACHINE

# The vendor's words for a server's state -> ours. "unknown" is a host in trouble.
STATUS = {
    "running": "running",
    "initializing": "starting",
    "starting": "starting",
    "rebuilding": "starting",
    "migrating": "starting",
    "stopping": "stopped",
    "off": "stopped",
    "deleting": "failed",
    "unknown": "failed",
}


def machine(server: Any, prices: Prices, volumes: Mapping[int, float], host_key_public: str = "") -> Machine:
    """volumes: GiB of each volume that the server may have."""
    net, kind = server.public_net, server.server_type
    sizes = [volumes.get(volume.id, 0) for volume in server.volumes or ()]
    price = monthly(kind.prices or (), server.location.name)
    price += (prices.address if net.ipv4 else 0) + prices.volume(sum(sizes))
    return Machine(
        name=server.name,
        id=str(server.id),
        status=STATUS.get(server.status, "failed"),
        address=net.ipv4.ip if net.ipv4 else "",
        # The vendor routes a /64 to the server, whose image takes the first address of it.
        address6=str(ipaddress.IPv6Network(net.ipv6.ip)[1]) if net.ipv6 else "",
        private_address=next((item.ip for item in server.private_net or () if item.ip), ""),
        host_key_public=host_key_public,
        labels=dict(server.labels or {}),
        type=kind.name,
        created=server.created.isoformat(),
        price=round(price, 4),
        currency=prices.currency,
        volume=bool(sizes),
    )


def reverse_names(server: Any) -> dict[str, str]:
    """Address -> the name that it answers with. Of IPv6 only those that were set."""
    net = server.public_net
    found = {item["ip"]: str(item["dns_ptr"]) for item in (net.ipv6.dns_ptr if net.ipv6 else None) or ()}
    if net.ipv4:
        found[net.ipv4.ip] = str(net.ipv4.dns_ptr or "")
    return found


def remainder(address: Any, prices: Prices) -> Machine:
    """A machine of which a killed run left an address, and perhaps more."""
    labels = dict(address.labels or {})
    return Machine(
        name=labels.get(MACHINE, address.name.removesuffix("-ipv4")),
        id="",
        status="failed",
        address=address.ip,
        labels=labels,
        created=address.created.isoformat(),
        price=prices.address,
        currency=prices.currency,
    )
