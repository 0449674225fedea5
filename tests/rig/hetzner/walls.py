"""Firewalls. They are applied to servers by number; label selectors are not what this rig knows."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from tests.rig.hetzner.request import Answer, Request, Resource, Routes
from tests.rig.hetzner.store import ApiError, Record, invalid, labels

if TYPE_CHECKING:
    from tests.rig.hetzner.fake import FakeHetzner

# A server's firewalls, and a firewall's rules.
MOST_FIREWALLS, MOST_RULES = 5, 50


def register(routes: Routes, fake: FakeHetzner) -> None:
    Firewalls(fake).register(routes)


def apply(firewall: Record, server: int) -> None:
    firewall["applied_to"].append({"type": "server", "server": {"id": server}})


def withdraw(fake: FakeHetzner, server: int) -> None:
    """The server is gone from all firewalls."""
    for firewall in fake.store.tables["firewalls"].values():
        firewall["applied_to"] = [item for item in firewall["applied_to"] if item["server"]["id"] != server]


def of_server(fake: FakeHetzner, server: int) -> list[Record]:
    found = fake.store.tables["firewalls"].values()
    return [item for item in found if server in _servers(item["applied_to"])]


def _servers(applied: list[Record]) -> list[int]:
    if any(item["type"] != "server" for item in applied):
        raise ApiError(422, "unsupported_error", "the rig applies firewalls to servers only")
    return [item["server"]["id"] for item in applied]


def read_rules(given: list[Record]) -> list[Record]:
    """Rules as the vendor shows them. Raises ApiError."""
    if len(given) > MOST_RULES:
        raise invalid("rules", f"are more than {MOST_RULES}")
    return [_rule(number, rule) for number, rule in enumerate(given)]


def _rule(number: int, rule: Record) -> Record:
    place = f"rules.{number}"
    key = "source_ips" if rule["direction"] == "in" else "destination_ips"
    if not rule.get(key):
        raise invalid(f"{place}.{key}", "is missing")
    if bool(rule.get("port")) != (rule["protocol"] in ("tcp", "udp")):
        raise invalid(f"{place}.port", "is for tcp and udp, which must have one")
    for part in (rule.get("port") or "1").split("-"):
        if part != "any" and not (part.isdigit() and 0 < int(part) < 65536):
            raise invalid(f"{place}.port", "is no port, nor a range of ports")
    try:
        ranges = [str(ip_network(item)) for item in rule[key]]
    except ValueError as error:
        raise invalid(f"{place}.{key}", str(error)) from error
    shown = {"direction": rule["direction"], "protocol": rule["protocol"], "port": rule.get("port")}
    return {
        **shown,
        "source_ips": [],
        "destination_ips": [],
        "description": rule.get("description"),
        key: ranges,
    }


class Firewalls(Resource):
    def __init__(self, fake: FakeHetzner) -> None:
        super().__init__(fake, "firewalls")

    def register(self, routes: Routes) -> None:
        super().register(routes)
        routes.add("POST", "/firewalls", self.create)
        routes.add("DELETE", "/firewalls/{id}", self.delete)
        routes.add("POST", "/firewalls/{id}/actions/set_rules", self.set_rules)
        routes.add("POST", "/firewalls/{id}/actions/apply_to_resources", self.apply_to)
        routes.add("POST", "/firewalls/{id}/actions/remove_from_resources", self.remove_from)

    def create(self, request: Request) -> Answer:
        body = request.body
        record = {
            "name": body["name"],
            "labels": labels(body),
            "rules": read_rules(body.get("rules", [])),
            "applied_to": [],
        }
        servers = [self.store.get("servers", number) for number in _servers(body.get("apply_to", []))]
        made = self.store.add("firewalls", record)
        for server in servers:
            apply(made, server["id"])
        return 201, {"firewall": self.show(made), "actions": self._actions("set_firewall_rules", made)}

    def delete(self, request: Request, number: str) -> Answer:
        if self.store.get("firewalls", number)["applied_to"]:
            raise ApiError(422, "resource_in_use", "firewall is still applied to a resource")
        self.remove(number)
        return 204, None

    def set_rules(self, request: Request, number: str) -> Answer:
        firewall = self.store.get("firewalls", number)
        firewall["rules"] = read_rules(request.body["rules"])
        return 201, {"actions": self._actions("set_firewall_rules", firewall)}

    def apply_to(self, request: Request, number: str) -> Answer:
        firewall = self.store.get("firewalls", number)
        for server in _servers(request.body["apply_to"]):
            self.store.get("servers", server)
            if server in _servers(firewall["applied_to"]):
                raise ApiError(422, "firewall_already_applied", "firewall is already applied")
            if len(of_server(self.fake, server)) >= MOST_FIREWALLS:
                raise ApiError(422, "invalid_input", f"a server has at most {MOST_FIREWALLS} firewalls")
            apply(firewall, server)
        return 201, {"actions": self._actions("apply_firewall", firewall)}

    def remove_from(self, request: Request, number: str) -> Answer:
        firewall = self.store.get("firewalls", number)
        gone = _servers(request.body["remove_from"])
        firewall["applied_to"] = [item for item in firewall["applied_to"] if item["server"]["id"] not in gone]
        return 201, {"actions": self._actions("remove_firewall", firewall)}

    def _actions(self, command: str, firewall: Record) -> list[Record]:
        return [self.store.begin(command, [("firewall", firewall["id"])]).show()]
