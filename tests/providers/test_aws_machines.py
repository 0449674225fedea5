"""Provider aws against an EC2 whose instances are real machines: the contract, and what a first boot leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest

from deployer.core.errors import CredentialError, DeployError, QuotaError
from deployer.core.machine import Deployment, Machine, MachineSpec
from providers import aws
from providers.aws import AwsProvider
from tests.providers.aws import NOTHING, counted, shared_clients
from tests.providers.contract import HOST, LOGIN, ProviderContract, data_outlives_the_machine, shell
from tests.rig import cloudimage
from tests.rig.aws.fake import CREDENTIALS, FakeAws
from tests.rig.hetzner.faults import AFTER
from tests.rig.hetzner.machines import RealMachines
from tests.rig.world import World


@pytest.fixture(scope="module")
def fake(world: World) -> Iterator[FakeAws]:
    machines = RealMachines(world.options, cloudimage.build(world), world.folder / "volumes")
    with pytest.MonkeyPatch.context() as patch, shared_clients():
        for key, value in CREDENTIALS.items():
            patch.setenv(key, value)
        made = FakeAws(machines)
        yield made
        made.close()


class TestAws(ProviderContract):
    @pytest.fixture
    def provider(self, fake: FakeAws, deployment: Deployment) -> AwsProvider:
        return aws.make({"endpoint": fake.endpoint}, deployment)

    @pytest.fixture
    def broken_off(self, fake: FakeAws) -> Callable[[int], AbstractContextManager[None]]:
        @contextmanager
        def breaking(number: int) -> Iterator[None]:
            fake.calls.clear()
            fake.faults.error(400, "InvalidParameterValue", at=number, when=AFTER)
            yield
            fake.faults.clear()

        return breaking

    @pytest.fixture
    def lost_part(self, fake: FakeAws) -> Callable[[Machine], None]:
        def lose(machine: Machine) -> None:
            client = aws.make({"endpoint": fake.endpoint}, Deployment("x", "x"))._account.client("ec2")
            (address,) = client.describe_addresses(PublicIps=[machine.address])["Addresses"]
            client.disassociate_address(AssociationId=address["AssociationId"])
            client.release_address(AllocationId=address["AllocationId"])
            gateways = client.describe_internet_gateways()["InternetGateways"]
            for gateway in gateways:
                identity = gateway["InternetGatewayId"]
                client.detach_internet_gateway(
                    InternetGatewayId=identity, VpcId=gateway["Attachments"][0]["VpcId"]
                )
                client.delete_internet_gateway(InternetGatewayId=identity)

        return lose

    @pytest.fixture
    def refusals(self, fake: FakeAws) -> Mapping[type[DeployError], AbstractContextManager[None]]:
        @contextmanager
        def refusing(status: int, code: str) -> Iterator[None]:
            fake.faults.error(status, code, path="RunInstances|DescribeVpcs", times=None)
            yield
            fake.faults.clear()

        return {
            CredentialError: refusing(401, "AuthFailure"),
            QuotaError: refusing(400, "VcpuLimitExceeded"),
        }


def test_data_on_the_volume_outlives_the_machine(fake: FakeAws) -> None:
    deployment = Deployment("trial", "data")
    provider = aws.make({"endpoint": fake.endpoint}, deployment)
    spec = MachineSpec(
        "trial-database-1",
        ("database",),
        volume=10,
        type="t3.small",
        ssh_keys=(LOGIN.public,),
        host_key=HOST.private,
        host_key_public=HOST.public,
    )

    def network(first: Machine) -> None:
        other = provider.create_machine(deployment, replace(spec, name="trial-app-1", volume=0))
        # The deployment's own network, and the way out by the public address, which the machine has itself.
        ways = f"ip route get {other.private_address}; ip route get 192.0.2.1"
        assert shell(first, ways)[1].count("src ") == 2
        assert f"src {first.private_address}" in shell(first, ways)[1].splitlines()[0]
        assert f"src {first.address}" in shell(first, ways)[1]
        reached = f"timeout 20 sh -c 'until timeout 2 bash -c \"</dev/tcp/{other.private_address}/22\"; do sleep 1; done'"
        assert shell(first, reached)[0] == 0
        provider.delete_machine(other)

    assert len(data_outlives_the_machine(provider, deployment, spec, network)) == 1
    assert counted(fake) == NOTHING
