"""Deleting, and listing what costs money: everything with our label, of whatever deployment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.machine import Deployment
from deployer.core.provider import Resource
from providers.aws import instances, machines, network, prices, shown
from providers.aws.account import Account
from providers.aws.errors import missing
from providers.aws.parts import CREATED, GONE, Parts, Thing, deployment_of, flat, read, system_volumes, tags

# Kind -> key of its id, in the order in which they can be deleted.
KINDS = {
    "machine": "InstanceId",
    "address": "AllocationId",
    "interface": "NetworkInterfaceId",
    "firewall": "GroupId",
    "gateway": "InternetGatewayId",
    "network": "VpcId",
    "volume": "VolumeId",
}


def delete_parts(account: Account, parts: Parts) -> None:
    """Delete one machine's parts, the instance first. Volumes that hold data stay. Missing parts are no error."""
    listed = {str(instance["InstanceId"]) for instance in parts.instances}
    # An interface names its instance even while Amazon does not list that yet.
    users = {str(one.get("Attachment", {}).get("InstanceId", "")) for one in parts.interfaces}
    instances.terminate(account, (listed | users) - {""})
    for address in parts.addresses:
        machines.release(account, address)
    for interface in parts.interfaces:
        network.delete(
            account,
            "deleting the network interface",
            "delete_network_interface",
            NetworkInterfaceId=interface["NetworkInterfaceId"],
        )
    for group in parts.groups:
        network.delete(account, "deleting the firewall", "delete_security_group", GroupId=group["GroupId"])


def delete_data(account: Account, deployment: Deployment) -> Sequence[str]:
    """Delete the deployment's volumes that belong to no machine; "NAME (vol-...)" of each."""
    deleted = []
    for volume in read(account, deployment.labels()).volumes:
        if volume.get("Attachments"):
            continue
        network.delete(account, "deleting the data volume", "delete_volume", VolumeId=volume["VolumeId"])
        deleted.append(f"{tags(volume).get('Name', '')} ({volume['VolumeId']})")
    return deleted


def resources(account: Account) -> list[Resource]:
    """Everything with our label in this region, in the order in which it can be deleted."""
    parts = read(account, {})
    region = account.settings.region
    system = {volume for instance in parts.instances for volume in system_volumes(instance)}
    found = []
    for instance in parts.instances:
        own = [one for one in parts.volumes if one["VolumeId"] in system_volumes(instance)]
        gibs = sum(int(volume["Size"]) for volume in own)
        price = prices.machine(region, instance["InstanceType"], gibs, 0)
        found.append(_resource("machine", instance, price, instance.get("LaunchTime")))
    found += [_resource("address", one, prices.address(), tags(one).get(CREATED)) for one in parts.addresses]
    found += [_resource("interface", one) for one in parts.interfaces]
    found += [_resource("firewall", one) for one in parts.groups]
    found += [_resource("gateway", one) for one in parts.gateways if not _attached(one, parts)]
    found += [_resource("network", one) for one in parts.vpcs]
    for volume in parts.volumes:
        if volume["VolumeId"] not in system:
            price = prices.volume(region, int(volume.get("Size", 0)))
            found.append(_resource("volume", volume, price, volume.get("CreateTime"), data=True))
    return found


def _attached(gateway: Thing, parts: Parts) -> bool:
    """It goes with the network that it is attached to."""
    ours = {vpc["VpcId"] for vpc in parts.vpcs}
    return any(entry.get("VpcId") in ours for entry in gateway.get("Attachments", ()))


def _resource(
    kind: str, thing: Thing, price: float = 0.0, created: Any = None, *, data: bool = False
) -> Resource:
    name = tags(thing).get("Name", "")
    if kind == "address":
        name = f"{name} {thing['PublicIp']}"
    return Resource(
        kind=kind,
        id=str(thing[KINDS[kind]]),
        name=name,
        deployment=deployment_of(thing),
        created=created if isinstance(created, str) else shown.iso(created),
        price=price,
        currency=prices.CURRENCY if price else "",
        data=data,
    )


def delete_resource(account: Account, resource: Resource) -> None:
    """Delete one of `resources`. A missing one is no error; one without our label is refused."""
    what = f"deleting the {resource.kind} {resource.id}"
    if resource.kind not in KINDS:
        raise DeployError(what, f"there is no such kind here ({', '.join(KINDS)})")
    thing = _look(account, what, resource)
    if thing is None:
        return
    wanted = resource.deployment.labels()
    if not resource.deployment.stack or any(tags(thing).get(key) != value for key, value in wanted.items()):
        raise DeployError(
            what,
            f"it does not carry the labels of {resource.deployment}, so it may be somebody else's",
            "delete it in Amazon's console, if it is yours",
        )
    identity = resource.id
    if resource.kind == "machine":
        instances.terminate(account, [identity])
    elif resource.kind == "address":
        machines.release(account, thing)
    elif resource.kind == "interface":
        network.delete(account, what, "delete_network_interface", NetworkInterfaceId=identity)
    elif resource.kind == "firewall":
        network.delete(account, what, "delete_security_group", GroupId=identity)
    elif resource.kind == "gateway":
        network.delete(account, what, "delete_internet_gateway", InternetGatewayId=identity)
    elif resource.kind == "network":
        network.remove(account, thing)
    else:
        network.delete(account, what, "delete_volume", VolumeId=identity)


_DESCRIBE = {
    "address": ("describe_addresses", "Addresses", "AllocationIds"),
    "interface": ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceIds"),
    "firewall": ("describe_security_groups", "SecurityGroups", "GroupIds"),
    "gateway": ("describe_internet_gateways", "InternetGateways", "InternetGatewayIds"),
    "network": ("describe_vpcs", "Vpcs", "VpcIds"),
    "volume": ("describe_volumes", "Volumes", "VolumeIds"),
    "machine": ("describe_instances", "Reservations", "InstanceIds"),
}


def _look(account: Account, what: str, resource: Resource) -> Thing | None:
    operation, key, argument = _DESCRIBE[resource.kind]
    try:
        arguments: dict[str, Any] = {argument: [resource.id]}
        answer = account.call(what, operation, **arguments)
    except DeployError as error:
        if missing(error):
            return None
        raise
    things = flat(answer[key]) if resource.kind == "machine" else list(answer[key])
    return next((one for one in things if not _gone(one)), None)


def _gone(thing: Thing) -> bool:
    state = thing.get("State")
    return isinstance(state, dict) and state.get("Name") in GONE
