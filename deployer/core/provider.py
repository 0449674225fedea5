"""The protocol between us and a vendor of machines.

Write these five methods and a vendor is supported; comparing, planning, the journal, waiting and the
readiness of SSH are written once, in flow/provision.py. docs/writing-a-provider.md walks through one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from deployer.core.machine import Deployment, Machine, MachineSpec


@dataclass(frozen=True)
class Offer:
    """A machine type that can be had in the inventory's region."""

    name: str
    cores: int
    # GiB
    memory: float
    disk: int
    # A month, in `currency`; 0 where the machine is the operator's own.
    price: float
    currency: str = "EUR"
    # The vendor could not be asked: about this, from a table that the provider ships.
    approximate: bool = False


class Provider(Protocol):
    """One vendor's machines. Instances are made by `make(options)` of the vendor's module."""

    name: str

    def check(self) -> None:
        """See that credentials, quota and region are good. Changes nothing.

        Raises CredentialError, QuotaError, or DeployError with what is missing.
        """

    def list_machines(self, deployment: Deployment) -> Sequence[Machine]:
        """All machines that carry the deployment's labels, in any state."""

    def create_machine(self, deployment: Deployment, spec: MachineSpec) -> Machine:
        """Make it and return as soon as the vendor has an id; flow waits for SSH.

        Safe to repeat for the same name: a second call returns the same machine (started if stopped).
        """

    def delete_machine(self, machine: Machine) -> None:
        """Delete it with all that create_machine made for it. A missing one is no error."""

    def offers(self) -> Sequence[Offer]:
        """Machine types of the region, cheapest first."""


@runtime_checkable
class Preparing(Protocol):
    """A provider that needs something on the operator's computer first (packages, a bridge)."""

    def missing(self) -> Sequence[str]:
        """What would have to be installed here, in words for the operator; empty when nothing is."""

    def prepare(self) -> None:
        """Install it. Called after the operator has been told what `missing` returned."""


@runtime_checkable
class Concurrent(Protocol):
    """A provider whose create_machine may run for several machines at the same time; others are asked one by one."""

    # How many at a time the vendor bears.
    at_once: int


@runtime_checkable
class ReverseDns(Protocol):
    """A provider that can set the name an address answers with."""

    def set_reverse_dns(self, machine: Machine, name: str) -> None: ...


@runtime_checkable
class ReverseDnsShown(Protocol):
    """A provider that also tells that name; where it does not, DNS is asked, which others remember for a while."""

    def reverse_dns(self, machine: Machine) -> Mapping[str, str]:
        """Address -> the name that it answers with now ("" for none), of the addresses that can have one."""


@runtime_checkable
class Remarking(Protocol):
    """A provider whose `check` may leave something to know, though machines can be had."""

    @property
    def remarks(self) -> Sequence[str]:
        """Of the last `check`: limits that could not be read, or that are reached."""


@dataclass(frozen=True)
class Resource:
    """Anything at a vendor that carries our label and may cost money: machine, volume, address, firewall, network, key.

    id: the vendor's; created: ISO 8601, UTC; price: a month, 0 when it is free; data: it holds data, and
    is deleted only when the operator names it.
    """

    kind: str
    id: str
    name: str
    deployment: Deployment
    created: str = ""
    price: float = 0.0
    currency: str = ""
    data: bool = False


@runtime_checkable
class Listing(Protocol):
    """A provider that can list everything of ours in the account, of whatever deployment (`deploy orphans`)."""

    def resources(self) -> Sequence[Resource]:
        """All resources with our label, in the order in which they can be deleted."""

    def delete_resource(self, resource: Resource) -> None:
        """Delete one of them. A missing one is no error; one without our label is refused."""


@runtime_checkable
class Keeping(Protocol):
    """A provider whose machines may have data volumes, which outlive their machine until they are deleted by name."""

    def delete_data(self, deployment: Deployment) -> Sequence[str]:
        """Delete the deployment's volumes that belong to no machine; their names."""


@runtime_checkable
class VolumePrices(Protocol):
    """A provider that knows what a data volume costs beside the machine, which is what `offers` price."""

    def volume_price(self, size: int) -> float:
        """A volume of `size` GiB a month, in the currency of the offers."""


class ByHand(str):
    """A difference that `mend` cannot put back. It is a warning, and nothing that `up` has still to do."""


@runtime_checkable
class Mending(Protocol):
    """A provider that sees what somebody changed at the vendor by hand (rules, labels), and can put it back."""

    def drift(self, machine: Machine, spec: MachineSpec) -> Sequence[str]:
        """What differs from what create_machine would make, as "THING: in which way"; empty when nothing does.

        What only the operator can change is a ByHand, with what to do. Changes nothing.
        """

    def mend(self, machine: Machine, spec: MachineSpec) -> None:
        """Put it back. Never deletes the machine or what holds data."""
