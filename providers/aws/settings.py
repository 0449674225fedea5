"""What an inventory may say to the provider `aws`, checked once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from deployer.core.errors import InputError

OPTIONS = ("region", "zone", "cidr", "architecture", "disk", "protect", "endpoint")
MACHINE_OPTIONS = ("type", "image", "disk")

# Debian's name of an architecture -> Amazon's.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}
CIDR = IPv4Network("10.80.0.0/24")
# GiB: Debian's image needs 8.
SMALLEST_DISK = 8


@dataclass(frozen=True)
class Settings:
    """Checked options.

    zone:     availability zone; "" takes the first one that has the machine's type
    cidr:     IPv4 range of the deployment's network
    disk:     GiB of a system disk, where the roles do not wish for more
    protect:  machines with a data volume cannot be terminated from Amazon's console either
    endpoint: address of something that speaks Amazon's API; "" is Amazon (or what AWS_ENDPOINT_URL says)
    """

    region: str = "eu-central-1"
    zone: str = ""
    cidr: IPv4Network = CIDR
    architecture: str = "amd64"
    disk: int = 20
    protect: bool = False
    endpoint: str = ""


def parse(options: Mapping[str, object]) -> Settings:
    """Check the inventory's options. Raises InputError naming the key."""
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise bad(unknown[0], f"the provider aws does not know it (it knows {', '.join(OPTIONS)})")
    default = Settings()
    region = _text(options, "region", default.region)
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        raise bad("region", f"{region!r} is no name of a region, such as eu-central-1")
    zone = _text(options, "zone", "")
    if zone and not re.fullmatch(re.escape(region) + "[a-z]", zone):
        raise bad("zone", f"{zone!r} is not in the region: expected such as {region}a")
    architecture = _text(options, "architecture", default.architecture)
    if architecture not in ARCHITECTURES:
        raise bad("architecture", f"{architecture!r} is not one of {', '.join(ARCHITECTURES)}")
    protect = options.get("protect", default.protect)
    if not isinstance(protect, bool):
        raise bad("protect", f"expected true or false, found {protect!r}")
    endpoint = _text(options, "endpoint", "")
    if endpoint and not re.match(r"https?://", endpoint):
        raise bad("endpoint", f"{endpoint!r} is not like https://host:port")
    return Settings(
        region=region,
        zone=zone,
        cidr=_cidr(_text(options, "cidr", str(default.cidr))),
        architecture=architecture,
        disk=disk(options, default.disk),
        protect=protect,
        endpoint=endpoint,
    )


def disk(options: Mapping[str, object], default: int) -> int:
    """GiB of the system disk. Raises InputError."""
    value = options.get("disk", default)
    if not isinstance(value, int) or isinstance(value, bool) or value < SMALLEST_DISK:
        raise bad("disk", f"expected GiB, at least {SMALLEST_DISK}, found {value!r}")
    return value


def bad(key: str, why: str, machine: str = "") -> InputError:
    what = "reading the options of provider aws"
    return InputError(what, f"{key}: {why}", "correct it in the inventory", machine=machine or None)


def _text(options: Mapping[str, object], key: str, default: str) -> str:
    value = options.get(key, default)
    if not isinstance(value, str):
        raise bad(key, f"expected a text, found {value!r}")
    return value


def _cidr(value: str) -> IPv4Network:
    try:
        found = IPv4Network(value)
    except ValueError as error:
        raise bad("cidr", str(error)) from error
    # The bounds are Amazon's (VPC user guide, "VPC CIDR blocks").
    if not found.is_private or not 16 <= found.prefixlen <= 28:
        raise bad("cidr", f"{value} must be a private network between /16 and /28")
    return found
