"""What an inventory may say to the provider `local`, checked once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

from deployer.core.errors import InputError

OPTIONS = (
    "bridge",
    "subnet",
    "subnet6",
    "state_dir",
    "shared_dir",
    "layer",
    "nameservers",
    "reach",
    "nesting",
)
MACHINE_OPTIONS = ("nesting",)
# What a flow tells every provider besides.
FROM_FLOW = ("machines", "trust_first", "adopted")

DEFAULT_STATE = "/var/lib/deploy-local"
DEFAULT_SUBNET = IPv4Network("10.213.0.0/24")
DEFAULT_SUBNET6 = IPv6Network("fd00::/64")
# Addresses below this one stay free for services on the bridge itself; .1 is the bridge.
FIRST_MACHINE = 10


@dataclass(frozen=True)
class Reach:
    """A destination that machines may reach besides the default ones."""

    protocol: str
    port: int
    address: IPv4Address


@dataclass(frozen=True)
class Settings:
    """Checked options.

    state_dir holds the machines; shared_dir the base image and the download caches, which several
    instances (the operator's own, a test's) use together.
    """

    bridge: str = "deploy0"
    subnet: IPv4Network = DEFAULT_SUBNET
    subnet6: IPv6Network = DEFAULT_SUBNET6
    state_dir: Path = Path(DEFAULT_STATE)
    shared_dir: Path = Path(DEFAULT_STATE)
    # Folders laid over the base image, the topmost first.
    layers: tuple[Path, ...] = ()
    # Resolvers of the machines; empty means those of this computer.
    nameservers: tuple[str, ...] = ()
    reach: tuple[Reach, ...] = ()
    nesting: bool = False

    @property
    def table(self) -> str:
        """Name of the nftables table."""
        return "deploy_local_" + re.sub(r"[^A-Za-z0-9]", "_", self.bridge)

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet.network_address + 1

    @property
    def gateway6(self) -> IPv6Address:
        return self.subnet6.network_address + 1


def parse(options: Mapping[str, object]) -> Settings:
    """Check the inventory's options. Raises InputError naming the key."""
    unknown = sorted(set(options) - set(OPTIONS) - set(FROM_FLOW))
    if unknown:
        raise bad(unknown[0], f"the provider local does not know it (it knows {', '.join(OPTIONS)})")
    default = Settings()
    bridge = text(options, "bridge", default.bridge)
    # IFNAMSIZ is 16 with the closing zero byte.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", bridge):
        raise bad("bridge", f"{bridge!r} is no name of an interface (1 to 15 letters, digits, '-', '_', '.')")
    subnet = _subnet(text(options, "subnet", str(default.subnet)))
    return Settings(
        bridge=bridge,
        subnet=subnet,
        subnet6=_subnet6(text(options, "subnet6", ""), bridge, subnet),
        state_dir=folder(text(options, "state_dir", DEFAULT_STATE), "state_dir"),
        shared_dir=folder(text(options, "shared_dir", DEFAULT_STATE), "shared_dir"),
        layers=tuple(folder(item, "layer") for item in texts(options, "layer")),
        nameservers=tuple(_nameserver(item) for item in texts(options, "nameservers")),
        reach=tuple(parse_reach(item) for item in texts(options, "reach")),
        nesting=flag(options, "nesting"),
    )


def bad(key: str, why: str) -> InputError:
    return InputError("reading the options of provider local", f"{key}: {why}", "correct it in the inventory")


def text(options: Mapping[str, object], key: str, default: str) -> str:
    value = options.get(key, default)
    if not isinstance(value, str):
        raise bad(key, f"expected a text, found {value!r}")
    return value


def texts(options: Mapping[str, object], key: str) -> tuple[str, ...]:
    """A list of texts; one text alone counts as a list of one."""
    value = options.get(key, ())
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise bad(key, f"expected a list of texts, found {value!r}")


def flag(options: Mapping[str, object], key: str, default: bool = False) -> bool:
    value = options.get(key, default)
    if not isinstance(value, bool):
        raise bad(key, f"expected true or false, found {value!r}")
    return value


def folder(value: str, key: str) -> Path:
    path = Path(value)
    # overlayfs separates its options by commas and its layers by colons.
    if not path.is_absolute() or re.search(r"[,:\\\s]", value):
        raise bad(key, f"{value!r} must be an absolute path without blanks, commas, colons and backslashes")
    return path


def parse_reach(value: str) -> Reach:
    """`tcp/8080@192.0.2.1`"""
    match = re.fullmatch(r"(tcp|udp)/(\d{1,5})@([0-9.]+)", value)
    try:
        if match and 0 < int(match[2]) < 65536:
            return Reach(match[1], int(match[2]), IPv4Address(match[3]))
    except ValueError:
        pass
    raise bad("reach", f"{value!r} is not like tcp/8080@192.0.2.1")


def _subnet(value: str) -> IPv4Network:
    try:
        subnet = IPv4Network(value)
    except ValueError as error:
        raise bad("subnet", str(error)) from error
    if not subnet.is_private or not 16 <= subnet.prefixlen <= 27:
        raise bad("subnet", f"{value} must be a private network between /16 and /27")
    return subnet


def _subnet6(value: str, bridge: str, subnet: IPv4Network) -> IPv6Network:
    if not value:
        # A unique local prefix (RFC 4193) that stays the same for this bridge.
        digest = hashlib.sha256(f"{bridge} {subnet}".encode()).digest()[:5]
        return IPv6Network((b"\xfd" + digest + bytes(10), 64))
    try:
        subnet6 = IPv6Network(value)
    except ValueError as error:
        raise bad("subnet6", str(error)) from error
    if subnet6.prefixlen != 64 or not subnet6.is_private:
        raise bad("subnet6", f"{value} must be a private /64")
    return subnet6


def _nameserver(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError as error:
        raise bad("nameservers", str(error)) from error
