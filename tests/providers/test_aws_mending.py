"""Provider aws against moto: parts that somebody deleted or changed by hand are made good."""

from __future__ import annotations

import re
from typing import Any

import pytest

from deployer.core.machine import Machine
from providers.aws import account
from tests.providers.aws import (
    DEPLOYMENT,
    NAME,
    NOTHING,
    ONE,
    counted,
    fake,
    incoming,
    make,
    server,
    spec,
)
from tests.rig.aws.fake import FakeAws

# Fixtures are found by their names here.
__all__ = ["fake", "server"]


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

    def test_a_volume_that_was_detached_is_attached_again(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec(volume=5))
        (volume,) = [one for one in fake.backend().volumes.values() if one.attachment.device == "/dev/sdf"]
        provider._account.client("ec2").detach_volume(
            VolumeId=volume.id, InstanceId=made.id, Device="/dev/sdf"
        )
        assert provider.drift(made, spec(volume=5)) == [f"volume {volume.id}: not attached to {NAME}"]
        provider.mend(made, spec(volume=5))
        assert provider.drift(made, spec(volume=5)) == []
        assert provider.list_machines(DEPLOYMENT)[0].volume

    def test_a_reverse_name_is_told_as_amazon_has_it(self, fake: FakeAws) -> None:
        provider = make(fake)
        made = provider.create_machine(DEPLOYMENT, spec())
        assert provider.reverse_dns(made) == {made.address: ""}
        provider.set_reverse_dns(made, "mail.social.test")
        fake.actions.clear()
        assert provider.reverse_dns(made) == {made.address: "mail.social.test"}
        assert fake.actions == {"ec2:DescribeAddressesAttribute"}
