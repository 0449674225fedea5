"""What machines cost in US dollars a month: from Amazon's Pricing API, or about, from a table.

The API wants a permission of its own (pricing:GetProducts) and answers in few regions only. Without it the
table is used: prices of Linux on demand as the SkyPilot catalog listed them (skypilot-org/skypilot-catalog,
catalogs/v8/aws/vms.csv, commit 00148f2a, read on 2026-11-24), so they are a guide and no promise.
"""

from __future__ import annotations

import json
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.provider import Offer
from providers.aws.account import Account, filters
from providers.aws.parts import Thing
from providers.aws.settings import ARCHITECTURES

CURRENCY = "USD"
# Amazon's own count of hours in a month.
HOURS = 730
READ_ON = "2026-11-24"
# Families that are offered. Burstable ones are by far the cheapest; the others are for those who need steady load.
FAMILIES = {"amd64": ("t3", "t3a", "m7i", "c7i", "r7i"), "arm64": ("t4g", "m7g", "c7g", "r7g")}
SIZES = {"nano": 1, "micro": 2, "small": 4, "medium": 8, "large": 16, "xlarge": 32, "2xlarge": 64}

# region -> family -> US dollars an hour of its `medium`; other sizes cost in proportion.
TABLE: dict[str, dict[str, float]] = {
    "af-south-1": {"t3": 0.0542, "t4g": 0.0434},
    "ap-east-1": {"t3": 0.0584, "t4g": 0.0464},
    "ap-northeast-1": {"t3": 0.0544, "t3a": 0.049, "t4g": 0.0432},
    "ap-northeast-2": {"t3": 0.052, "t3a": 0.0468, "t4g": 0.0416},
    "ap-northeast-3": {"t3": 0.0544, "t4g": 0.0435},
    "ap-south-1": {"t3": 0.0448, "t3a": 0.0246, "t4g": 0.0224},
    "ap-southeast-1": {"t3": 0.0528, "t3a": 0.0472, "t4g": 0.0424},
    "ap-southeast-2": {"t3": 0.0528, "t3a": 0.0475, "t4g": 0.0424},
    "ap-southeast-3": {"t3": 0.0528, "t4g": 0.0424},
    "ap-southeast-4": {"t3": 0.0528, "t4g": 0.0424},
    "ca-central-1": {"t3": 0.0464, "t3a": 0.0418, "t4g": 0.0368},
    "eu-central-1": {"t3": 0.048, "t3a": 0.0432, "t4g": 0.0384},
    "eu-north-1": {"t3": 0.0432, "t4g": 0.0344},
    "eu-south-1": {"t3": 0.048, "t3a": 0.0431, "t4g": 0.0384},
    "eu-south-2": {"t3": 0.0456, "t4g": 0.0368},
    "eu-west-1": {"t3": 0.0456, "t3a": 0.0408, "t4g": 0.0368},
    "eu-west-2": {"t3": 0.0472, "t3a": 0.0425, "t4g": 0.0376},
    "eu-west-3": {"t3": 0.0472, "t3a": 0.0425, "t4g": 0.0376},
    "me-central-1": {"t3": 0.0502, "t4g": 0.0408},
    "me-south-1": {"t3": 0.0502, "t4g": 0.0402},
    "us-east-1": {"t3": 0.0416, "t3a": 0.0376, "t4g": 0.0336},
    "us-east-2": {"t3": 0.0416, "t3a": 0.0376, "t4g": 0.0336},
    "us-west-1": {"t3": 0.0496, "t3a": 0.0446, "t4g": 0.04},
    "us-west-2": {"t3": 0.0416, "t3a": 0.0376, "t4g": 0.0336},
}
# A region that is not in the table is taken for a dear one.
ELSEWHERE = {"t3": 0.06, "t4g": 0.048}
# Of public IPv4 addresses, an hour (the same in all regions), and of a GiB of gp3, a month (about).
ADDRESS = 0.005
GIB = 0.08
GIB_IN = {"eu-central-1": 0.0952, "eu-west-1": 0.088, "eu-west-2": 0.0928, "eu-west-3": 0.0928}

# What the API said in this process: region -> type -> US dollars an hour.
_known: dict[str, dict[str, float]] = {}


def hour(region: str, kind: str) -> float:
    """US dollars of the instance alone; 0 when it is not known."""
    if kind in _known.get(region, {}):
        return _known[region][kind]
    family, _, size = kind.partition(".")
    medium = TABLE.get(region, ELSEWHERE).get(family, 0.0)
    return medium * SIZES.get(size, 0) / SIZES["medium"]


def gib(region: str) -> float:
    """A GiB of disk a month."""
    return GIB_IN.get(region, GIB)


def machine(region: str, kind: str, gibs: int, addresses: int = 1) -> float:
    """A machine a month with disks and public IPv4 addresses; 0 when the type's price is not known."""
    instance = hour(region, kind)
    if not instance:
        return 0.0
    return round((instance + addresses * ADDRESS) * HOURS + gibs * gib(region), 2)


def volume(region: str, gibs: int) -> float:
    return round(gibs * gib(region), 2)


def address() -> float:
    return round(ADDRESS * HOURS, 2)


def offers(account: Account) -> list[Offer]:
    """Types of the region with their price including system disk and address, the cheapest first."""
    settings = account.settings
    families = FAMILIES[settings.architecture]
    _ask(account)
    types = account.pages(
        "listing the machine types",
        "describe_instance_types",
        "InstanceTypes",
        Filters=[
            *filters(instance_type=[f"{family}.*" for family in families]),
            {
                "Name": "processor-info.supported-architecture",
                "Values": [ARCHITECTURES[settings.architecture]],
            },
            {"Name": "current-generation", "Values": ["true"]},
            {"Name": "bare-metal", "Values": ["false"]},
        ],
    )
    priced = [
        (machine(settings.region, kind["InstanceType"], settings.disk), str(kind["InstanceType"]), kind)
        for kind in types
    ]
    return [
        _offer(price, kind, settings.disk, approximate(settings.region, name))
        for price, name, kind in sorted(priced, key=lambda one: one[:2])
        if price
    ]


def _offer(price: float, kind: Thing, disk: int, approximate: bool) -> Offer:
    return Offer(
        name=str(kind["InstanceType"]),
        cores=int(kind["VCpuInfo"]["DefaultVCpus"]),
        memory=round(int(kind["MemoryInfo"]["SizeInMiB"]) / 1024, 2),
        disk=disk,
        price=price,
        currency=CURRENCY,
        approximate=approximate,
    )


def approximate(region: str, kind: str) -> bool:
    """The price of this type is the table's, read on READ_ON."""
    return kind not in _known.get(region, {})


def _ask(account: Account) -> None:
    """Ask the Pricing API once a process; where it may not be asked the table has to do."""
    region = account.settings.region
    if region in _known:
        return
    found: dict[str, float] = {}
    wanted = {
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
    }
    try:
        products = account.pages(
            "asking for prices",
            "get_products",
            "PriceList",
            service="pricing",
            region="us-east-1",
            ServiceCode="AmazonEC2",
            Filters=[{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()],
        )
        for product in products:
            kind, price = _price(product)
            if price:
                found[kind] = price
    except (DeployError, ValueError, KeyError, TypeError):
        found = {}
    _known[region] = found


def _price(product: Any) -> tuple[str, float]:
    """Type and US dollars an hour out of one entry of a price list, which is JSON in a text."""
    entry = json.loads(product) if isinstance(product, str) else product
    kind = str(entry["product"]["attributes"]["instanceType"])
    for term in entry["terms"].get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            if dimension.get("unit") == "Hrs":
                return kind, float(dimension["pricePerUnit"][CURRENCY])
    return kind, 0.0
