"""What the vendor offers: locations, machine types, images, prices. The figures are the rig's own, not the vendor's."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]

LOCATIONS: tuple[Record, ...] = tuple(
    {
        "id": number,
        "name": name,
        "description": f"{city} DC Park 1",
        "country": country,
        "city": city,
        "latitude": latitude,
        "longitude": longitude,
        "network_zone": zone,
    }
    for number, name, city, country, latitude, longitude, zone in (
        (1, "fsn1", "Falkenstein", "DE", 50.47612, 12.370071, "eu-central"),
        (2, "nbg1", "Nuremberg", "DE", 49.452102, 11.076665, "eu-central"),
        (3, "hel1", "Helsinki", "FI", 60.169855, 24.938379, "eu-central"),
        (4, "ash", "Ashburn, VA", "US", 39.045821, -77.487073, "us-east"),
    )
)
OLD = {"announced": "2026-01-01T00:00:00Z", "unavailable_after": "2026-12-31T00:00:00Z"}


def price(net: float) -> Record:
    return {"net": f"{net:.4f}", "gross": f"{net * 1.19:.4f}"}


def _prices(net: float) -> list[Record]:
    return [
        {
            "location": location["name"],
            "price_hourly": price(net / 730),
            "price_monthly": price(net if location["country"] != "US" else net * 1.2),
            "included_traffic": 20 << 40 if location["country"] != "US" else 1 << 40,
            "price_per_tb_traffic": price(1.0),
        }
        for location in LOCATIONS
    ]


def _type(
    number: int,
    name: str,
    size: tuple[int, int, int],
    net: float,
    *,
    arm: bool = False,
    old: bool = False,
    without: tuple[str, ...] = (),
) -> Record:
    cores, memory, disk = size
    return {
        "id": number,
        "name": name,
        "description": name.upper(),
        "cores": cores,
        "memory": float(memory),
        "disk": disk,
        "deprecated": old,
        "prices": _prices(net),
        "storage_type": "local",
        "cpu_type": "dedicated" if name.startswith("ccx") else "shared",
        "category": "cost_optimized",
        "architecture": "arm" if arm else "x86",
        "deprecation": OLD if old else None,
        "locations": [
            {
                "id": location["id"],
                "name": location["name"],
                "deprecation": OLD if old else None,
                "recommended": not old,
                "available": location["name"] not in without,
            }
            for location in LOCATIONS
        ],
    }


SERVER_TYPES = (
    _type(1, "cx11", (1, 2, 20), 2.0, old=True),
    _type(104, "cx22", (2, 4, 40), 3.0, old=True),
    _type(114, "cx23", (2, 4, 40), 3.49),
    _type(115, "cx33", (4, 8, 80), 5.49),
    _type(116, "cx43", (8, 16, 160), 9.49),
    _type(45, "cax11", (2, 4, 40), 3.29, arm=True),
    _type(93, "cax21", (4, 8, 80), 5.99, arm=True),
    _type(109, "cpx22", (2, 4, 80), 5.99),
    _type(110, "cpx12", (1, 2, 40), 3.0, without=("fsn1",)),
    _type(96, "ccx13", (2, 8, 80), 11.99),
    _type(97, "ccx23", (4, 16, 160), 23.99),
)


def _image(number: int, flavor: str, version: str, *, arm: bool = False, old: bool = False) -> Record:
    return {
        "id": number,
        "type": "system",
        "status": "available",
        "name": f"{flavor}-{version}",
        "description": f"{flavor.capitalize()} {version}",
        "image_size": None,
        "disk_size": 5,
        "created": "2025-08-10T00:00:00Z",
        "created_from": None,
        "bound_to": None,
        "os_flavor": flavor,
        "os_version": version,
        "rapid_deploy": True,
        "protection": {"delete": False},
        "deprecated": "2026-01-01T00:00:00Z" if old else None,
        "deleted": None,
        "labels": {},
        "architecture": "arm" if arm else "x86",
    }


IMAGES = (
    _image(45557056, "debian", "11", old=True),
    _image(114690387, "debian", "12"),
    _image(114690389, "debian", "12", arm=True),
    _image(310557660, "debian", "13"),
    _image(310557661, "debian", "13", arm=True),
    _image(161547269, "ubuntu", "24.04"),
)


def pricing() -> Record:
    monthly = [
        {"location": item["name"], "price_hourly": price(0.5 / 730), "price_monthly": price(0.5)}
        for item in LOCATIONS
    ]
    free = [{**item, "price_hourly": price(0), "price_monthly": price(0)} for item in monthly]
    floating = [{"location": item["name"], "price_monthly": price(3.0)} for item in LOCATIONS]
    return {
        "currency": "EUR",
        "vat_rate": "19.00",
        "primary_ips": [{"type": "ipv4", "prices": monthly}, {"type": "ipv6", "prices": free}],
        "floating_ips": [{"type": "ipv4", "prices": floating}],
        "image": {"price_per_gb_month": price(0.0119)},
        "volume": {"price_per_gb_month": price(0.044)},
        "server_backup": {"percentage": "20.00"},
        "server_types": [
            {"id": item["id"], "name": item["name"], "prices": item["prices"]} for item in SERVER_TYPES
        ],
        "load_balancer_types": [],
        "floating_ip": {"price_monthly": price(3.0)},
    }


def location(which: object) -> Record | None:
    return next((item for item in LOCATIONS if which in (item["name"], item["id"], str(item["id"]))), None)


def datacenter(place: Record) -> Record:
    """Every location has one; the vendor still shows it with servers and addresses."""
    empty: Record = {"supported": [], "available": [], "available_for_migration": []}
    return {
        "id": place["id"],
        "name": f"{place['name']}-dc1",
        "description": f"{place['city']} 1 DC 1",
        "location": place,
        "server_types": empty,
    }
