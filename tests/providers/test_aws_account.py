"""Provider aws against moto: the account, its limits and prices, errors, options, and the documented policy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deployer.core.errors import CredentialError, DeployError, InputError, QuotaError
from deployer.core.provider import Keeping, Listing, Mending, ReverseDns, VolumePrices
from providers.aws import account, prices
from providers.aws.settings import parse
from tests.providers.aws import (
    DEPLOYMENT,
    NOTHING,
    ONE,
    counted,
    fake,
    make,
    server,
    spec,
)
from tests.rig.aws.fake import CREDENTIALS, FakeAws

# Fixtures are found by their names here.
__all__ = ["fake", "server"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer attempts: botocore's pauses between them are its own."""
    monkeypatch.setattr(account, "ATTEMPTS", 2)


class TestChecked:
    def test_everything_is_well(self, fake: FakeAws) -> None:
        provider = make(fake)
        provider.check()
        assert provider.remarks == ()
        assert counted(fake) == NOTHING

    def test_limits_that_may_not_be_read_are_said(self, fake: FakeAws) -> None:
        fake.behaviour.extras.limits = {}
        provider = make(fake)
        provider.check()
        assert len(provider.remarks) == 2
        assert "the limit of vCPUs of standard instances could not be read" in provider.remarks[0]
        assert "GetServiceQuota: AccessDeniedException" in provider.remarks[0]

    def test_a_limit_that_is_reached(self, fake: FakeAws) -> None:
        fake.behaviour.extras.limits["L-0263D0A3"] = 0
        with pytest.raises(QuotaError, match="0 of 0 Elastic IPs in eu-central-1"):
            make(fake).check()
        fake.behaviour.extras.limits["L-0263D0A3"] = 1
        provider = make(fake)
        provider.create_machine(DEPLOYMENT, spec())
        provider.check()
        assert provider.remarks == ("all 1 Elastic IPs are in use: no further machine can be made",)

    def test_a_zone_that_there_is_not(self, fake: FakeAws) -> None:
        with pytest.raises(InputError, match="zone: eu-central-1z cannot be used"):
            make(fake, zone="eu-central-1z").check()

    def test_without_credentials(
        self, fake: FakeAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for key in CREDENTIALS:
            monkeypatch.delenv(key)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        with pytest.raises(CredentialError, match="AWS_ACCESS_KEY_ID"):
            make(fake).check()

    def test_a_region_that_is_switched_off(self, fake: FakeAws) -> None:
        fake.faults.error(
            401, "AuthFailure", path="DescribeAvailabilityZones", message="not able to validate"
        )
        with pytest.raises(CredentialError, match="switch on the region eu-central-1"):
            make(fake).check()


class TestOffers:
    def test_prices_of_the_api_and_of_the_table(self, fake: FakeAws) -> None:
        asked = make(fake).offers()
        assert [one.price for one in asked] == sorted(one.price for one in asked)
        known = {one.name: one for one in asked}
        # 0.0242 an hour from the API, an address, and 20 GiB.
        assert known["t3.small"].price == round((0.0242 + 0.005) * 730 + 20 * 0.0952, 2)
        assert (known["t3.small"].cores, known["t3.small"].memory, known["t3.small"].currency) == (
            2,
            2.0,
            "USD",
        )
        assert not known["t3.small"].approximate and known["t3a.small"].approximate
        fake.behaviour.extras.prices = {}
        prices._known.clear()
        table = {one.name: one for one in make(fake).offers()}
        assert table["t3.small"].price == round((0.024 + 0.005) * 730 + 20 * 0.0952, 2)
        assert table["t3.small"].approximate
        assert make(fake).volume_price(100) == 9.52

    def test_the_architecture_is_the_inventorys(self, fake: FakeAws) -> None:
        assert {one.name.split(".")[0] for one in make(fake, architecture="arm64").offers()} == {"t4g"}


class TestReverseNames:
    def test_it_is_set_waited_for_and_then_left_alone(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        fake.behaviour.extras.name_polls = 3
        provider.set_reverse_dns(made, "mail.social.test")
        assert list(fake.behaviour.extras.names.values()) == ["mail.social.test."]
        fake.calls.clear()
        provider.set_reverse_dns(made, "mail.social.test.")
        assert not fake.calls.matching("POST", "ModifyAddressAttribute")

    def test_without_the_forward_record_amazon_refuses_and_the_error_says_so(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        fake.behaviour.extras.forward = lambda name, address: False
        with pytest.raises(DeployError, match=rf"A record mail.social.test. -> {made.address} is there"):
            provider.set_reverse_dns(made, "mail.social.test")

    def test_the_wait_has_a_bound(self, fake: FakeAws, monkeypatch: pytest.MonkeyPatch) -> None:
        from providers.aws import reverse

        monkeypatch.setattr(reverse, "TIMEOUT", 1)
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        fake.behaviour.extras.name_polls = 1000
        with pytest.raises(DeployError, match="had not done it after 1 s"):
            provider.set_reverse_dns(made, "mail.social.test")


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "code", "kind", "next_step"),
        [
            (401, "AuthFailure", CredentialError, "clock"),
            (403, "UnauthorizedOperation", CredentialError, "allow RunInstances: docs/aws-iam.md"),
            (400, "VcpuLimitExceeded", QuotaError, "Service Quotas"),
            (400, "InstanceLimitExceeded", QuotaError, "Service Quotas"),
            (500, "InsufficientInstanceCapacity", DeployError, "another `type`"),
        ],
    )
    def test_errors_are_ours_with_code_and_request(
        self, fake: FakeAws, quick: None, status: int, code: str, kind: type[DeployError], next_step: str
    ) -> None:
        fake.faults.error(status, code, path="RunInstances", message="no", times=None)
        with pytest.raises(kind) as caught:
            make(fake).create_machine(DEPLOYMENT, spec())
        assert re.search(rf"RunInstances: {code}: no \(request [0-9a-f-]{{36}}\)", caught.value.why)
        assert next_step in caught.value.next

    def test_what_only_amazon_can_read_is_left_out(self, fake: FakeAws) -> None:
        message = "You are not authorized. Encoded authorization failure message: " + "x" * 900
        fake.faults.error(403, "UnauthorizedOperation", path="RunInstances", message=message)
        with pytest.raises(CredentialError) as caught:
            make(fake).create_machine(DEPLOYMENT, spec())
        assert "xxx" not in str(caught.value)

    def test_a_throttled_call_is_repeated_within_a_bound(self, fake: FakeAws, quick: None) -> None:
        fake.faults.error(503, "RequestLimitExceeded", path="CreateVpc", times=1)
        make(fake).create_machine(DEPLOYMENT, spec())
        assert counted(fake) == ONE
        fake.faults.limited = True
        with pytest.raises(DeployError, match="RequestLimitExceeded"):
            make(fake).list_machines(DEPLOYMENT)

    def test_no_secret_is_in_an_error(self, fake: FakeAws, quick: None) -> None:
        fake.faults.error(400, "InvalidParameterValue", path="RunInstances", message="no")
        with pytest.raises(DeployError) as caught:
            make(fake).create_machine(DEPLOYMENT, spec())
        assert "PRIVATE KEY" not in str(caught.value) and CREDENTIALS["AWS_ACCESS_KEY_ID"] not in str(
            caught.value
        )


class TestOptions:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("region", "Frankfurt"),
            ("region", 1),
            ("zone", "us-east-1a"),
            ("cidr", "8.8.0.0/16"),
            ("cidr", "10.0.0.0/8"),
            ("cidr", "x"),
            ("architecture", "riscv64"),
            ("disk", 7),
            ("disk", True),
            ("protect", "yes"),
            ("endpoint", "localhost"),
            ("secret_key", "x"),
        ],
    )
    def test_a_wrong_option_is_named(self, key: str, value: object) -> None:
        with pytest.raises(InputError, match=f"{key}:"):
            parse({key: value})

    def test_it_offers_what_it_promises(self, fake: FakeAws) -> None:
        provider = make(fake)
        for protocol in (Listing, Keeping, Mending, ReverseDns, VolumePrices):
            assert isinstance(provider, protocol)


def test_boto3_is_not_loaded_until_it_is_used() -> None:
    script = (
        "import sys; from providers import aws; from deployer.core.machine import Deployment;"
        "aws.make({}, Deployment('a', 'b')); print(sorted(name for name in sys.modules if 'boto' in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_another_vendors_inventory_does_not_load_it_either() -> None:
    script = (
        "import sys; from deployer.flow import registry;"
        "registry.provider_module('local'); registry.provider_options('local'); registry.provider_names();"
        "print(sorted(name for name in sys.modules if 'boto' in name or name.startswith('providers.aws')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_rig_answers_for_route_53_too(fake: FakeAws) -> None:
    import boto3

    client = boto3.client("route53", region_name="us-east-1", endpoint_url=fake.endpoint)
    zone = client.create_hosted_zone(Name="social.test", CallerReference="once")["HostedZone"]["Id"]
    change = {
        "Action": "UPSERT",
        "ResourceRecordSet": {
            "Name": "www.social.test",
            "Type": "A",
            "TTL": 60,
            "ResourceRecords": [{"Value": "192.0.2.1"}],
        },
    }
    client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [change]})
    names = [one["Name"] for one in client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]]
    assert "www.social.test." in names
