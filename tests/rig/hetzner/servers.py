"""Servers: making one of all its parts, switching it on and off, and taking it apart."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from tests.rig.hetzner import addresses, catalog, networks, volumes, walls
from tests.rig.hetzner.hardware import Wanted
from tests.rig.hetzner.request import Answer, Request, Resource, Routes
from tests.rig.hetzner.store import Action, ApiError, Record, invalid, labels, not_found, public, taken

if TYPE_CHECKING:
    from tests.rig.hetzner.fake import FakeHetzner

HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
USER_DATA_LIMIT = 32 << 10


def register(routes: Routes, fake: FakeHetzner) -> None:
    Servers(fake).register(routes)


class Servers(Resource):
    def __init__(self, fake: FakeHetzner) -> None:
        super().__init__(fake, "servers", self.view)

    def register(self, routes: Routes) -> None:
        super().register(routes)
        routes.add("POST", "/servers", self.create)
        routes.add("DELETE", "/servers/{id}", self.delete)
        for name, function in (
            ("poweron", self.power_on),
            ("poweroff", self.power_off),
            ("shutdown", self.power_off),
            ("change_protection", self.protect),
            ("change_dns_ptr", self.change_dns_ptr),
            ("attach_to_network", self.attach_to_network),
            ("detach_from_network", self.detach_from_network),
        ):
            routes.add("POST", f"/servers/{{id}}/actions/{name}", function)

    def view(self, record: Record) -> Record:
        """The record with what follows from other resources."""
        tables, number = self.store.tables, record["id"]
        ips = {item["type"]: item for item in tables["primary_ips"].values() if item["assignee_id"] == number}
        v4, v6 = ips.get("ipv4"), ips.get("ipv6")
        return {
            **public(record),
            # The vendor attaches it a moment later.
            "private_net": [] if record["status"] == "initializing" else record["private_net"],
            "public_net": {
                "ipv4": v4
                and {
                    "id": v4["id"],
                    "ip": v4["ip"],
                    "blocked": False,
                    "dns_ptr": v4["dns_ptr"][0]["dns_ptr"],
                },
                "ipv6": v6 and {"id": v6["id"], "ip": v6["ip"], "blocked": False, "dns_ptr": v6["dns_ptr"]},
                "floating_ips": [],
                "firewalls": [
                    {"id": item["id"], "status": "applied"} for item in walls.of_server(self.fake, number)
                ],
            },
            "volumes": [item["id"] for item in tables["volumes"].values() if item["server"] == number],
        }

    # --- making ---

    def create(self, request: Request) -> Answer:
        body = request.body
        if not HOSTNAME.fullmatch(body["name"]):
            raise invalid("name", "is no valid hostname")
        if any(item["name"] == body["name"] for item in self.store.tables["servers"].values()):
            raise taken("name", "server name is already used")
        if len(body.get("user_data", "").encode()) > USER_DATA_LIMIT:
            raise invalid("user_data", "is longer than 32 KiB")
        place, kind, image = self._offer(body)
        attached = [self.store.get("volumes", number) for number in body.get("volumes", ())]
        for volume in attached:
            volumes.check_attachable(volume, place)
        fences = [self.store.get("firewalls", item["firewall"]) for item in body.get("firewalls", ())]
        nets = [self.store.get("networks", number) for number in body.get("networks", ())]
        for wanted in body.get("ssh_keys", ()):
            keys = self.store.tables["ssh_keys"].values()
            if not any(wanted in (key["name"], str(key["id"])) for key in keys):
                raise not_found("ssh_key", wanted)
        existing = self._addresses(body.get("public_net", {}), place)
        made = self.store.add("servers", _record(body, place, kind, image))
        try:
            for net in nets:
                networks.attach(self.fake, net, made)
        except ApiError:
            del self.store.tables["servers"][made["id"]]
            raise
        for family, address in existing.items():
            address = address or addresses.make(
                self.fake, f"primary_ip-{made['id']}-{family}", family, place, auto_delete=True
            )
            address["assignee_id"] = made["id"]
        for fence in fences:
            walls.apply(fence, made["id"])
        for volume in attached:
            volume["server"] = made["id"]
        following = self._boot(made, body)
        return 201, {
            "server": self.show(made),
            "action": following[0].show(),
            "next_actions": [item.show() for item in following[1:]],
            "root_password": None if body.get("ssh_keys") else "rig-root-password",
        }

    def _offer(self, body: Record) -> tuple[Record, Record, Record]:
        """Location, type and image of a request. Raises ApiError."""
        place = catalog.location(body.get("location", "fsn1"))
        if not place:
            raise invalid("location", "is unknown")
        kind = next(
            (i for i in catalog.SERVER_TYPES if body["server_type"] in (i["name"], str(i["id"]))), None
        )
        if not kind:
            raise invalid("server_type", "is unknown")
        here = next(item for item in kind["locations"] if item["name"] == place["name"])
        if here["deprecation"] or not here["available"]:
            raise ApiError(412, "resource_unavailable", "server type is not available in this location")
        image = next(
            (
                item
                for item in catalog.IMAGES
                if body["image"] == str(item["id"])
                or (body["image"] == item["name"] and item["architecture"] == kind["architecture"])
            ),
            None,
        )
        if not image or image["architecture"] != kind["architecture"]:
            raise invalid("image", "is unknown, or of another architecture")
        return place, kind, image

    def _addresses(self, wanted: Record, place: Record) -> dict[str, Record | None]:
        """Family -> the primary IP to use, None for a new one. Raises ApiError."""
        found: dict[str, Record | None] = {}
        for family in ("ipv4", "ipv6"):
            if not wanted.get(f"enable_{family}", True):
                continue
            number = wanted.get(family)
            record = self.store.get("primary_ips", number) if number else None
            if record and record["assignee_id"]:
                raise ApiError(422, "primary_ip_already_assigned", "primary IP is already assigned")
            if record and (record["type"], record["location"]["id"]) != (family, place["id"]):
                raise invalid(f"public_net.{family}", "is of another kind, or in another location")
            found[family] = record
        return found

    def _boot(self, made: Record, body: Record) -> list[Action]:
        shown = self.view(made)
        public_net = shown["public_net"]
        v6 = public_net["ipv6"] and str(ip_network(public_net["ipv6"]["ip"])[1])
        private = ""
        if made["private_net"]:
            net = self.store.get("networks", made["private_net"][0]["network"])
            private = f"{made['private_net'][0]['ip']}/{ip_network(net['ip_range']).prefixlen}"
        wanted = Wanted(
            id=made["id"],
            name=made["name"],
            address=public_net["ipv4"]["ip"] if public_net["ipv4"] else "",
            address6=v6 or "",
            private=private,
            user_data=body.get("user_data", ""),
            volumes=shown["volumes"],
        )
        resources = [("server", made["id"])]
        starts = body.get("start_after_create", True)
        job = (lambda: self.fake.hardware.create(wanted)) if starts else None
        made |= {"_wanted": wanted, "_made_machine": starts}
        state = "starting" if starts else "off"
        first = self.store.begin("create_server", resources, lambda: made.update(status=state), job)
        if not starts:
            return [first]
        second = self.store.begin(
            "start_server", resources, lambda: made.update(status="running"), after=first
        )
        return [first, second]

    # --- actions ---

    def power_on(self, request: Request, number: str) -> Answer:
        server = self._unlocked(number)
        hardware, wanted = self.fake.hardware, server["_wanted"]
        job = (
            (lambda: hardware.start(server["name"]))
            if server["_made_machine"]
            else lambda: hardware.create(wanted)
        )
        server["_made_machine"] = True
        server["status"] = "starting"
        return self._answer("start_server", server, {"status": "running"}, job)

    def power_off(self, request: Request, number: str) -> Answer:
        server = self._unlocked(number)
        server["status"] = "stopping"
        stop = self.fake.hardware.stop
        return self._answer("stop_server", server, {"status": "off"}, lambda: stop(server["name"]))

    def attach_to_network(self, request: Request, number: str) -> Answer:
        server = self.store.get("servers", number)
        network = self.store.get("networks", request.body["network"])
        networks.attach(self.fake, network, server, request.body.get("ip"))
        return self._answer("attach_to_network", server)

    def detach_from_network(self, request: Request, number: str) -> Answer:
        server, gone = self.store.get("servers", number), request.body["network"]
        server["private_net"] = [item for item in server["private_net"] if item["network"] != gone]
        network = self.store.get("networks", gone)
        network["servers"] = [item for item in network["servers"] if item != server["id"]]
        return self._answer("detach_from_network", server)

    def change_dns_ptr(self, request: Request, number: str) -> Answer:
        server = self.store.get("servers", number)
        for record in self.store.tables["primary_ips"].values():
            if record["assignee_id"] == server["id"] and _belongs(request.body["ip"], record["ip"]):
                addresses.change_ptr(self.fake, record, request.body)
                return self._answer("change_dns_ptr", server)
        raise invalid("ip", "is not an address of the server")

    def delete(self, request: Request, number: str) -> Answer:
        server = self._unlocked(number)
        if server["protection"]["delete"]:
            raise ApiError(423, "protected", "server deletion is protected")
        server["status"] = "deleting"
        action = self.store.begin(
            "delete_server",
            [("server", server["id"])],
            lambda: self._gone(server),
            lambda: self.fake.hardware.delete(server["name"]),
        )
        return 200, {"action": action.show()}

    def _gone(self, server: Record) -> None:
        tables, number = self.store.tables, server["id"]
        for address in list(tables["primary_ips"].values()):
            if address["assignee_id"] == number:
                address["assignee_id"] = None
                if address["auto_delete"]:
                    del tables["primary_ips"][address["id"]]
        for volume in tables["volumes"].values():
            if volume["server"] == number:
                volume["server"] = None
        walls.withdraw(self.fake, number)
        networks.detach(self.fake, number)
        tables["servers"].pop(number, None)

    def _unlocked(self, number: str) -> Record:
        server = self.store.get("servers", number)
        if self.store.busy("server", server["id"]):
            raise ApiError(423, "locked", "server is locked by a running action")
        return server

    def _answer(
        self, command: str, server: Record, effect: Record | None = None, job: object = None
    ) -> Answer:
        action = self.store.begin(
            command,
            [("server", server["id"])],
            lambda: server.update(effect or {}),
            job,  # type: ignore[arg-type]
        )
        return 201, {"action": action.show()}


def _belongs(ip: str, network: str) -> bool:
    try:
        return ip_address(ip) in ip_network(network)
    except ValueError:
        return False


def _record(body: Record, place: Record, kind: Record, image: Record) -> Record:
    return {
        "name": body["name"],
        "status": "initializing",
        "private_net": [],
        "server_type": kind,
        "datacenter": catalog.datacenter(place),
        "location": place,
        "image": image,
        "iso": None,
        "rescue_enabled": False,
        "locked": False,
        "backup_window": None,
        "outgoing_traffic": 0,
        "ingoing_traffic": 0,
        "included_traffic": 20 << 40,
        "protection": {"delete": False, "rebuild": False},
        "labels": labels(body),
        "load_balancers": [],
        "primary_disk_size": kind["disk"],
        "placement_group": None,
    }
