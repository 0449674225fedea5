"""What somebody changed at the vendor by hand, and putting it back: labels, rules, what belongs to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.machine import Deployment, MachineSpec
from providers.hetzner import settings as names
from providers.hetzner.api import Api
from providers.hetzner.parts import Parts, ours, rules, shown, without, words
from providers.hetzner.prices import Prices


@dataclass(frozen=True)
class Change:
    """A difference in words, and the call that removes it."""

    words: str
    mend: Callable[[], None]


def changes(
    api: Api, parts: Parts, prices: Prices, deployment: Deployment, server: Any, spec: MachineSpec
) -> Sequence[Change]:
    """Everything that differs from what create_machine would have made."""
    return [
        *_labels(api, "server", server, names.machine_labels(deployment, spec)),
        *_wall(api, parts, deployment, server, spec),
        *_network(api, parts, deployment, server),
        *_addresses(api, deployment, server, spec),
        *_volume(api, parts, prices, deployment, server, spec),
    ]


def _labels(api: Api, kind: str, found: Any, wanted: Mapping[str, str]) -> Iterator[Change]:
    missing = without(found.labels, wanted)
    if missing:

        def mend() -> None:
            api.call(
                f"labelling the {kind} {found.name}", found.update, labels={**(found.labels or {}), **wanted}
            )

        yield Change(f"{kind} {found.name}: without the label {', '.join(missing)}", mend)


def _belonging(api: Api, kind: str, client: Any, name: str, deployment: Deployment, mine: set[int]) -> Any:
    """A part by its name: one with our labels, or one that our server has (then its labels were taken away)."""
    found = api.call(f"looking for the {kind} {name}", client.get_by_name, name)
    return found if found is not None and (ours(found, deployment) or found.id in mine) else None


def _wall(api: Api, parts: Parts, deployment: Deployment, server: Any, spec: MachineSpec) -> Iterator[Change]:
    name, wanted = names.wall_name(deployment, spec), rules(spec.openings)
    applied = {item.firewall.id for item in server.public_net.firewalls or ()}
    wall = _belonging(api, "firewall", api.client.firewalls, name, deployment, applied)
    if wall is None:

        def make() -> None:
            _apply(api, parts.wall(deployment, spec), server)

        yield Change(f"firewall {name}: missing", make)
        return
    yield from _labels(api, "firewall", wall, names.wall_labels(deployment, spec))
    present = shown(wall)
    if present != wanted:
        told = [f"+ {words(rule)}" for rule in sorted(wanted - present, key=words)]
        told += [f"- {words(rule)}" for rule in sorted(present - wanted, key=words)]
        yield Change(
            f"firewall {name}: rules to change: {'; '.join(told)}", lambda: parts.set_rules(wall, wanted)
        )
    if wall.id not in applied:
        yield Change(f"firewall {name}: does not guard {server.name}", lambda: _apply(api, wall, server))


def _apply(api: Api, wall: Any, server: Any) -> None:
    from hcloud.firewalls import FirewallResource

    resource = FirewallResource(type=FirewallResource.TYPE_SERVER, server=server)
    what = f"applying the firewall {wall.name} to {server.name}"
    api.wait(what, api.call(what, wall.apply_to_resources, [resource]))


def _network(api: Api, parts: Parts, deployment: Deployment, server: Any) -> Iterator[Change]:
    name = names.group(deployment)
    attached = {item.network.id for item in server.private_net or ()}
    network = _belonging(api, "network", api.client.networks, name, deployment, attached)

    def attach() -> None:
        what = f"attaching {server.name} to the network {name}"
        api.wait(what, [api.call(what, server.attach_to_network, network or parts.network(deployment))])

    if network is not None:
        yield from _labels(api, "network", network, deployment.labels())
    if network is None or network.id not in attached:
        yield Change(f"network {name}: {server.name} is not in it", attach)


def _addresses(api: Api, deployment: Deployment, server: Any, spec: MachineSpec) -> Iterator[Change]:
    net = server.public_net
    for family, present in (("ipv4", net.primary_ipv4), ("ipv6", net.primary_ipv6)):
        mine = {present.id} if present else set()
        name = names.address_name(spec.name, family)
        found = _belonging(api, "address", api.client.primary_ips, name, deployment, mine)
        if found is not None:
            yield from _labels(api, "address", found, names.machine_labels(deployment, spec))


def _volume(
    api: Api, parts: Parts, prices: Prices, deployment: Deployment, server: Any, spec: MachineSpec
) -> Iterator[Change]:
    if not spec.volume:
        return
    name = names.volume_name(spec.name)
    attached = {item.id for item in server.volumes or ()}
    volume = _belonging(api, "volume", api.client.volumes, name, deployment, attached)
    if volume is None:

        def refuse() -> None:
            raise DeployError(
                f"looking for the volume {name} at Hetzner",
                "it is gone, and the machine's data with it",
                "make the machine anew and restore its data from a backup",
                machine=spec.name,
            )

        yield Change(f"volume {name}: missing", refuse)
        return
    yield from _labels(api, "volume", volume, names.machine_labels(deployment, spec))
    if not (volume.protection or {}).get("delete"):
        yield Change(f"volume {name}: can be deleted by mistake", lambda: parts.protect(volume))
    if volume.id not in attached:

        def attach() -> None:
            what = f"attaching the volume {name}"
            api.wait(what, [api.call(what, volume.attach, server, automount=False)])

        yield Change(f"volume {name}: not attached to {server.name}", attach)
    size = int(volume.size or 0)
    # None can be made smaller, so a larger one stays.
    if 0 < size < spec.volume:
        beside = f"{prices.volume(spec.volume - size):.2f} {prices.currency} a month more"

        def grow() -> None:
            what = f"making the volume {name} larger"
            api.wait(what, [api.call(what, volume.resize, spec.volume)])

        yield Change(f"volume {name}: {size} GiB, to be {spec.volume} ({beside})", grow)
