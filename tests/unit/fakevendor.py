"""A vendor that lives in memory: what it has stands in an Account, which the test looks into. Registered by `register`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from deployer.core.errors import CredentialError, DeployError
from deployer.core.machine import Deployment, Machine, MachineSpec
from deployer.core.provider import Offer, Resource
from deployer.flow import registry

OFFERS = (
    Offer("s", 1, 2, 20, 3.0),
    Offer("m", 2, 4, 40, 6.0),
    Offer("l", 4, 8, 80, 12.0),
    Offer("xl", 8, 16, 160, 24.0),
)
CREATED = "2026-11-01T00:00:00+00:00"


@dataclass
class Account:
    """machines and resources: by name; calls: in order; drift: by machine."""

    machines: dict[str, Machine] = field(default_factory=dict)
    resources: list[Resource] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    drift: dict[str, list[str]] = field(default_factory=dict)
    specs: dict[str, MachineSpec] = field(default_factory=dict)
    refuses: DeployError | None = None


class Fake:
    """All capabilities: Listing, Keeping, VolumePrices, Mending."""

    name = "fake"

    def __init__(self, account: Account, deployment: Deployment) -> None:
        self._account, self._deployment = account, deployment

    def _call(self, name: str) -> None:
        self._account.calls.append(name)
        if self._account.refuses:
            raise self._account.refuses

    def check(self) -> None:
        self._call("check")

    def list_machines(self, deployment: Deployment) -> Sequence[Machine]:
        self._call("list")
        labels = deployment.labels()
        return [one for one in self._account.machines.values() if labels.items() <= one.labels.items()]

    def create_machine(self, deployment: Deployment, spec: MachineSpec) -> Machine:
        self._call(f"create {spec.name}")
        account = self._account
        account.specs[spec.name] = spec
        made = machine(spec.name, deployment, type=spec.type, volume=bool(spec.volume))
        account.machines.setdefault(spec.name, made)
        return account.machines[spec.name]

    def delete_machine(self, machine: Machine) -> None:
        self._call(f"delete {machine.name}")
        self._account.machines.pop(machine.name, None)

    def offers(self) -> Sequence[Offer]:
        self._call("offers")
        return OFFERS

    def volume_price(self, size: int) -> float:
        return size / 10

    def resources(self) -> Sequence[Resource]:
        self._call("resources")
        return list(self._account.resources)

    def delete_resource(self, resource: Resource) -> None:
        self._call(f"delete {resource.kind} {resource.name}")
        self._account.resources.remove(resource)

    def delete_data(self, deployment: Deployment) -> Sequence[str]:
        self._call("delete data")
        gone = [one for one in self._account.resources if one.data and one.deployment == deployment]
        self._account.resources = [one for one in self._account.resources if one not in gone]
        return [one.name for one in gone]

    def drift(self, machine: Machine, spec: MachineSpec) -> Sequence[str]:
        self._call(f"drift {machine.name}")
        self._account.specs[machine.name] = spec
        return list(self._account.drift.get(machine.name, ()))

    def mend(self, machine: Machine, spec: MachineSpec) -> None:
        self._call(f"mend {machine.name}")
        self._account.drift.pop(machine.name, None)


def machine(
    name: str, deployment: Deployment, *, type: str = "l", status: str = "running", volume: bool = True
) -> Machine:
    return Machine(
        name,
        f"id-{name}",
        status,
        "203.0.113.7",
        labels=deployment.labels(),
        type=type,
        created=CREATED,
        price=12.5,
        currency="EUR",
        volume=volume,
    )


def resource(
    kind: str, name: str, deployment: Deployment, *, price: float = 0.0, data: bool = False
) -> Resource:
    return Resource(kind, f"id-{name}", name, deployment, CREATED, price, "EUR" if price else "", data)


def register(patch: pytest.MonkeyPatch, account: Account) -> None:
    """`provider: fake` works in inventories, and leads to the account. `provider: shut` has no credentials."""
    real = registry.provider_module

    def make(options: Mapping[str, object], deployment: Deployment) -> Fake:
        return Fake(account, deployment)

    def shut(options: Mapping[str, object], deployment: Deployment) -> Fake:
        why = CredentialError("asking", "SHUT_TOKEN is not set", "set it")
        return Fake(replace(account, refuses=why, calls=[]), deployment)

    modules = {
        "fake": SimpleNamespace(OPTIONS=(), MACHINE_OPTIONS=("type",), make=make),
        "shut": SimpleNamespace(OPTIONS=(), MACHINE_OPTIONS=("type",), make=shut),
    }
    patch.setattr(registry, "provider_module", lambda name: modules.get(name) or real(name))
