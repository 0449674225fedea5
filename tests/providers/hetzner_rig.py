"""A Hetzner whose servers are records only, for what no real machine is needed for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import hcloud
import pytest

from deployer.core.machine import Deployment, Machine, MachineSpec, Opening, Size
from providers import hetzner
from providers.hetzner import HetznerProvider, api
from tests.providers.contract import HOST, LOGIN
from tests.rig.hetzner import FakeHetzner

DEPLOYMENT = Deployment("trial", "contract")
OTHER = Deployment("other", "contract")
SPEC = MachineSpec(
    name="trial-database-1",
    roles=("database",),
    size=Size(2, 4, 20),
    volume=20,
    openings=(Opening(22, sources=("192.0.2.0/24",)), Opening(443), Opening(443, "udp")),
    ssh_keys=(f"{LOGIN.public} tests",),
    host_key=HOST.private,
    host_key_public=HOST.public,
)
# What one machine of SPEC consists of at the vendor.
WHOLE = sorted(
    (
        "firewalls/trial-contract-database",
        "networks/trial-contract",
        "primary_ips/trial-database-1-ipv4",
        "primary_ips/trial-database-1-ipv6",
        "servers/trial-database-1",
        "ssh_keys/trial-contract-",
        "volumes/trial-database-1-data",
    )
)
VOLUME = "volumes/trial-database-1-data"


@dataclass
class Vendor:
    """The fake and a provider that uses it."""

    fake: FakeHetzner
    options: dict[str, object] = field(default_factory=dict)

    def provider(self, deployment: Deployment = DEPLOYMENT, **more: object) -> HetznerProvider:
        """A new one, which remembers nothing: as in another process."""
        return hetzner.make({"endpoint": self.fake.endpoint, **self.options, **more}, deployment)

    def ours(self) -> list[str]:
        """All that the deployment has at the vendor; of keys, whose names end with a fingerprint, the beginning."""
        found = self.fake.labelled(deploy_stack="trial", deploy_inventory="contract")
        return sorted(
            name[: len("ssh_keys/trial-contract-")] if "ssh_keys" in name else name for name in found
        )

    def everything(self) -> list[str]:
        return self.fake.labelled()


def spec(name: str = SPEC.name, **changes: object) -> MachineSpec:
    return replace(SPEC, name=name, **changes)  # type: ignore[arg-type]


def made(vendor: Vendor, **changes: object) -> Machine:
    return vendor.provider().create_machine(DEPLOYMENT, spec(**changes))  # type: ignore[arg-type]


def record(vendor: Vendor, kind: str) -> dict[str, Any]:
    """The only one of its kind."""
    (found,) = vendor.fake.store.tables[kind].values()
    return found


def by_hand(vendor: Vendor) -> hcloud.Client:
    """Somebody else with the same project."""
    return hcloud.Client(vendor.fake.token, api_endpoint=vendor.fake.endpoint, poll_interval=0.01)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    """Every request and answer is checked against the vendor's description, when that is at hand."""
    monkeypatch.setattr(api, "PAUSE", 0.01)
    monkeypatch.setattr(api, "POLL", 0.005)
    with FakeHetzner() as fake:
        fake.store.durations[""] = 0.0
        # Some tests live many lives.
        fake.rate_limit = 1_000_000
        monkeypatch.setenv(api.TOKEN, fake.token)
        yield Vendor(fake)
        assert fake.violations == []
