"""What the tests of provider aws share: an account, a deployment, and what is left in the account."""

from __future__ import annotations

import os
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


class Shared:
    """boto3 whose clients are made once: each takes a tenth of a second, and a test makes many providers."""

    def __init__(self) -> None:
        from boto3.session import Session

        self._session = Session
        self._clients: dict[tuple[object, ...], Any] = {}
        # As `boto3.session.Session`.
        self.session = self

    def Session(self) -> Shared:
        return self

    def client(self, service: str, region_name: str, endpoint_url: str | None, config: Any) -> Any:
        attempts = config.retries["total_max_attempts"]
        key = (service, region_name, endpoint_url, attempts, os.environ.get("AWS_ACCESS_KEY_ID"))
        if key not in self._clients:
            self._clients[key] = self._session().client(
                service, region_name=region_name, endpoint_url=endpoint_url, config=config
            )
        return self._clients[key]


@contextmanager
def shared_clients() -> Iterator[None]:
    from botocore.config import Config

    shared = Shared()
    with mock.patch("providers.aws.account._library", lambda: (shared, Config)):
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[FakeAws]:
    with shared_clients():
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


def instance(fake: FakeAws) -> Any:
    found = [one for one in fake.backend().all_instances() if one.state != "terminated"]
    assert len(found) == 1
    return found[0]


def incoming(fake: FakeAws) -> set[tuple[str, int | None, str]]:
    """The rules of the only firewall: protocol, port, source."""
    (group,) = [
        one for groups in fake.backend().groups.values() for one in groups.values() if one.name != "default"
    ]
    return {
        (rule.ip_protocol, rule.from_port, rule.ip_range.get("CidrIp") or rule.ip_range.get("CidrIpv6"))
        for rule in group.ingress_rules
    }
