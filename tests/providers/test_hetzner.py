"""Provider hetzner against a Hetzner whose servers are real machines: the contract, and what a first boot leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import pytest

from deployer.core.errors import CredentialError, DeployError, QuotaError
from deployer.core.machine import Deployment, Machine, MachineSpec, Size
from providers import hetzner
from providers.hetzner import HetznerProvider, api
from tests.providers.contract import HOST, LOGIN, ProviderContract, data_outlives_the_machine
from tests.rig import cloudimage
from tests.rig.hetzner import FakeHetzner
from tests.rig.hetzner.faults import AFTER
from tests.rig.hetzner.machines import RealMachines
from tests.rig.world import World


@pytest.fixture(scope="module")
def fake(world: World) -> Iterator[FakeHetzner]:
    machines = RealMachines(world.options, cloudimage.build(world), world.folder / "volumes")
    with FakeHetzner(machines) as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv(api.TOKEN, made.token)
        yield made
        assert made.violations == []


class TestHetzner(ProviderContract):
    @pytest.fixture
    def provider(self, fake: FakeHetzner, deployment: Deployment) -> HetznerProvider:
        return hetzner.make({"endpoint": fake.endpoint}, deployment)

    @pytest.fixture
    def broken_off(self, fake: FakeHetzner) -> Callable[[int], AbstractContextManager[None]]:
        @contextmanager
        def breaking(number: int) -> Iterator[None]:
            fake.calls.clear()
            fake.faults.error(422, "invalid_input", at=number, when=AFTER)
            yield
            fake.faults.clear()

        return breaking

    @pytest.fixture
    def lost_part(self, fake: FakeHetzner) -> Callable[[Machine], None]:
        def lose(machine: Machine) -> None:
            fake.settle()
            with fake.store.lock:
                for kind in ("firewalls", "networks", "ssh_keys"):
                    fake.store.tables[kind].clear()
                for server in fake.store.tables["servers"].values():
                    server["private_net"] = []

        return lose

    @pytest.fixture
    def refusals(self, fake: FakeHetzner) -> Mapping[type[DeployError], AbstractContextManager[None]]:
        @contextmanager
        def refusing(status: int, code: str) -> Iterator[None]:
            fake.faults.error(status, code, method="POST", times=None)
            yield
            fake.faults.clear()

        return {
            CredentialError: refusing(403, "forbidden"),
            QuotaError: refusing(403, "resource_limit_exceeded"),
            DeployError: refusing(412, "resource_unavailable"),
        }


def test_data_on_the_volume_outlives_the_machine(fake: FakeHetzner) -> None:
    deployment = Deployment("trial", "data")
    provider = hetzner.make({"endpoint": fake.endpoint}, deployment)
    spec = MachineSpec(
        "trial-database-1",
        ("database",),
        Size(1, 1, 10),
        volume=10,
        ssh_keys=(LOGIN.public,),
        host_key=HOST.private,
        host_key_public=HOST.public,
    )
    assert data_outlives_the_machine(provider, deployment, spec) == ["trial-database-1-data"]
    assert fake.labelled() == []
