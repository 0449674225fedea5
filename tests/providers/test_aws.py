"""Provider aws against moto, with instances that are records only: what is made, told apart, kept and deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deployer.core.errors import DeployError, InputError
from deployer.core.machine import Deployment, Size
from tests.providers.aws import (
    DEPLOYMENT,
    NAME,
    NOTHING,
    ONE,
    counted,
    fake,
    incoming,
    instance,
    make,
    server,
    spec,
)
from tests.rig.aws.fake import FakeAws

# Fixtures are found by their names here.
__all__ = ["fake", "server"]


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
