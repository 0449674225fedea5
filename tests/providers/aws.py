"""What the tests of provider aws share: an account, a deployment, and what is left in the account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from deployer.core.machine import Deployment, MachineSpec, Opening
from providers import aws
from providers.aws import AwsProvider, prices
from tests.providers.contract import HOST, LOGIN
from tests.rig.aws.fake import CREDENTIALS, FakeAws

DEPLOYMENT = Deployment("trial", "contract")
NAME = "trial-all-1"


@contextmanager
def shared_descriptions() -> Iterator[None]:
    """boto3 reads the long description of EC2 once, not for each provider that a test makes."""
    from botocore.loaders import create_loader

    loader = create_loader()
    with mock.patch("botocore.session.create_loader", lambda path: loader):
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[FakeAws]:
    with shared_descriptions():
        fake = FakeAws()
        yield fake
        fake.close()


@pytest.fixture
def fake(server: FakeAws, monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    server.reset()
    for key, value in CREDENTIALS.items():
        monkeypatch.setenv(key, value)
    for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(prices, "_known", {})
    return server


def make(fake: FakeAws, **options: object) -> AwsProvider:
    """A provider as a new process would have it."""
    return aws.make({"endpoint": fake.endpoint, **options}, DEPLOYMENT)


def spec(name: str = NAME, **changes: Any) -> MachineSpec:
    values: dict[str, Any] = {
        "roles": ("app", "database"),
        "type": "t3.small",
        "openings": (Opening(22), Opening(443), Opening(25, sources=("192.0.2.0/24", "2001:db8::/32"))),
        "ssh_keys": (LOGIN.public,),
        "host_key": HOST.private,
        "host_key_public": HOST.public,
    }
    return MachineSpec(name, **{**values, **changes})


def counted(fake: FakeAws) -> dict[str, int]:
    """How many things there are beside those that every account has."""
    backend = fake.backend()
    return {
        "vpcs": len([one for one in backend.vpcs.values() if not one.is_default]),
        "subnets": len(
            [
                subnet
                for zone in backend.subnets.values()
                for subnet in zone.values()
                if not subnet.default_for_az
            ]
        ),
        "gateways": len(backend.internet_gateways),
        "groups": len(
            [one for groups in backend.groups.values() for one in groups.values() if one.name != "default"]
        ),
        "interfaces": len(backend.enis),
        "addresses": len(backend.addresses),
        "instances": len([one for one in backend.all_instances() if one.state != "terminated"]),
        "volumes": len(backend.volumes),
    }


NOTHING = dict.fromkeys(
    ("vpcs", "subnets", "gateways", "groups", "interfaces", "addresses", "instances", "volumes"), 0
)
# One machine with its system disk, and its network.
ONE = dict.fromkeys(NOTHING, 1)
