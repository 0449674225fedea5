"""What an inventory may say to the provider `hetzner`, checked once; and the names and labels that follow from it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from deployer.core.errors import InputError
from deployer.core.machine import Deployment, MachineSpec

OPTIONS = ("location", "network", "architecture", "endpoint")
MACHINE_OPTIONS = ("type",)

NETWORK = ipaddress.IPv4Network("10.94.0.0/16")
ENDPOINT = "https://api.hetzner.cloud/v1"
ARCHITECTURES = ("x86", "arm", "any")

# Labels of ours besides the deployment's own.
MACHINE, ROLES = "deploy-machine", "deploy-roles"
# Every resource of ours carries it, of whatever deployment.
MARK = "deploy-stack"


@dataclass(frozen=True)
class Settings:
    """Checked options. network: the private network's range; architecture: of the types that may be chosen."""

    location: str = "fsn1"
    network: ipaddress.IPv4Network = NETWORK
    architecture: str = "x86"
    endpoint: str = ENDPOINT

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """Where the servers' private addresses lie."""
        return self.network if self.network.prefixlen >= 24 else next(self.network.subnets(new_prefix=24))


def parse(options: Mapping[str, object]) -> Settings:
    """Check the inventory's options. Raises InputError naming the key."""
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise bad(unknown[0], f"the provider hetzner does not know it (it knows {', '.join(OPTIONS)})")
    for key, value in options.items():
        if not isinstance(value, str):
            raise bad(key, f"expected a text, found {value!r}")
    texts = {key: str(value) for key, value in options.items()}
    default = Settings()
    location = texts.get("location", default.location)
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", location):
        raise bad("location", f"{location!r} is no name of a location, such as fsn1")
    architecture = texts.get("architecture", default.architecture)
    if architecture not in ARCHITECTURES:
        raise bad("architecture", f"expected one of {', '.join(ARCHITECTURES)}, found {architecture!r}")
    return Settings(
        location,
        _network(texts.get("network", str(default.network))),
        architecture,
        _endpoint(texts.get("endpoint", default.endpoint)),
    )


def _network(value: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as error:
        raise bad("network", str(error)) from error
    # What the vendor takes: RFC 1918; a server's address, its gateway and the two ends must fit.
    if not network.is_private or not 8 <= network.prefixlen <= 24:
        raise bad("network", f"{value} must be a private network between /8 and /24")
    return network


def _endpoint(value: str) -> str:
    url = urlsplit(value)
    try:
        near = ipaddress.ip_address(url.hostname or "").is_private
    except ValueError:
        near = False
    # The token is sent there.
    if url.scheme != "https" and not (url.scheme == "http" and near):
        raise bad("endpoint", f"{value!r} must begin with https:// (http:// for a private address only)")
    return value.rstrip("/")


def bad(key: str, why: str) -> InputError:
    return InputError(
        "reading the options of provider hetzner", f"{key}: {why}", "correct it in the inventory"
    )


# --- names and labels; a name is the vendor's key, so a killed attempt is found by it ---


def group(deployment: Deployment) -> str:
    """Name of what all machines of a deployment share."""
    return f"{deployment.stack}-{deployment.inventory}"


def wall_name(deployment: Deployment, spec: MachineSpec) -> str:
    return "-".join((group(deployment), *spec.roles))


def wall_labels(deployment: Deployment, spec: MachineSpec) -> dict[str, str]:
    return {**deployment.labels(), ROLES: ".".join(spec.roles)}


def machine_labels(deployment: Deployment, spec: MachineSpec) -> dict[str, str]:
    return {**wall_labels(deployment, spec), MACHINE: spec.name}


def address_name(machine: str, family: str) -> str:
    return f"{machine}-{family}"


def volume_name(machine: str) -> str:
    return f"{machine}-data"


def selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())
