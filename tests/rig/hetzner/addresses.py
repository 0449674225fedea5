"""Primary IPs."""

from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from tests.rig.hetzner import catalog
from tests.rig.hetzner.request import Answer, Request, Resource, Routes
from tests.rig.hetzner.store import ApiError, Record, invalid, labels

if TYPE_CHECKING:
    from tests.rig.hetzner.fake import FakeHetzner


def register(routes: Routes, fake: FakeHetzner) -> None:
    PrimaryIps(fake).register(routes)


def make(fake: FakeHetzner, name: str, family: str, place: Record, **more: object) -> Record:
    """A new address, the lowest free one. Raises ApiError."""
    used = {item["ip"] for item in fake.store.tables["primary_ips"].values()}
    pool = fake.hardware.addresses() if family == "ipv4" else map(fake.hardware.network6, itertools.count(1))
    free = next((item for item in pool if item not in used), None)
    if free is None:
        raise ApiError(412, "resource_unavailable", "no address left in this location")
    words = free.replace(".", "-")
    record = {
        "name": name,
        "labels": {},
        "blocked": False,
        "datacenter": catalog.datacenter(place),
        "location": place,
        "ip": free,
        "dns_ptr": [{"ip": free, "dns_ptr": f"static.{words}.clients.rig.test"}] if family == "ipv4" else [],
        "protection": {"delete": False},
        "type": family,
        "auto_delete": False,
        "assignee_type": "server",
        "assignee_id": None,
        **more,
    }
    return fake.store.add("primary_ips", record)


def change_ptr(fake: FakeHetzner, record: Record, body: Record) -> None:
    """Set or forget the reverse name of an address of a primary IP. Raises ApiError."""
    ip, name = body["ip"], body.get("dns_ptr")
    try:
        inside = ip_address(ip) in ip_network(record["ip"])
    except ValueError:
        inside = False
    if not inside:
        raise invalid("ip", "is not an address of it")
    record["dns_ptr"] = [item for item in record["dns_ptr"] if item["ip"] != ip]
    if name:
        record["dns_ptr"].append({"ip": ip, "dns_ptr": name})
    elif record["type"] == "ipv4":
        words = ip.replace(".", "-")
        record["dns_ptr"].append({"ip": ip, "dns_ptr": f"static.{words}.clients.rig.test"})
    fake.reverse(ip, name)


class PrimaryIps(Resource):
    def __init__(self, fake: FakeHetzner) -> None:
        super().__init__(fake, "primary_ips")

    def register(self, routes: Routes) -> None:
        super().register(routes)
        routes.add("POST", "/primary_ips", self.create)
        routes.add("DELETE", "/primary_ips/{id}", self.delete)
        routes.add("POST", "/primary_ips/{id}/actions/assign", self.assign)
        routes.add("POST", "/primary_ips/{id}/actions/unassign", self.unassign)
        routes.add("POST", "/primary_ips/{id}/actions/change_dns_ptr", self.change_dns_ptr)
        routes.add("POST", "/primary_ips/{id}/actions/change_protection", self.protect)

    def create(self, request: Request) -> Answer:
        body = request.body
        server = self.store.get("servers", body["assignee_id"]) if body.get("assignee_id") else None
        place = server["location"] if server else catalog.location(body.get("location"))
        if not place:
            raise invalid("location", "is missing or unknown")
        more = {"labels": labels(body), "auto_delete": body.get("auto_delete", False)}
        if server:
            self._check_free(server, body["type"])
        made = make(self.fake, body["name"], body["type"], place, **more)
        if server:
            made["assignee_id"] = server["id"]
        action = self.store.begin("create_primary_ip", [("primary_ip", made["id"])])
        return 201, {"primary_ip": self.show(made), "action": action.show()}

    def delete(self, request: Request, number: str) -> Answer:
        if self.store.get("primary_ips", number)["assignee_id"]:
            raise ApiError(
                422, "must_be_unassigned", "primary IP must be unassigned before it can be deleted"
            )
        record = self.remove(number)
        self.fake.reverse(record["ip"], None)
        return 204, None

    def assign(self, request: Request, number: str) -> Answer:
        record, server = (
            self.store.get("primary_ips", number),
            self.store.get("servers", request.body["assignee_id"]),
        )
        if record["assignee_id"]:
            raise ApiError(422, "primary_ip_already_assigned", "primary IP is already assigned")
        if record["location"]["id"] != server["location"]["id"]:
            raise ApiError(422, "primary_ip_location_mismatch", "primary IP is in another location")
        self._check_free(server, record["type"])
        record["assignee_id"] = server["id"]
        return self._done("assign_primary_ip", record)

    def unassign(self, request: Request, number: str) -> Answer:
        record = self.store.get("primary_ips", number)
        if not record["assignee_id"]:
            raise ApiError(422, "primary_ip_not_assigned", "primary IP is not assigned")
        if self.store.get("servers", record["assignee_id"])["status"] != "off":
            raise ApiError(422, "server_not_stopped", "server must be powered off")
        record["assignee_id"] = None
        return self._done("unassign_primary_ip", record)

    def _check_free(self, server: Record, family: str) -> None:
        if server["status"] != "off":
            raise ApiError(422, "server_not_stopped", "server must be powered off")
        for other in self.store.tables["primary_ips"].values():
            if other["assignee_id"] == server["id"] and other["type"] == family:
                raise ApiError(422, f"server_has_{family}", f"server already has an {family} address")

    def change_dns_ptr(self, request: Request, number: str) -> Answer:
        record = self.store.get("primary_ips", number)
        change_ptr(self.fake, record, request.body)
        return self._done("change_dns_ptr", record)

    def _done(self, command: str, record: Record) -> Answer:
        action = self.store.begin(command, [("primary_ip", record["id"])])
        return 201, {"action": action.show()}
