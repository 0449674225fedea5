"""What there is of a deployment at Amazon, found by its tags alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deployer.core.machine import Deployment
from providers.aws.account import Account, filters

# Whose a part is, beside the labels of the deployment.
MACHINE, ROLES = "deploy-machine", "deploy-roles"
# When it was made (ISO 8601), on an address: Amazon does not tell.
CREATED = "deploy-created"
GONE = ("shutting-down", "terminated")

Thing = dict[str, Any]


@dataclass
class Parts:
    """Every list holds Amazon's own descriptions. Instances that are gone are left out."""

    vpcs: list[Thing] = field(default_factory=list)
    gateways: list[Thing] = field(default_factory=list)
    groups: list[Thing] = field(default_factory=list)
    addresses: list[Thing] = field(default_factory=list)
    interfaces: list[Thing] = field(default_factory=list)
    instances: list[Thing] = field(default_factory=list)
    volumes: list[Thing] = field(default_factory=list)

    def of(self, name: str) -> Parts:
        """Those of one machine. The network is nobody's, but see `names`."""
        return Parts(
            groups=_of(self.groups, name),
            addresses=_of(self.addresses, name),
            interfaces=_of(self.interfaces, name),
            instances=_of(self.instances, name),
            volumes=_of(self.volumes, name),
        )

    def names(self) -> list[str]:
        """Machines of which there is anything but a kept volume, whole or not.

        A network (or a gateway) without machines counts as part of the machine for which it was made, so that taking
        that one down takes the network too.
        """
        lists = (self.instances, self.interfaces, self.addresses, self.groups)
        found = {tags(thing).get(MACHINE, "") for things in lists for thing in things}
        return sorted(found or {tags(thing).get(MACHINE, "") for thing in (*self.vpcs, *self.gateways)})

    def data(self) -> list[Thing]:
        """Volumes that hold data: attached as such, or left behind by an instance that is gone."""
        system = {volume for instance in self.instances for volume in system_volumes(instance)}
        return [volume for volume in self.volumes if volume["VolumeId"] not in system]


def read(account: Account, labels: Mapping[str, str]) -> Parts:
    """Ask for all of it at once. labels: {} stands for every deployment in the account."""
    what = "listing what is at AWS"
    ours = [tag for key in (labels or {"deploy-stack": ""}) for tag in _filter(key, labels.get(key, ""))]
    alive = filters(instance_state_name=("pending", "running", "stopping", "stopped"))

    def pages(operation: str, key: str, **arguments: Any) -> list[Thing]:
        return account.pages(what, operation, key, Filters=ours, **arguments)

    with ThreadPoolExecutor(7) as pool:
        vpcs = pool.submit(pages, "describe_vpcs", "Vpcs")
        gateways = pool.submit(pages, "describe_internet_gateways", "InternetGateways")
        groups = pool.submit(pages, "describe_security_groups", "SecurityGroups")
        interfaces = pool.submit(pages, "describe_network_interfaces", "NetworkInterfaces")
        volumes = pool.submit(pages, "describe_volumes", "Volumes")
        addresses = pool.submit(account.call, what, "describe_addresses", Filters=ours)
        reservations = pool.submit(
            account.pages, what, "describe_instances", "Reservations", Filters=[*ours, *alive]
        )
    parts = Parts(
        vpcs=by(vpcs.result(), "VpcId"),
        gateways=by(gateways.result(), "InternetGatewayId"),
        groups=by(groups.result(), "GroupId"),
        addresses=by(addresses.result().get("Addresses", []), "AllocationId"),
        interfaces=by(interfaces.result(), "NetworkInterfaceId"),
        instances=by(flat(reservations.result()), "InstanceId"),
        volumes=by(volumes.result(), "VolumeId"),
    )
    _complete(account, parts)
    return parts


def _complete(account: Account, parts: Parts) -> None:
    """Add instances that lost their tags: they are ours all the same when they run on an interface of ours."""
    known = {instance["InstanceId"] for instance in parts.instances}
    for interface in parts.interfaces:
        instance = str(interface.get("Attachment", {}).get("InstanceId", ""))
        if not instance or instance in known:
            continue
        found = account.pages(
            "listing what is at AWS",
            "describe_instances",
            "Reservations",
            Filters=filters(instance_id=instance),
        )
        for thing in flat(found):
            if thing["State"]["Name"] not in GONE:
                # The name it must have is on the interface.
                mark = {MACHINE: tags(interface).get(MACHINE, "")}
                parts.instances.append({**thing, "Tags": pairs({**tags(thing), **mark})})


def _filter(key: str, value: str) -> Sequence[Thing]:
    return filters(tag_key=key) if not value else [{"Name": f"tag:{key}", "Values": [value]}]


def _of(things: Iterable[Thing], name: str) -> list[Thing]:
    return [thing for thing in things if tags(thing).get(MACHINE) == name]


def by(things: Iterable[Thing], key: str) -> list[Thing]:
    return sorted(things, key=lambda thing: str(thing.get(key, "")))


def flat(reservations: Iterable[Thing]) -> list[Thing]:
    return [instance for reservation in reservations for instance in reservation.get("Instances", ())]


# --- tags ---


def tags(thing: Mapping[str, Any]) -> dict[str, str]:
    found = thing.get("Tags") or thing.get("TagSet") or ()
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in found}


def pairs(labels: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in labels.items()]


def labels_of(deployment: Deployment, name: str, roles: Sequence[str] = ()) -> dict[str, str]:
    """All tags of a part of a machine. `Name` is what Amazon's console shows."""
    found = {"Name": name, **deployment.labels(), MACHINE: name}
    return {**found, ROLES: " ".join(roles)} if roles else found


def specifications(labels: Mapping[str, str], *kinds: str) -> list[Thing]:
    """TagSpecifications: the tags are there from the moment the thing is."""
    return [{"ResourceType": kind, "Tags": pairs(labels)} for kind in kinds]


def deployment_of(thing: Mapping[str, Any]) -> Deployment:
    found = tags(thing)
    return Deployment(found.get("deploy-stack", ""), found.get("deploy-inventory", ""))


# --- what belongs to an instance ---


def system_volumes(instance: Mapping[str, Any]) -> list[str]:
    root = instance.get("RootDeviceName")
    return [
        str(device["Ebs"]["VolumeId"])
        for device in instance.get("BlockDeviceMappings", ())
        if device.get("DeviceName") == root and "Ebs" in device
    ]


def token(*parts: str) -> str:
    """A client token that is the same whenever the same thing is asked for. At most 64 letters (EC2 API)."""
    return "deploy-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:48]
