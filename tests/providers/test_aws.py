"""Provider aws against moto, with instances that are records only: what is made, told apart, mended and deleted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import CredentialError, DeployError, InputError, QuotaError
from deployer.core.machine import Deployment, Machine, Opening, Size
from deployer.core.provider import Keeping, Listing, Mending, ReverseDns, VolumePrices
from providers.aws import account, prices
from providers.aws.settings import parse
from tests.providers.aws import DEPLOYMENT, NAME, NOTHING, ONE, counted, fake, make, server, spec
from tests.rig.aws.fake import CREDENTIALS, FakeAws

# Fixtures are found by their names here.
__all__ = ["fake", "server"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer attempts: botocore's pauses between them are its own."""
    monkeypatch.setattr(account, "ATTEMPTS", 2)


def instance(fake: FakeAws) -> Any:
    found = [one for one in fake.backend().all_instances() if one.state != "terminated"]
    assert len(found) == 1
    return found[0]


class TestMade:
    def test_a_machine_has_all_its_parts_once_however_often_it_is_asked_for(self, fake: FakeAws) -> None:
        made = make(fake).create_machine(DEPLOYMENT, spec())
        assert counted(fake) == ONE
        assert (made.name, made.status, made.type) == (NAME, "running", "t3.small")
        assert made.address.startswith("198.18.") and made.address6.startswith("2001:db8:")
        assert made.private_address.startswith("10.80.0.")
        assert made.host_key_public == spec().host_key_public
        again = make(fake).create_machine(DEPLOYMENT, spec())
        assert again == made
        assert counted(fake) == ONE
        listed = make(fake).list_machines(DEPLOYMENT)
        assert [replace(one, host_key_public=made.host_key_public) for one in listed] == [made]

    def test_everything_carries_the_labels_from_its_beginning(self, fake: FakeAws) -> None:
        make(fake).create_machine(DEPLOYMENT, spec(volume=5))
        backend = fake.backend()
        things = [
            *(one for one in backend.vpcs.values() if not one.is_default),
            *(one for zone in backend.subnets.values() for one in zone.values() if not one.default_for_az),
            *backend.internet_gateways.values(),
            *(one for groups in backend.groups.values() for one in groups.values() if one.name != "default"),
            *backend.enis.values(),
            *backend.addresses,
            *backend.all_instances(),
            *backend.volumes.values(),
        ]
        assert len(things) == 9
        for thing in things:
            labels = {tag["key"]: tag["value"] for tag in thing.get_tags()}
            assert labels.items() >= {**DEPLOYMENT.labels(), "deploy-machine": NAME}.items(), thing

    def test_the_instance_is_as_safe_as_it_can_be(self, fake: FakeAws) -> None:
        make(fake, protect=True).create_machine(DEPLOYMENT, spec(volume=5, size=Size(disk=300)))
        one = instance(fake)
        assert one.metadata_options.http_tokens == "required"
        assert one.metadata_options.http_put_response_hop_limit == 1
        assert one.disable_api_termination
        assert one.image_id == "ami-0debian13amd64new"
        system, data = (one.block_device_mapping[name] for name in ("/dev/xvda", "/dev/sdf"))
        assert (system.size, system.delete_on_termination) == (20, True)
        assert (data.size, data.delete_on_termination) == (5, False)
        for device in (system, data):
            volume = fake.backend().volumes[device.volume_id]
            assert (volume.encrypted, volume.volume_type) == (True, "gp3")

    def test_the_network_reaches_the_world_both_ways(self, fake: FakeAws) -> None:
        make(fake, cidr="10.9.0.0/24", zone="eu-central-1b").create_machine(DEPLOYMENT, spec())
        backend = fake.backend()
        own = next(iter(backend.enis.values()))
        assert own.private_ip_address.startswith("10.9.0.")
        assert own.subnet.availability_zone == "eu-central-1b"
        vpc = own.subnet.vpc_id
        gateway = next(iter(backend.internet_gateways.values()))
        assert gateway.vpc.id == vpc
        client = make(fake)._account.client("ec2")
        found = client.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
        ways = {
            route.get("DestinationCidrBlock") or route.get("DestinationIpv6CidrBlock"): route["GatewayId"]
            for route in found[0]["Routes"]
        }
        assert ways["0.0.0.0/0"] == ways["::/0"] == gateway.id

    def test_the_firewall_lets_in_what_is_wanted_and_the_other_machines(self, fake: FakeAws) -> None:
        make(fake).create_machine(DEPLOYMENT, spec())
        rules = incoming(fake)
        assert {rule for rule in rules if rule[0] == "tcp"} == {
            ("tcp", 22, "0.0.0.0/0"),
            ("tcp", 22, "::/0"),
            ("tcp", 443, "0.0.0.0/0"),
            ("tcp", 443, "::/0"),
            ("tcp", 25, "192.0.2.0/24"),
            ("tcp", 25, "2001:db8::/32"),
        }
        assert ("-1", None, "10.80.0.0/24") in rules
        assert {("icmp", -1, "0.0.0.0/0"), ("icmpv6", -1, "::/0")} <= rules

    def test_two_machines_share_the_network_and_the_last_takes_it_with_it(self, fake: FakeAws) -> None:
        provider = make(fake)
        first = provider.create_machine(DEPLOYMENT, spec("trial-app-1"))
        second = provider.create_machine(DEPLOYMENT, spec("trial-database-1"))
        assert counted(fake) == {**dict.fromkeys(NOTHING, 2), "vpcs": 1, "subnets": 1, "gateways": 1}
        provider.delete_machine(first)
        assert counted(fake) == ONE
        assert [one.name for one in provider.list_machines(DEPLOYMENT)] == ["trial-database-1"]
        provider.delete_machine(second)
        assert counted(fake) == NOTHING
        provider.delete_machine(second)

    def test_a_stopped_machine_is_started(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        provider._account.call("stopping", "stop_instances", InstanceIds=[made.id])
        assert [one.status for one in provider.list_machines(DEPLOYMENT)] == ["stopped"]
        assert provider.create_machine(DEPLOYMENT, spec()).id == made.id
        assert [one.status for one in provider.list_machines(DEPLOYMENT)] == ["running"]

    def test_the_cheapest_type_that_fits_is_taken_where_none_is_named(self, fake: FakeAws) -> None:
        made = make(fake).create_machine(DEPLOYMENT, spec(type="", size=Size(cores=2, memory=3)))
        assert made.type == "t3a.medium"

    def test_the_type_decides_the_image(self, fake: FakeAws) -> None:
        make(fake).create_machine(DEPLOYMENT, spec(type="t4g.small"))
        assert instance(fake).image_id == "ami-0debian13arm64new"

    def test_debians_parameter_is_asked_where_the_images_cannot_be_listed(self, fake: FakeAws) -> None:
        for image in fake.backend().amis.values():
            if image.name.startswith("debian-13-amd64"):
                image.owner_id = "210987654321"
        with pytest.raises(DeployError, match="no image of Debian 13 for amd64"):
            make(fake).create_machine(DEPLOYMENT, spec())
        fake.behaviour.extras.parameter = "ami-0debian13amd64old"
        make(fake).create_machine(DEPLOYMENT, spec())
        assert instance(fake).image_id == "ami-0debian13amd64old"

    def test_the_user_data_is_the_shared_one(self, fake: FakeAws) -> None:
        from providers import cloudinit

        make(fake).create_machine(DEPLOYMENT, spec(volume=5))
        (wanted,) = fake.behaviour.hardware.made.values()  # type: ignore[attr-defined]
        assert wanted.user_data == cloudinit.user_data(spec(volume=5))

    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"type": "t9.enormous"}, "type"),
            ({"options": {"disk": 1}}, "disk"),
            ({"options": {"image": 7}}, "image"),
            ({"options": {"colour": "red"}}, "colour"),
            ({"type": "", "size": Size(cores=1000)}, "size"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_made(
        self, fake: FakeAws, changes: dict[str, Any], key: str
    ) -> None:
        with pytest.raises(InputError, match=f"{key}:"):
            make(fake).create_machine(DEPLOYMENT, spec(**changes))
        assert counted(fake) == NOTHING


def incoming(fake: FakeAws) -> set[tuple[str, int | None, str]]:
    """The rules of the only firewall: protocol, port, source."""
    (group,) = [
        one for groups in fake.backend().groups.values() for one in groups.values() if one.name != "default"
    ]
    return {
        (rule.ip_protocol, rule.from_port, rule.ip_range.get("CidrIp") or rule.ip_range.get("CidrIpv6"))
        for rule in group.ingress_rules
    }


class TestForeign:
    def test_deployments_are_told_apart(self, fake: FakeAws) -> None:
        made = make(fake).create_machine(DEPLOYMENT, spec())
        for other in (Deployment("trial", "another"), Deployment("another", "contract")):
            assert not make(fake).list_machines(other)
        foreign = replace(made, labels={**made.labels, "deploy-inventory": "another"})
        with pytest.raises(DeployError, match="belongs to trial@another"):
            make(fake).delete_machine(foreign)
        assert counted(fake) == ONE

    def test_what_has_our_name_but_not_our_labels_stays(self, fake: FakeAws) -> None:
        provider = make(fake)
        client = provider._account.client("ec2")
        theirs = client.allocate_address(
            Domain="vpc",
            TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": [{"Key": "Name", "Value": NAME}]}],
        )
        volume = client.create_volume(AvailabilityZone="eu-central-1a", Size=1)
        made = provider.create_machine(DEPLOYMENT, spec())
        assert made.address != theirs["PublicIp"]
        provider.delete_machine(made)
        assert provider.delete_data(DEPLOYMENT) == []
        assert counted(fake) == {**NOTHING, "addresses": 1, "volumes": 1}
        assert list(fake.backend().volumes) == [volume["VolumeId"]]

    def test_a_group_of_that_name_without_labels_is_not_used(self, fake: FakeAws) -> None:
        provider = make(fake)
        first = provider.create_machine(DEPLOYMENT, spec("trial-app-1"))
        vpc = next(one.id for one in fake.backend().vpcs.values() if not one.is_default)
        client = provider._account.client("ec2")
        client.create_security_group(GroupName=f"deploy-{NAME}", Description="theirs", VpcId=vpc)
        with pytest.raises(DeployError, match="lacks our labels"):
            provider.create_machine(DEPLOYMENT, spec())
        with pytest.raises(DeployError, match=r"is not ours|DependencyViolation"):
            _impatient(provider)
            provider.delete_machine(first)

    def test_a_resource_without_our_labels_is_refused(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        (machine,) = [one for one in provider.resources() if one.kind == "machine"]
        provider._account.call("x", "delete_tags", Resources=[made.id], Tags=[{"Key": "deploy-stack"}])
        with pytest.raises(DeployError, match="does not carry the labels"):
            provider.delete_resource(machine)
        assert counted(fake) == ONE


def _impatient(provider: Any) -> None:
    real = provider._account.wait
    provider._account.wait = lambda what, find, timeout=0.0: real(what, find, min(timeout, 0.3))


class TestData:
    def test_a_volume_outlives_its_machine_and_comes_back_to_the_next_one(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec(volume=5))
        assert made.volume
        (before,) = [key for key, one in fake.backend().volumes.items() if one.size == 5]
        provider.delete_machine(made)
        assert counted(fake) == {**NOTHING, "volumes": 1}
        assert provider.list_machines(DEPLOYMENT) == []
        again = make(fake, zone="eu-central-1c").create_machine(DEPLOYMENT, spec(volume=5))
        assert again.volume and again.id != made.id
        assert instance(fake).block_device_mapping["/dev/sdf"].volume_id == before
        assert counted(fake) == {**ONE, "volumes": 2}
        # It waits for the instance to run, and asking again finds it attached.
        assert make(fake).create_machine(DEPLOYMENT, spec(volume=5)).id == again.id
        assert provider.delete_data(DEPLOYMENT) == []
        make(fake).delete_machine(again)
        assert provider.delete_data(DEPLOYMENT) == [f"{NAME} ({before})"]
        assert counted(fake) == NOTHING

    def test_a_protected_machine_is_deleted_all_the_same(self, fake: FakeAws) -> None:
        provider = make(fake, protect=True)
        made = provider.create_machine(DEPLOYMENT, spec(volume=5))
        provider.delete_machine(made)
        assert counted(fake) == {**NOTHING, "volumes": 1}

    def test_everything_is_listed_and_can_be_deleted_in_that_order(self, fake: FakeAws) -> None:
        provider = make(fake)
        provider.create_machine(DEPLOYMENT, spec(volume=5))
        found = provider.resources()
        assert [one.kind for one in found] == [
            "machine",
            "address",
            "interface",
            "firewall",
            "network",
            "volume",
        ]
        assert [one.data for one in found] == [False] * 5 + [True]
        assert all(one.deployment == DEPLOYMENT for one in found)
        assert [one.price > 0 for one in found] == [True, True, False, False, False, True]
        assert found[0].created.endswith("Z") and found[0].currency == "USD"
        for resource in found:
            provider.delete_resource(resource)
            provider.delete_resource(resource)
        assert counted(fake) == NOTHING
        assert provider.resources() == []


class TestMissingParts:
    @pytest.mark.parametrize(
        "operation", ["terminate_instances", "release_address", "delete_network_interface"]
    )
    def test_delete_with_a_part_missing(self, fake: FakeAws, operation: str) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        remove(provider, made, operation)
        provider.delete_machine(made)
        assert counted(fake) == NOTHING

    @pytest.mark.parametrize(
        "operation", ["terminate_instances", "release_address", "delete_network_interface"]
    )
    def test_a_lost_part_is_made_anew(
        self, fake: FakeAws, operation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An instance that was terminated by hand is another one after that, although its token is known."""
        monkeypatch.setattr(account, "SETTLE", 1)
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        remove(provider, made, operation)
        (listed,) = provider.list_machines(DEPLOYMENT)
        if operation != "release_address":
            assert listed.status == "failed"
            again = provider.create_machine(DEPLOYMENT, spec())
            assert again.id != made.id
        else:
            assert provider.drift(listed, spec()) == [f"address of {NAME}: it has none of ours"]
            provider.mend(listed, spec())
            again = provider.list_machines(DEPLOYMENT)[0]
            assert again.address
        assert counted(fake) == ONE

    def test_what_lost_its_labels_is_ours_by_its_interface(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        tags = [{"Key": key} for key in ("deploy-stack", "deploy-inventory", "deploy-machine")]
        provider._account.call("x", "delete_tags", Resources=[made.id], Tags=tags)
        (listed,) = provider.list_machines(DEPLOYMENT)
        assert listed.id == made.id
        assert provider.create_machine(DEPLOYMENT, spec()).id == made.id
        (words,) = provider.drift(listed, spec())
        assert words.startswith(f"machine {made.id}: without the label deploy-stack=trial, deploy-inventory=")
        provider.mend(listed, spec())
        assert provider.drift(listed, spec()) == []

    @pytest.mark.parametrize(
        ("kind", "listed", "key"),
        [
            ("interface", "NetworkInterfaces", "NetworkInterfaceId"),
            ("address", "Addresses", "AllocationId"),
            ("firewall", "SecurityGroups", "GroupId"),
            ("network", "Vpcs", "VpcId"),
        ],
    )
    def test_any_part_that_lost_all_its_labels_gets_them_back(
        self, fake: FakeAws, kind: str, listed: str, key: str
    ) -> None:
        """None of them is made a second time, and the machine keeps its address."""
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        client = provider._account.client("ec2")
        describe = {
            "interface": client.describe_network_interfaces,
            "address": client.describe_addresses,
            "firewall": client.describe_security_groups,
            "network": client.describe_vpcs,
        }[kind]
        ours = [{"Name": "tag-key", "Values": ["deploy-stack"]}]
        (part,) = describe(Filters=ours)[listed]
        names = ("Name", "deploy-stack", "deploy-inventory", "deploy-machine", "deploy-roles")
        client.delete_tags(Resources=[part[key]], Tags=[{"Key": name} for name in names])
        assert all(one[key] != part[key] for one in describe(Filters=ours)[listed])
        (seen,) = provider.list_machines(DEPLOYMENT)
        assert (seen.address, seen.private_address) == (made.address, made.private_address)
        (words,) = provider.drift(seen, spec())
        assert words.startswith(f"{kind} {part[key]}: without the label ") and "deploy-stack=trial" in words
        provider.mend(seen, spec())
        assert provider.drift(seen, spec()) == []
        assert [one[key] for one in describe(Filters=ours)[listed]] == [part[key]]
        assert counted(fake) == ONE


def remove(provider: Any, machine: Machine, operation: str) -> None:
    """Somebody deletes one thing by hand."""
    client = provider._account.client("ec2")
    address = client.describe_addresses(PublicIps=[machine.address])["Addresses"][0]
    if operation == "release_address":
        client.disassociate_address(AssociationId=address["AssociationId"])
        client.release_address(AllocationId=address["AllocationId"])
        return
    client.terminate_instances(InstanceIds=[machine.id])
    if operation == "delete_network_interface":
        client.delete_network_interface(NetworkInterfaceId=address["NetworkInterfaceId"])


class TestDrift:
    def test_an_untouched_machine_has_none(self, fake: FakeAws) -> None:
        provider = make(fake, protect=True)
        made = provider.create_machine(DEPLOYMENT, spec(volume=5))
        assert provider.drift(made, spec(volume=5)) == []

    def test_rules_are_seen_and_put_back(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        before = incoming(fake)
        client = provider._account.client("ec2")
        group = client.describe_security_groups(
            Filters=[{"Name": "group-name", "Values": [f"deploy-{NAME}"]}]
        )["SecurityGroups"][0]["GroupId"]
        client.authorize_security_group_ingress(
            GroupId=group, IpProtocol="tcp", FromPort=5432, ToPort=5433, CidrIp="0.0.0.0/0"
        )
        client.revoke_security_group_ingress(
            GroupId=group, IpProtocol="tcp", FromPort=443, ToPort=443, CidrIp="0.0.0.0/0"
        )
        assert provider.drift(made, spec()) == [
            f"firewall deploy-{NAME}: rules to change: + tcp/443 from 0.0.0.0/0; - tcp/5432-5433 from 0.0.0.0/0"
        ]
        provider.mend(made, spec())
        assert incoming(fake) == before
        assert provider.drift(made, spec()) == []

    def test_other_changes_are_seen_and_put_back(self, fake: FakeAws) -> None:
        provider = make(fake)
        wanted = spec(volume=5)
        made = provider.create_machine(DEPLOYMENT, wanted)
        client = provider._account.client("ec2")
        client.modify_instance_metadata_options(InstanceId=made.id, HttpTokens="optional")
        client.modify_instance_attribute(
            InstanceId=made.id,
            BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": True}}],
        )
        interface = next(iter(fake.backend().enis.values()))
        default = next(
            one.id for one in fake.backend().groups[interface.subnet.vpc_id].values() if one.name == "default"
        )
        client.modify_network_interface_attribute(NetworkInterfaceId=interface.id, Groups=[default])
        words = "; ".join(provider.drift(made, wanted))
        assert "IMDSv1" in words and "would be deleted with the machine" in words
        assert f"firewall deploy-{NAME}: does not guard {NAME}, but {default} does" in words
        assert all(": " in text for text in provider.drift(made, wanted))
        provider.mend(made, wanted)
        assert provider.drift(made, wanted) == []

    def test_a_second_address_is_given_back(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        labels = [{"Key": key, "Value": made.labels[key]} for key in (*DEPLOYMENT.labels(), "deploy-machine")]
        provider._account.client("ec2").allocate_address(
            Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": labels}]
        )
        words = "; ".join(provider.drift(made, spec()))
        assert "address 198.18.0.2: a second one, paid for and not used" in words
        provider.mend(made, spec())
        assert counted(fake) == ONE
        assert provider.list_machines(DEPLOYMENT)[0].address == made.address

    def test_a_volume_grows_and_never_shrinks(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec(volume=5))
        assert provider.drift(made, spec(volume=4)) == []
        (words,) = provider.drift(made, spec(volume=20))
        assert re.fullmatch(r"volume vol-\w+: 5 GiB, to be 20 \(about \d+\.\d\d USD a month more\)", words)
        provider.mend(made, spec(volume=20))
        assert sorted(one.size for one in fake.backend().volumes.values()) == [20, 20]
        assert provider.drift(made, spec(volume=20)) == []

    def test_a_reverse_name_is_told_as_amazon_has_it(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        assert provider.reverse_dns(made) == {made.address: ""}
        provider.set_reverse_dns(made, "mail.social.test")
        fake.actions.clear()
        assert provider.reverse_dns(made) == {made.address: "mail.social.test"}
        assert fake.actions == {"ec2:DescribeAddressesAttribute"}


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


def test_the_documented_policy_allows_every_call_that_was_made(fake: FakeAws) -> None:
    """All that a deployment ever does, against the JSON in docs/aws-iam.md."""
    fake.actions.clear()
    provider = make(fake, protect=True)
    wanted = spec(volume=5)
    provider.check()
    provider.offers()
    made = provider.create_machine(DEPLOYMENT, wanted)
    provider._account.call("x", "stop_instances", InstanceIds=[made.id])
    provider.create_machine(DEPLOYMENT, wanted)
    provider.set_reverse_dns(made, "mail.social.test")
    client = provider._account.client("ec2")
    client.modify_instance_metadata_options(InstanceId=made.id, HttpTokens="optional")
    changed = replace(wanted, openings=(Opening(22),), volume=wanted.volume + 1)
    assert provider.reverse_dns(made)
    assert provider.drift(made, changed)
    provider.mend(made, changed)
    provider.delete_machine(made)
    again = provider.create_machine(DEPLOYMENT, wanted)
    for resource in provider.resources():
        provider.delete_resource(resource)
    provider.delete_machine(again)
    # StopInstances is the operator's, here the test's.
    called = fake.actions - {"ec2:StopInstances"}
    assert len(called) > 35
    assert called <= allowed(), sorted(called - allowed())


def allowed() -> set[str]:
    """The actions of the documented policy."""
    text = (ROOT / "docs" / "aws-iam.md").read_text(encoding="utf-8")
    found: set[str] = set()
    for block in re.findall(r"```json\n(.*?)```", text, re.S):
        for statement in json.loads(block)["Statement"]:
            actions = statement["Action"]
            found |= {actions} if isinstance(actions, str) else set(actions)
    return found


def test_the_documented_policy_is_what_the_code_can_call_and_no_more() -> None:
    import boto3

    # Whatever is one of boto3's methods and stands in the code as a text.
    words = {
        word
        for path in (ROOT / "providers" / "aws").glob("*.py")
        for word in re.findall(r'"([a-z]+(?:_[a-z]+)+)"', path.read_text(encoding="utf-8"))
    }
    can_call = set()
    for service, prefix in {
        "ec2": "ec2",
        "sts": "sts",
        "ssm": "ssm",
        "pricing": "pricing",
        "service-quotas": "servicequotas",
    }.items():
        client = boto3.client(
            service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        methods = client.meta.method_to_api_mapping
        can_call |= {f"{prefix}:{methods[word]}" for word in words if word in methods}
    assert can_call == allowed()
