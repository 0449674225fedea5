"""Everything of ours at the vendor, of whatever deployment, and deleting one thing of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.machine import Deployment
from deployer.core.provider import Resource
from providers.hetzner import settings as names
from providers.hetzner.api import Api
from providers.hetzner.parts import Parts
from providers.hetzner.prices import Prices
from providers.hetzner.settings import MARK

# In the order in which they can be deleted: what uses something comes before it.
KINDS = ("machine", "address", "firewall", "network", "key", "volume")


def _clients(api: Api) -> dict[str, Any]:
    client = api.client
    return {
        "machine": client.servers,
        "address": client.primary_ips,
        "firewall": client.firewalls,
        "network": client.networks,
        "key": client.ssh_keys,
        "volume": client.volumes,
    }


def resources(api: Api, prices: Prices) -> Sequence[Resource]:
    """All that carries our mark."""
    cost: dict[str, Callable[[Any], float]] = {
        "machine": lambda item: prices.server(str(item.server_type.name)),
        "address": lambda item: prices.address if item.type == "ipv4" else 0.0,
        "volume": lambda item: prices.volume(item.size or 0),
    }
    clients = _clients(api)
    return [
        Resource(
            kind=kind,
            id=str(item.id),
            name=str(item.name),
            deployment=Deployment(item.labels.get(MARK, ""), item.labels.get("deploy-inventory", "")),
            created=item.created.isoformat() if item.created else "",
            price=round(cost.get(kind, lambda _: 0.0)(item), 4),
            currency=prices.currency,
            data=kind == "volume",
        )
        for kind in KINDS
        for item in api.call(f"listing every {kind}", clients[kind].get_all, label_selector=MARK)
    ]


def delete(api: Api, parts: Parts, resource: Resource) -> None:
    """Delete it, if it still carries the deployment's labels. A missing one is no error. Raises DeployError."""
    what = f"deleting the {resource.kind} {resource.name}"
    if resource.kind not in KINDS:
        raise DeployError(what, f"Hetzner has no such kind ({', '.join(KINDS)})")
    found = api.find(what, _clients(api)[resource.kind].get_by_id, int(resource.id))
    if found is None:
        return
    if not resource.deployment.labels().items() <= (found.labels or {}).items():
        raise DeployError(what, f"it does not carry the labels of {resource.deployment}", "it was left alone")
    if resource.kind == "volume":
        delete_volume(api, parts, found)
        return
    answer = api.find(what, found.delete)
    if resource.kind == "machine":
        api.wait(what, [answer])


def delete_data(api: Api, parts: Parts, deployment: Deployment) -> Sequence[str]:
    """The deployment's volumes that no server has; their names."""
    selector = names.selector(deployment.labels())
    found = api.call("listing volumes", api.client.volumes.get_all, label_selector=selector)
    free = [volume for volume in found if volume.server is None]
    for volume in free:
        delete_volume(api, parts, volume)
    return [str(volume.name) for volume in free]


def delete_volume(api: Api, parts: Parts, volume: Any) -> None:
    what = f"deleting the volume {volume.name}"
    if volume.server is not None:
        raise DeployError(what, "a server has it", "delete the machine first")
    parts.protect(volume, on=False)
    api.find(what, volume.delete)
