"""What a server is made of besides itself: addresses, key, network, firewall, volume. Each is made once, and found by
its name."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from deployer.core.errors import DeployError
from deployer.core.machine import Deployment, MachineSpec, Opening
from providers.hetzner import settings as names
from providers.hetzner.api import Api
from providers.hetzner.settings import Settings

if TYPE_CHECKING:
    from hcloud.firewalls import BoundFirewall, FirewallRule
    from hcloud.networks import BoundNetwork
    from hcloud.primary_ips import BoundPrimaryIP
    from hcloud.ssh_keys import BoundSSHKey
    from hcloud.volumes import BoundVolume

WORLD = ("0.0.0.0/0", "::/0")
SSH = 22
# What the vendor makes at least, GiB.
SMALLEST_VOLUME = 10

# A rule of a firewall, to compare: protocol, port, sources.
Rule = tuple[str, str, frozenset[str]]


class Labelled(Protocol):
    """What every resource of the vendor has."""

    id: Any
    name: Any
    labels: Any


def ours(resource: Labelled, deployment: Deployment) -> bool:
    return deployment.labels().items() <= (resource.labels or {}).items()


def own(kind: str, resource: Any, deployment: Deployment) -> Any:
    """The resource, which carries our labels. Raises DeployError for somebody else's."""
    if resource is not None and not ours(resource, deployment):
        raise foreign(kind, resource, deployment)
    return resource


def foreign(kind: str, resource: Labelled, deployment: Deployment) -> DeployError:
    labels = ", ".join(f"{key}={value}" for key, value in deployment.labels().items())
    return DeployError(
        f"looking for the {kind} {resource.name} at Hetzner",
        f"there is one of that name (number {resource.id}) without the labels of {deployment}",
        f"rename it or use a Hetzner project of its own; if it is ours, give it the labels {labels} there",
    )


class Parts:
    """Finding and making them. `find_` methods raise DeployError for what is not ours."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._settings = settings

    # --- addresses ---

    def find_address(self, deployment: Deployment, machine: str, family: str) -> BoundPrimaryIP | None:
        name = names.address_name(machine, family)
        found = self._api.call(
            f"looking for the address {name}", self._api.client.primary_ips.get_by_name, name
        )
        return own("address", found, deployment)  # type: ignore[no-any-return]

    def address(self, deployment: Deployment, spec: MachineSpec, family: str) -> BoundPrimaryIP:
        from hcloud.primary_ips import BoundPrimaryIP

        client = self._api.client

        def make() -> BoundPrimaryIP:
            # Not by primary_ips.create, which leaves out assignee_type; the API's description wants it.
            body = {
                "name": names.address_name(spec.name, family),
                "type": family,
                "location": self._settings.location,
                "assignee_type": "server",
                "auto_delete": False,
                "labels": names.machine_labels(deployment, spec),
            }
            answer = client.request("POST", "/primary_ips", json=body)
            return BoundPrimaryIP(client.primary_ips, answer["primary_ip"])

        what = f"making an {family} address"
        return self._api.ensure(what, lambda: self.find_address(deployment, spec.name, family), make)

    # --- the deployment's key, network and firewalls ---

    def key(self, deployment: Deployment, spec: MachineSpec) -> BoundSSHKey | None:
        """The first key of the spec. Without one the vendor sets a password for root, mails it, and wants it changed at
        the first log-in. One with the same fingerprint may be anybody's: it is used, and left to its owner."""
        if not spec.ssh_keys:
            return None
        client = self._api.client
        public = " ".join(spec.ssh_keys[0].split()[:2])
        print_ = md5_fingerprint(public)

        def find() -> BoundSSHKey | None:
            found = self._api.call(
                "looking for the SSH key", client.ssh_keys.get_list, fingerprint=print_
            ).ssh_keys
            return found[0] if found else None

        def make() -> BoundSSHKey:
            # Two deployments may share a key, and one may have several over time.
            name = f"{names.group(deployment)}-{print_.replace(':', '')[:8]}"
            return client.ssh_keys.create(name, public, labels=deployment.labels())

        return self._api.ensure("adding the SSH key", find, make)

    def find_network(self, deployment: Deployment) -> BoundNetwork | None:
        name = names.group(deployment)
        found = self._api.call(f"looking for the network {name}", self._api.client.networks.get_by_name, name)
        return own("network", found, deployment)  # type: ignore[no-any-return]

    def network(self, deployment: Deployment) -> BoundNetwork:
        from hcloud.networks import NetworkSubnet

        client = self._api.client

        def make() -> BoundNetwork:
            place = self._api.call(
                "asking for the location", client.locations.get_by_name, self._settings.location
            )
            subnet = NetworkSubnet(
                str(self._settings.subnet), type="cloud", network_zone=place.network_zone if place else None
            )
            return client.networks.create(
                names.group(deployment),
                str(self._settings.network),
                subnets=[subnet],
                labels=deployment.labels(),
            )

        return self._api.ensure("making the private network", lambda: self.find_network(deployment), make)

    def find_wall(self, deployment: Deployment, spec: MachineSpec) -> BoundFirewall | None:
        name = names.wall_name(deployment, spec)
        found = self._api.call(
            f"looking for the firewall {name}", self._api.client.firewalls.get_by_name, name
        )
        return own("firewall", found, deployment)  # type: ignore[no-any-return]

    def wall(self, deployment: Deployment, spec: MachineSpec) -> BoundFirewall:
        """The firewall of the machines with these roles, with the rules that the spec wants."""
        client = self._api.client
        wanted = rules(spec.openings)

        def make() -> BoundFirewall:
            labels: Any = names.wall_labels(deployment, spec)
            made = client.firewalls.create(
                names.wall_name(deployment, spec), rules=payload(wanted), labels=labels
            )
            return made.firewall

        found = self._api.ensure("making the firewall", lambda: self.find_wall(deployment, spec), make)
        if shown(found) != wanted:
            self.set_rules(found, wanted)
        return found

    def set_rules(self, wall: BoundFirewall, wanted: frozenset[Rule]) -> None:
        actions = self._api.call("setting the firewall's rules", wall.set_rules, payload(wanted))
        self._api.wait("setting the firewall's rules", actions)

    # --- the volume ---

    def find_volume(self, deployment: Deployment, machine: str) -> BoundVolume | None:
        name = names.volume_name(machine)
        found = self._api.call(f"looking for the volume {name}", self._api.client.volumes.get_by_name, name)
        return own("volume", found, deployment)  # type: ignore[no-any-return]

    def volume(self, deployment: Deployment, spec: MachineSpec) -> BoundVolume | None:
        """A volume that cannot be deleted by mistake; one that a former machine left is used again, with its data."""
        from hcloud.locations import Location

        if not spec.volume:
            return None
        client = self._api.client

        def make() -> BoundVolume:
            labels: Any = names.machine_labels(deployment, spec)
            made = client.volumes.create(
                max(spec.volume, SMALLEST_VOLUME),
                names.volume_name(spec.name),
                labels=labels,
                location=Location(name=self._settings.location),
            )
            self._api.wait("making the volume", [made.action])
            return made.volume

        found = self._api.ensure("making the volume", lambda: self.find_volume(deployment, spec.name), make)
        if found.location and found.location.name != self._settings.location:
            raise DeployError(
                "attaching the data volume",
                f"{found.name} is in {found.location.name}, the inventory says {self._settings.location}",
                "set the location back, or move the data by a backup and delete the volume",
                machine=spec.name,
            )
        self.protect(found)
        return found

    def protect(self, volume: BoundVolume, on: bool = True) -> None:
        protection: Any = volume.protection or {}
        if bool(protection.get("delete")) != on:
            what = f"{'' if on else 'un'}protecting the volume {volume.name}"
            self._api.wait(what, [self._api.call(what, volume.change_protection, delete=on)])


# --- rules of a firewall ---


def rules(openings: Iterable[Opening]) -> frozenset[Rule]:
    """What shall be let in: the openings, ping, and SSH from everywhere unless an opening says from where."""
    wanted = [*openings]
    if not any(opening.number == SSH and opening.protocol == "tcp" for opening in wanted):
        wanted.append(Opening(SSH))
    found: dict[tuple[str, str], set[str]] = {("icmp", ""): set(WORLD)}
    for opening in wanted:
        sources = {str(ipaddress.ip_network(source, strict=False)) for source in opening.sources or WORLD}
        found.setdefault((opening.protocol, str(opening.number)), set()).update(sources)
    return frozenset((protocol, port, frozenset(sources)) for (protocol, port), sources in found.items())


def shown(wall: BoundFirewall) -> frozenset[Rule]:
    """A firewall's rules, to compare. One for what goes out is none of ours, and differs from all that we want."""
    return frozenset(
        (rule.protocol, rule.port or "", frozenset(rule.source_ips))
        if rule.direction == "in"
        else (f"out {rule.protocol}", rule.port or "", frozenset(rule.destination_ips))
        for rule in wall.rules or ()
    )


def payload(wanted: frozenset[Rule]) -> list[FirewallRule]:
    from hcloud.firewalls import FirewallRule

    return [
        FirewallRule(
            direction=FirewallRule.DIRECTION_IN,
            protocol=protocol,
            port=port or None,
            source_ips=sorted(sources),
        )
        for protocol, port, sources in sorted(wanted, key=lambda rule: (rule[0], rule[1].zfill(5)))
    ]


def words(rule: Rule) -> str:
    """A rule for the operator: "tcp/25 from 192.0.2.0/24"."""
    protocol, port, sources = rule
    where = "everywhere" if sources >= set(WORLD) else ", ".join(sorted(sources)) or "nowhere"
    return f"{protocol}{'/' + port if port else ''} from {where}"


def md5_fingerprint(public: str) -> str:
    """As the vendor shows it: MD5 of the key, with colons."""
    import base64
    import hashlib

    blob = base64.b64decode(public.split()[1])
    return hashlib.md5(blob, usedforsecurity=False).digest().hex(":")


def without(labels: Mapping[str, str] | None, wanted: Mapping[str, str]) -> list[str]:
    """Which of the wanted labels are missing or other, as "key=value"."""
    found = labels or {}
    return [f"{key}={value}" for key, value in wanted.items() if found.get(key) != value]
