"""DNS zones in primary mode, and their sets of records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.exception
import dns.name
import dns.rdata

from tests.rig.hetzner.request import Answer, Request, Resource, Routes, paged
from tests.rig.hetzner.store import ApiError, Record, invalid, labels, not_found, now, selected, taken

if TYPE_CHECKING:
    from tests.rig.hetzner.fake import FakeHetzner

NAMESERVERS = ("hydrogen.ns.rig.test.", "oxygen.ns.rig.test.", "helium.ns.rig.test.")


def register(routes: Routes, fake: FakeHetzner) -> None:
    Zones(fake).register(routes)


class Zones(Resource):
    def __init__(self, fake: FakeHetzner) -> None:
        super().__init__(fake, "zones", self.view)

    def register(self, routes: Routes) -> None:
        super().register(routes)
        routes.add("POST", "/zones", self.create)
        routes.add("DELETE", "/zones/{id}", self.delete)
        routes.add("POST", "/zones/{id}/actions/change_ttl", self.change_ttl)
        routes.add("POST", "/zones/{id}/actions/change_protection", self.protect_zone)
        sets = "/zones/{id}/rrsets"
        routes.add("GET", sets, self.list_sets)
        routes.add("POST", sets, self.create_set)
        one = f"{sets}/{{name}}/{{type}}"
        routes.add("GET", one, lambda request, *which: (200, {"rrset": _shown(self.set_of(*which)[1])}))
        routes.add("PUT", one, self.update_set)
        routes.add("DELETE", one, self.delete_set)
        for name, function in (
            ("change_protection", self.protect_set),
            ("change_ttl", self.set_ttl),
            ("set_records", self.set_records),
            ("add_records", self.add_records),
            ("remove_records", self.remove_records),
            ("update_records", self.update_records),
        ):
            routes.add("POST", f"{one}/actions/{name}", function)

    # --- zones ---

    def zone(self, which: str) -> Record:
        """By its id or name. Raises ApiError."""
        for record in self.store.tables["zones"].values():
            if which in (str(record["id"]), record["name"]):
                return record
        raise not_found("zone", which)

    def view(self, record: Record) -> Record:
        shown = {key: value for key, value in record.items() if not key.startswith("_")}
        return {**shown, "record_count": sum(len(item["records"]) for item in record["_sets"].values())}

    def get(self, request: Request, number: str) -> Answer:
        return 200, {"zone": self.view(self.zone(number))}

    def update(self, request: Request, number: str) -> Answer:
        return super().update(request, str(self.zone(number)["id"]))

    def create(self, request: Request) -> Answer:
        body = request.body
        if body["mode"] != "primary":
            raise ApiError(422, "unsupported_error", "the rig serves zones in primary mode only")
        if body["name"] != body["name"].lower() or body["name"].endswith(".") or "." not in body["name"]:
            raise invalid("name", "must be a domain in lower case without a dot at its end")
        record = {
            "name": body["name"],
            "mode": "primary",
            "labels": labels(body),
            "protection": {"delete": False},
            "ttl": body.get("ttl", 3600),
            "status": "ok",
            "authoritative_nameservers": {
                "assigned": list(NAMESERVERS),
                "delegated": list(NAMESERVERS),
                "delegation_last_check": now(),
                "delegation_status": "valid",
            },
            "registrar": "other",
            "_sets": {},
        }
        first = {
            "name": "@",
            "type": "SOA",
            "records": [{"value": f"{NAMESERVERS[0]} dns.rig.test. 1 86400 10800 3600000 3600"}],
        }
        second = {"name": "@", "type": "NS", "records": [{"value": name} for name in NAMESERVERS]}
        sets = [_made(0, record["name"], item) for item in (first, second, *body.get("rrsets", ()))]
        made = self.store.add("zones", record)
        made["_sets"] = {item["id"]: {**item, "zone": made["id"]} for item in sets}
        return 201, {"zone": self.view(made), **self._changed("create_zone", made)}

    def delete(self, request: Request, number: str) -> Answer:
        record = self.remove(str(self.zone(number)["id"]))
        record["_sets"] = {}
        return 201, self._changed("delete_zone", record)

    def change_ttl(self, request: Request, number: str) -> Answer:
        zone = self.zone(number)
        zone["ttl"] = request.body["ttl"]
        return 201, self._changed("change_zone_ttl", zone)

    def protect_zone(self, request: Request, number: str) -> Answer:
        return self.protect(request, str(self.zone(number)["id"]))

    # --- sets of records ---

    def set_of(self, which: str, name: str, kind: str) -> tuple[Record, Record]:
        """The zone and the set. Raises ApiError."""
        zone = self.zone(which)
        if f"{name}/{kind}" not in zone["_sets"]:
            raise not_found("rrset", f"{name}/{kind}")
        return zone, zone["_sets"][f"{name}/{kind}"]

    def list_sets(self, request: Request, which: str) -> Answer:
        found = [_shown(item) for item in self.zone(which)["_sets"].values()]
        if "name" in request.query:
            found = [item for item in found if item["name"] == request.one("name")]
        if "type" in request.query:
            found = [item for item in found if item["type"] in request.query["type"]]
        if selector := request.one("label_selector"):
            found = [item for item in found if selected(selector, item["labels"])]
        return paged(request, "rrsets", found)

    def create_set(self, request: Request, which: str) -> Answer:
        zone = self.zone(which)
        made = _made(zone["id"], zone["name"], request.body)
        if made["id"] in zone["_sets"]:
            raise taken("name", "RRSet already exists")
        if made["type"] == "SOA":
            raise invalid("type", "the SOA is made by the vendor")
        others = {item["type"] for item in zone["_sets"].values() if item["name"] == made["name"]}
        if "CNAME" in others or (made["type"] == "CNAME" and others):
            raise invalid("type", "a CNAME stands alone")
        zone["_sets"][made["id"]] = made
        return 201, {"rrset": _shown(made), **self._changed("create_rrset", zone)}

    def update_set(self, request: Request, *which: str) -> Answer:
        _, found = self.set_of(*which)
        found["labels"] = labels(request.body)
        return 200, {"rrset": _shown(found)}

    def delete_set(self, request: Request, *which: str) -> Answer:
        zone, found = self._changeable(*which)
        if (found["name"], found["type"]) == ("@", "SOA"):
            raise invalid("type", "the SOA cannot be deleted")
        del zone["_sets"][found["id"]]
        return 201, self._changed("delete_rrset", zone)

    def protect_set(self, request: Request, *which: str) -> Answer:
        zone, found = self.set_of(*which)
        found["protection"] |= request.body
        return 201, self._changed("change_rrset_protection", zone)

    def set_ttl(self, request: Request, *which: str) -> Answer:
        zone, found = self._changeable(*which)
        found["ttl"] = request.body["ttl"]
        return 201, self._changed("change_rrset_ttl", zone)

    def set_records(self, request: Request, *which: str) -> Answer:
        zone, found = self._changeable(*which)
        found["records"] = _records(zone["name"], found["type"], request.body["records"])
        return 201, self._changed("set_rrset_records", zone)

    def add_records(self, request: Request, *which: str) -> Answer:
        zone = self.zone(which[0])
        name, kind = which[1:]
        if f"{name}/{kind}" not in zone["_sets"]:
            made = _made(zone["id"], zone["name"], {"name": name, "type": kind, **request.body})
            zone["_sets"][made["id"]] = made
        else:
            _, found = self._changeable(*which)
            new = _records(zone["name"], kind, request.body["records"])
            if {item["value"] for item in new} & {item["value"] for item in found["records"]}:
                raise taken("records", "record already exists")
            found["records"] += new
        return 201, self._changed("add_rrset_records", zone)

    def remove_records(self, request: Request, *which: str) -> Answer:
        zone, found = self._changeable(*which)
        gone = {item["value"] for item in request.body["records"]}
        found["records"] = [item for item in found["records"] if item["value"] not in gone]
        if not found["records"]:
            del zone["_sets"][found["id"]]
        return 201, self._changed("remove_rrset_records", zone)

    def update_records(self, request: Request, *which: str) -> Answer:
        zone, found = self._changeable(*which)
        comments = {item["value"]: item.get("comment", "") for item in request.body["records"]}
        for record in found["records"]:
            record["comment"] = comments.get(record["value"], record["comment"])
        return 201, self._changed("update_rrset_records", zone)

    def _changeable(self, *which: str) -> tuple[Record, Record]:
        zone, found = self.set_of(*which)
        if found["protection"]["change"]:
            raise ApiError(423, "protected", "RRSet is protected")
        return zone, found

    def _changed(self, command: str, zone: Record) -> Record:
        self.fake.zone(zone["name"], [_shown(item) for item in zone["_sets"].values()])
        return {"action": self.store.begin(command, [("zone", zone["id"])]).show()}


def _shown(record: Record) -> Record:
    return dict(record)


def _made(zone: int, origin: str, body: Record) -> Record:
    """A set as the vendor shows it. Raises ApiError."""
    name, kind = body["name"], body["type"]
    if name != name.lower() or name.endswith("."):
        raise invalid("name", "must be relative to the zone, in lower case")
    return {
        "id": f"{name}/{kind}",
        "name": name,
        "type": kind,
        "ttl": body.get("ttl"),
        "labels": labels(body),
        "protection": {"change": False},
        "records": _records(origin, kind, body["records"]),
        "zone": zone,
    }


def _records(origin: str, kind: str, given: list[Record]) -> list[Record]:
    """Raises ApiError for a value that is none of its type."""
    values = [item["value"] for item in given]
    if len(set(values)) != len(values):
        raise invalid("records", "must differ")
    for value in values:
        if kind == "TXT" and not value.startswith('"'):
            raise invalid("records", "a TXT record must be in quotation marks")
        try:
            dns.rdata.from_text("IN", kind, value, origin=dns.name.from_text(origin))
        except dns.exception.DNSException as error:
            raise invalid("records", f"{value!r} is no {kind}: {error}") from error
    return [{"value": item["value"], "comment": item.get("comment", "")} for item in given]
