"""Machines and what we ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Every role a machine can play. `all` in an inventory means each of them.
ROLES = ("app", "database", "mail", "sms")


@dataclass(frozen=True)
class Deployment:
    """One stack at one inventory, written `stack@inventory`."""

    stack: str
    inventory: str

    def __str__(self) -> str:
        return f"{self.stack}@{self.inventory}"

    def labels(self) -> dict[str, str]:
        """The labels that every resource of this deployment carries at its vendor."""
        return {"deploy-stack": self.stack, "deploy-inventory": self.inventory}


@dataclass(frozen=True)
class Size:
    """What a role needs. cores: count; memory and disk: GiB. 0 means "no wish"."""

    cores: int = 0
    memory: float = 0
    disk: int = 0


# What a role needs where the stack does not say. Chosen so that everything on one machine fits the common type of
# 8 GiB, and an app or a database apart one of 4 GiB. disk: of the data; the system has its own.
SIZES: Mapping[str, Size] = {
    "app": Size(2, 3, 40),
    "database": Size(2, 3, 40),
    "mail": Size(1, 1, 10),
    "sms": Size(1, 1, 10),
}


@dataclass(frozen=True)
class Opening:
    """A port that the vendor's own firewall shall let in, as a second wall before the machine's.

    sources: address ranges (CIDR); () means the whole world.
    """

    number: int
    protocol: str = "tcp"
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class MachineSpec:
    """A machine that shall exist."""

    name: str
    roles: tuple[str, ...]
    size: Size = Size()
    # The vendor's machine type, chosen by flow from `offers` or named by the inventory; "" where there are none.
    type: str = ""
    # GiB of a data volume apart from the system disk, mounted at /srv/data by the first boot; 0 for none.
    volume: int = 0
    openings: tuple[Opening, ...] = ()
    # Public keys (authorized_keys lines) that may log in as root.
    ssh_keys: tuple[str, ...] = ()
    # OpenSSH private key that becomes the machine's ed25519 host key; "" where the machine has its own.
    host_key: str = field(default="", repr=False)
    # Its public half ("ssh-ed25519 AAAA..."), known before the first connection.
    host_key_public: str = ""
    # What the inventory says about this machine, in the provider's own words (address, type, image ...).
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """A machine that exists, in whatever state."""

    name: str
    id: str
    # "running", "starting", "stopped" or "failed"
    status: str
    # Address by which the operator and the public reach it.
    address: str
    address6: str = ""
    # Address by which the stack's other machines reach it; the public one where there is no private network.
    private_address: str = ""
    ssh_port: int = 22
    ssh_user: str = "root"
    host_key_public: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    # The vendor's machine type, when it was made (ISO 8601, UTC), and what it costs a month with its volume.
    type: str = ""
    created: str = ""
    price: float = 0.0
    currency: str = ""
    # A data volume is mounted at /srv/data.
    volume: bool = False
    # The price is about that, as Offer.approximate says it.
    approximate: bool = False
    # We made it. False for the operator's own (bare metal): it keeps its keys, and `down` leaves it there.
    ours: bool = True

    @property
    def internal(self) -> str:
        return self.private_address or self.address


@dataclass(frozen=True)
class Facts:
    """What was found on a machine and what values may depend on."""

    cores: int = 1
    # bytes
    memory: int = 1 << 30
    # "amd64" or "arm64" (Debian's names)
    architecture: str = "amd64"
    # "debian 13"
    system: str = "debian 13"
    # address of the interface with the default route
    interface: str = ""
