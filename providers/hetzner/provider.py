"""The provider's methods; see deployer.core.provider for what each one promises.

Order is what makes it safe to be killed anywhere. A machine's IPv4 address is made first and deleted last: it carries
the machine's name as a label, so list_machines finds a machine of which nothing else exists yet, or any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deployer.core.errors import DeployError
from deployer.core.machine import Deployment, Machine, MachineSpec
from deployer.core.provider import Offer, Resource
from providers import cloudinit
from providers.hetzner import answers, listing, mending
from providers.hetzner import settings as names
from providers.hetzner.api import ACTION_TIMEOUT, RERUN, Api, poll
from providers.hetzner.parts import Parts, own
from providers.hetzner.prices import Prices
from providers.hetzner.settings import ROLES, Settings, parse

if TYPE_CHECKING:
    from hcloud.images import BoundImage
    from hcloud.servers import BoundServer

IMAGE = "debian-13"
# Seconds until a new server is in its private network.
NETWORK_TIMEOUT = 60


def make(options: Mapping[str, object], deployment: Deployment) -> HetznerProvider:
    """Raises InputError for options that it does not understand. No network."""
    return HetznerProvider(parse(options), deployment)


class HetznerProvider:
    """Servers of the Hetzner Cloud. Safe to kill and repeat at any point."""

    name = "hetzner"
    at_once = 8

    def __init__(self, settings: Settings, deployment: Deployment) -> None:
        self.settings = settings
        self._deployment = deployment
        self._api = Api(settings)
        self._parts = Parts(self._api, settings)
        self._prices = Prices(self._api, settings)
        # Around what the deployment's machines share, so that two of them do not make it at the same time.
        self._sharing = threading.Lock()

    def check(self) -> None:
        """Token, location and image. The API tells no limits: a full quota shows when something is made."""
        client = self._api.client
        found = self._api.call("asking Hetzner for its locations", client.locations.get_all)
        if self.settings.location not in [place.name for place in found]:
            known = ", ".join(sorted(str(place.name) for place in found))
            raise DeployError(
                "checking the location",
                f"Hetzner has no location {self.settings.location!r}",
                f"name one of {known} in the inventory",
            )
        for architecture in ("x86", "arm"):
            if self.settings.architecture in ("any", architecture):
                self._image(architecture)

    def list_machines(self, deployment: Deployment) -> Sequence[Machine]:
        """Servers, and what a killed run left of one: an address alone is a machine that failed."""
        client, wanted = self._api.client, names.selector(deployment.labels())
        servers: list[Any] = self._api.call("listing servers", client.servers.get_all, label_selector=wanted)
        addresses = self._api.call("listing addresses", client.primary_ips.get_all, label_selector=wanted)
        volumes = self._api.call("listing volumes", client.volumes.get_all, label_selector=wanted)
        sizes = {volume.id: float(volume.size or 0) for volume in volumes if volume.id}
        known = {server.id for server in servers}
        rest = []
        for address in addresses:
            if address.type != "ipv4" or address.assignee_id in known:
                continue
            # A list may lag behind: the address knows of a server that is not listed yet.
            late = address.assignee_id and self._api.find(
                "asking for a server", client.servers.get_by_id, address.assignee_id
            )
            if late:
                servers.append(late)
            else:
                rest.append(answers.remainder(address, self._prices))
        found = [answers.machine(server, self._prices, sizes) for server in servers]
        made = {machine.name for machine in found}
        return sorted(
            [*found, *(machine for machine in rest if machine.name not in made)],
            key=lambda machine: machine.name,
        )

    def create_machine(self, deployment: Deployment, spec: MachineSpec) -> Machine:
        server = self._find_server(deployment, spec.name)
        if server and server.status == "deleting":
            self._wait_until_gone(server)
            server = None
        if server is None:
            server = self._make(deployment, spec)
        if server.status in ("off", "stopping"):
            self._api.call("starting the server", server.power_on)
            server.data_model.status = "starting"
        if server.status in ("initializing", "starting"):
            self._wait_for_network(server)
        sizes = {volume.id: float(spec.volume) for volume in server.volumes or ()}
        return answers.machine(server, self._prices, sizes, spec.host_key_public)

    def delete_machine(self, machine: Machine) -> None:
        """The server and its addresses; with the last one of the deployment also what all share. Volumes stay."""
        deployment = self._deployment
        server = self._find_server(deployment, machine.name)
        if server is None and machine.id:
            # A list may lag behind.
            get = self._api.client.servers.get_by_id
            server = own("server", self._api.find("asking for the server", get, int(machine.id)), deployment)
        if server and server.status != "deleting":
            what = f"deleting the server {machine.name}"
            action = self._api.find(what, server.delete)
            self._api.wait(what, [action])
        if server:
            self._wait_until_gone(server)
        self._delete_address(machine.name, "ipv6")
        self._delete_shared(machine.name)
        self._delete_address(machine.name, "ipv4")

    def offers(self) -> Sequence[Offer]:
        return self._prices.offers()

    def volume_price(self, size: int) -> float:
        """What a volume of `size` GiB costs a month, in the currency of the offers."""
        return round(self._prices.volume(size), 4)

    # --- capabilities ---

    def set_reverse_dns(self, machine: Machine, name: str) -> None:
        """Both addresses answer with `name`, which must already have them as its addresses."""
        server = self._server_of(machine)
        present = answers.reverse_names(server)
        what = f"setting the reverse name {name}"
        for address in (machine.address, machine.address6):
            if address and present.get(address) != name:
                self._api.wait(what, [self._api.call(what, server.change_dns_ptr, address, name)])

    def reverse_dns(self, machine: Machine) -> Mapping[str, str]:
        present = answers.reverse_names(self._server_of(machine))
        return {
            address: present.get(address, "") for address in (machine.address, machine.address6) if address
        }

    def resources(self) -> Sequence[Resource]:
        return listing.resources(self._api, self._prices)

    def delete_resource(self, resource: Resource) -> None:
        listing.delete(self._api, self._parts, resource)

    def delete_data(self, deployment: Deployment) -> Sequence[str]:
        return listing.delete_data(self._api, self._parts, deployment)

    def drift(self, machine: Machine, spec: MachineSpec) -> Sequence[str]:
        return [change.words for change in self._changes(machine, spec)]

    def mend(self, machine: Machine, spec: MachineSpec) -> None:
        for change in self._changes(machine, spec):
            change.mend()

    def _changes(self, machine: Machine, spec: MachineSpec) -> Sequence[mending.Change]:
        server = self._server_of(machine)
        return mending.changes(self._api, self._parts, self._prices, self._deployment, server, spec)

    # --- making ---

    def _make(self, deployment: Deployment, spec: MachineSpec) -> Any:
        from hcloud.images import Image
        from hcloud.locations import Location
        from hcloud.server_types import ServerType
        from hcloud.servers import ServerCreatePublicNetwork
        from hcloud.ssh_keys import SSHKey

        kind = self._prices.choose(spec)
        image = self._image(str(kind.architecture))
        v4 = self._parts.address(deployment, spec, "ipv4")
        v6 = self._parts.address(deployment, spec, "ipv6")
        with self._sharing:
            key = self._parts.key(deployment, spec)
            network = self._parts.network(deployment)
            wall = self._parts.wall(deployment, spec)
        volume = self._parts.volume(deployment, spec)

        def create() -> BoundServer:
            made = self._api.client.servers.create(
                name=spec.name,
                # By names: the API's description wants texts, and the client sends numbers as numbers.
                server_type=ServerType(name=kind.name),
                image=Image(name=str(image.id)),
                location=Location(name=self.settings.location),
                ssh_keys=[SSHKey(name=key.name)] if key else None,
                volumes=[volume] if volume else None,
                networks=[network],
                firewalls=[wall],
                user_data=cloudinit.user_data(spec),
                labels=names.machine_labels(deployment, spec),
                public_net=ServerCreatePublicNetwork(ipv4=v4, ipv6=v6),
                start_after_create=True,
                automount=False,
            )
            return made.server

        what = f"making the server {spec.name}"
        return self._api.ensure(what, lambda: self._find_server(deployment, spec.name), create)

    def _image(self, architecture: str) -> BoundImage:
        """The newest system image of Debian 13. Raises DeployError."""
        found = self._api.call(
            f"looking for the image {IMAGE}",
            self._api.client.images.get_all,
            name=IMAGE,
            type=["system"],
            architecture=[architecture],
        )
        if not found:
            why = f"Hetzner has no image {IMAGE} for {architecture}"
            raise DeployError("looking for Debian 13", why, "see https://status.hetzner.com; then " + RERUN)
        return max(found, key=lambda image: image.id or 0)

    # --- finding ---

    def _find_server(self, deployment: Deployment, name: str) -> Any:
        """None when there is none. Raises DeployError for one that is not ours."""
        found = self._api.call(f"looking for the server {name}", self._api.client.servers.get_by_name, name)
        return own("server", found, deployment)

    def _server_of(self, machine: Machine) -> Any:
        """By its number, which stands also where a label was taken away. Raises DeployError when there is none."""
        get = self._api.client.servers.get_by_id
        found = self._api.find("asking for the server", get, int(machine.id)) if machine.id else None
        if found is None or found.name != machine.name:
            why = f"there is no server of that name with the number {machine.id or '(none)'}"
            raise DeployError("looking for the server at Hetzner", why, RERUN, machine=machine.name)
        return found

    def _wait_until_gone(self, server: Any) -> None:
        what = f"waiting for the end of the server {server.name}"
        deadline = time.monotonic() + ACTION_TIMEOUT
        polls = 0
        while self._api.find(what, self._api.client.servers.get_by_id, server.id):
            if time.monotonic() > deadline:
                raise DeployError(what, f"it is not gone after {ACTION_TIMEOUT} s", RERUN)
            time.sleep(poll(polls))
            polls += 1

    def _wait_for_network(self, server: Any) -> None:
        """A new server gets its private address a moment after its number."""
        deadline = time.monotonic() + NETWORK_TIMEOUT
        polls = 0
        while not server.private_net and server.status in ("initializing", "starting"):
            if time.monotonic() > deadline:
                why = f"it is not in its private network after {NETWORK_TIMEOUT} s"
                raise DeployError(f"making the server {server.name}", why, RERUN)
            time.sleep(poll(polls))
            polls += 1
            self._api.call("asking for the server", server.reload)

    # --- deleting ---

    def _delete_address(self, machine: str, family: str) -> None:
        if found := self._parts.find_address(self._deployment, machine, family):
            self._api.find(f"deleting the {family} address of {machine}", found.delete)

    def _delete_shared(self, machine: str) -> None:
        """Firewalls that no other machine needs; key and network with the last machine."""
        client, deployment = self._api.client, self._deployment
        selector = names.selector(deployment.labels())
        others = [item for item in self.list_machines(deployment) if item.name != machine]
        roles = {item.labels.get(ROLES) for item in others}
        for wall in self._api.call("listing firewalls", client.firewalls.get_all, label_selector=selector):
            if (wall.labels or {}).get(ROLES) not in roles:
                self._api.find(f"deleting the firewall {wall.name}", wall.delete)
        if others:
            return
        for network in self._api.call("listing networks", client.networks.get_all, label_selector=selector):
            self._api.find(f"deleting the network {network.name}", network.delete)
        for key in self._api.call("listing SSH keys", client.ssh_keys.get_all, label_selector=selector):
            self._api.find(f"deleting the SSH key {key.name}", key.delete)
