"""Private networks."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING

from tests.rig.hetzner.request import Answer, Request, Resource, Routes
from tests.rig.hetzner.store import ApiError, Record, invalid, labels

if TYPE_CHECKING:
    from tests.rig.hetzner.fake import FakeHetzner

ZONES = ("eu-central", "us-east", "us-west", "ap-southeast")


def register(routes: Routes, fake: FakeHetzner) -> None:
    Networks(fake).register(routes)


def attach(fake: FakeHetzner, network: Record, server: Record, wanted: str | None = None) -> Record:
    """An address in the network for a server: the wanted or the lowest free one. Raises ApiError."""
    if any(item["network"] == network["id"] for item in server["private_net"]):
        raise ApiError(422, "server_already_attached", "server is already attached to the network")
    used = {
        item["ip"]
        for other in fake.store.tables["servers"].values()
        for item in other["private_net"]
        if item["network"] == network["id"]
    }
    zone = server["location"]["network_zone"]
    for subnet in network["subnets"]:
        # The first address is the gateway's.
        hosts = [str(host) for host in ip_network(subnet["ip_range"]).hosts()][1:]
        free = [host for host in hosts if host not in used]
        if wanted:
            free = [host for host in free if host == wanted]
        if subnet["network_zone"] == zone and free:
            place = {
                "network": network["id"],
                "ip": free[0],
                "alias_ips": [],
                "mac_address": f"86:00:00:{network['id'] % 256:02x}:00:{len(used) % 256:02x}",
            }
            server["private_net"].append(place)
            network["servers"].append(server["id"])
            return place
    if wanted:
        raise ApiError(422, "ip_not_available", "the provided network IP is not available")
    raise ApiError(
        422, "no_subnet_available", "no subnet or IP is available for the server within the network"
    )


def detach(fake: FakeHetzner, server: int) -> None:
    for network in fake.store.tables["networks"].values():
        network["servers"] = [number for number in network["servers"] if number != server]


class Networks(Resource):
    def __init__(self, fake: FakeHetzner) -> None:
        super().__init__(fake, "networks")

    def register(self, routes: Routes) -> None:
        super().register(routes)
        routes.add("POST", "/networks", self.create)
        routes.add("DELETE", "/networks/{id}", self.delete)
        routes.add("POST", "/networks/{id}/actions/add_subnet", self.add_subnet)
        routes.add("POST", "/networks/{id}/actions/delete_subnet", self.delete_subnet)
        routes.add("POST", "/networks/{id}/actions/change_protection", self.protect)

    def create(self, request: Request) -> Answer:
        body = request.body
        try:
            whole = IPv4Network(body["ip_range"])
        except ValueError as error:
            raise invalid("ip_range", str(error)) from error
        if not whole.is_private or not 8 <= whole.prefixlen <= 24:
            raise invalid("ip_range", "must be a private network between /8 and /24")
        record = {
            "name": body["name"],
            "ip_range": str(whole),
            "subnets": [],
            "routes": [],
            "servers": [],
            "load_balancers": [],
            "protection": {"delete": False},
            "labels": labels(body),
            "expose_routes_to_vswitch": body.get("expose_routes_to_vswitch", False),
        }
        for subnet in body.get("subnets", ()):
            record["subnets"].append(_subnet(record, subnet))
        return 201, {"network": self.show(self.store.add("networks", record))}

    def delete(self, request: Request, number: str) -> Answer:
        gone = self.remove(number)
        for server in self.store.tables["servers"].values():
            server["private_net"] = [item for item in server["private_net"] if item["network"] != gone["id"]]
        return 204, None

    def add_subnet(self, request: Request, number: str) -> Answer:
        network = self.store.get("networks", number)
        network["subnets"].append(_subnet(network, request.body))
        return self._done("add_subnet", network)

    def delete_subnet(self, request: Request, number: str) -> Answer:
        network = self.store.get("networks", number)
        if network["servers"]:
            raise ApiError(422, "resource_in_use", "servers are attached to the network")
        gone = request.body["ip_range"]
        network["subnets"] = [item for item in network["subnets"] if item["ip_range"] != gone]
        return self._done("delete_subnet", network)

    def _done(self, command: str, network: Record) -> Answer:
        return 201, {"action": self.store.begin(command, [("network", network["id"])]).show()}


def _subnet(network: Record, body: Record) -> Record:
    """A subnet as the vendor shows it. Raises ApiError."""
    whole = IPv4Network(network["ip_range"])
    used = [IPv4Network(item["ip_range"]) for item in network["subnets"]]
    if body["network_zone"] not in ZONES:
        raise invalid("network_zone", "is unknown")
    try:
        given = body.get("ip_range")
        free = (
            item for item in whole.subnets(new_prefix=24) if not any(item.overlaps(other) for other in used)
        )
        wanted = IPv4Network(given) if given else next(free)
    except (ValueError, StopIteration) as error:
        raise invalid("ip_range", str(error) or "nothing is free") from error
    if not wanted.subnet_of(whole) or wanted.prefixlen > 30 or any(wanted.overlaps(other) for other in used):
        raise invalid("ip_range", "lies outside of the network, or on another subnet, or is too small")
    return {
        "type": body["type"],
        "ip_range": str(wanted),
        "network_zone": body["network_zone"],
        "gateway": str(whole.network_address + 1),
        "vswitch_id": None,
    }
