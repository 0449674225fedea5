"""What somebody changed by hand at Amazon, in words; and putting it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from deployer.core.machine import Deployment, MachineSpec
from providers.aws import firewall, instances, machines, prices
from providers.aws.account import Account, filters
from providers.aws.parts import Parts, Thing, labels_of, system_volumes, tags

# Seconds until a volume has its new size.
GROWING = 300


@dataclass(frozen=True)
class Difference:
    """words: what differs, "THING: in which way". mend: puts it back; None where another difference's does."""

    words: str
    mend: Callable[[], object] | None = None


def look(account: Account, deployment: Deployment, spec: MachineSpec, parts: Parts) -> list[str]:
    """What differs from what create_machine would make. Changes nothing."""
    return [difference.words for difference in _differences(account, deployment, spec, parts)]


def mend(account: Account, deployment: Deployment, spec: MachineSpec, parts: Parts) -> None:
    """Put back what can be put back. Never deletes the machine or what holds data."""
    # All of them are found first: what is mended is described by what was read.
    for difference in list(_differences(account, deployment, spec, parts)):
        if difference.mend:
            difference.mend()


def _differences(
    account: Account, deployment: Deployment, spec: MachineSpec, parts: Parts
) -> Iterator[Difference]:
    mine = parts.of(spec.name)
    instance = next(iter(mine.instances), None)
    if instance is None:
        return
    mine = belonging(account, spec.name, mine, instance)
    yield from _labels(account, deployment, spec, mine, instance)
    vpc = next((one for one in parts.vpcs if one["VpcId"] == instance.get("VpcId")), None)
    if vpc is None:
        yield _network(account, deployment, spec, str(instance.get("VpcId", "")))
    else:
        yield from _walls(account, deployment, spec, mine, vpc)
    yield from _addresses(account, deployment, spec, mine)
    yield from _instance(account, instance)
    yield from _volumes(account, spec, mine, instance)


def belonging(account: Account, name: str, mine: Parts, instance: Thing) -> Parts:
    """The machine's parts with those that lost their labels, but which its instance has all the same."""
    what = "looking for the machine's parts"
    found = replace(mine)
    if not found.interfaces:
        used = [one["NetworkInterfaceId"] for one in instance.get("NetworkInterfaces", ())]
        if used:
            answer = account.call(what, "describe_network_interfaces", NetworkInterfaceIds=used)
            found.interfaces = list(answer["NetworkInterfaces"])
    if not found.groups:
        # A name is given once in a network, and is not changed.
        named = filters(vpc_id=str(instance.get("VpcId", "")), group_name=firewall.group_name(name))
        there = account.pages(what, "describe_security_groups", "SecurityGroups", Filters=named)
        using = {one["GroupId"] for interface in found.interfaces for one in interface.get("Groups", ())}
        found.groups = [one for one in there if one["GroupId"] in using]
    if not found.addresses and found.interfaces:
        given = filters(network_interface_id=found.interfaces[0]["NetworkInterfaceId"])
        found.addresses = list(account.call(what, "describe_addresses", Filters=given).get("Addresses", []))
    return found


def _labels(
    account: Account, deployment: Deployment, spec: MachineSpec, mine: Parts, instance: Thing
) -> Iterator[Difference]:
    attached = {
        str(device["Ebs"]["VolumeId"])
        for device in instance.get("BlockDeviceMappings", ())
        if "Ebs" in device
    }
    carriers = [
        ("machine", instance["InstanceId"], instance),
        *(("interface", one["NetworkInterfaceId"], one) for one in mine.interfaces),
        *(("address", one["AllocationId"], one) for one in mine.addresses),
        *(("firewall", one["GroupId"], one) for one in mine.groups),
        *(("volume", one["VolumeId"], one) for one in mine.volumes),
    ]
    for unlabelled in sorted(attached - {str(one["VolumeId"]) for one in mine.volumes}):
        carriers.append(("volume", unlabelled, {}))
    # What was read of an instance without labels has its name from the interface.
    real = _real_tags(account, instance)
    wanted = labels_of(deployment, spec.name, spec.roles)
    for kind, identity, thing in carriers:
        there = real if thing is instance else tags(thing)
        if missing := [f"{key}={value}" for key, value in wanted.items() if there.get(key) != value]:
            yield Difference(
                f"{kind} {identity}: without the label {', '.join(missing)}",
                _labelling(account, str(identity), wanted),
            )


def _labelling(account: Account, identity: str, labels: dict[str, str]) -> Callable[[], None]:
    """All labels, also those that are there: the permission to set labels hangs on one of them (docs/aws-iam.md)."""
    return lambda: firewall.retag(account, "putting labels back", identity, labels)


def _network(account: Account, deployment: Deployment, spec: MachineSpec, identity: str) -> Difference:
    labels = labels_of(deployment, spec.name) | {"Name": str(deployment)}
    words = ", ".join(f"{key}={value}" for key, value in deployment.labels().items())
    return Difference(f"network {identity}: without the label {words}", _labelling(account, identity, labels))


def _real_tags(account: Account, instance: Thing) -> dict[str, str]:
    what = "looking at the machine's labels"
    answer = account.call(what, "describe_instances", InstanceIds=[instance["InstanceId"]])
    found = [one for reservation in answer["Reservations"] for one in reservation["Instances"]]
    return tags(found[0]) if found else {}


def _walls(
    account: Account, deployment: Deployment, spec: MachineSpec, mine: Parts, vpc: Thing
) -> Iterator[Difference]:
    labels = labels_of(deployment, spec.name, spec.roles)
    if not mine.groups:

        def make() -> None:
            group = firewall.ensure(account, labels, spec, vpc, [])
            _use(account, mine, group)

        yield Difference(f"firewall {firewall.group_name(spec.name)}: missing", make)
        return
    group = mine.groups[0]
    wanted, found = firewall.wanted(spec, vpc), firewall.found(group)
    told = [f"+ {rule}" for rule in sorted(wanted - found)] + [f"- {rule}" for rule in sorted(found - wanted)]
    name = str(group["GroupName"])
    if told:
        yield Difference(
            f"firewall {name}: rules to change: {'; '.join(told)}",
            lambda: firewall.put_rules(account, group, wanted),
        )
    for interface in mine.interfaces:
        used = {entry["GroupId"] for entry in interface.get("Groups", ())}
        if used != {group["GroupId"]}:
            yield Difference(
                f"firewall {name}: does not guard {spec.name}, but {', '.join(sorted(used)) or 'none'} does",
                lambda: _use(account, mine, group),
            )


def _use(account: Account, mine: Parts, group: Thing) -> None:
    for interface in mine.interfaces:
        account.fresh(
            "giving the machine its firewall",
            "modify_network_interface_attribute",
            NetworkInterfaceId=interface["NetworkInterfaceId"],
            Groups=[group["GroupId"]],
        )


def _addresses(
    account: Account, deployment: Deployment, spec: MachineSpec, mine: Parts
) -> Iterator[Difference]:
    interface = next(iter(mine.interfaces), None)
    if interface is None:
        return
    labels = labels_of(deployment, spec.name, spec.roles)
    used = [one for one in mine.addresses if one.get("NetworkInterfaceId") == interface["NetworkInterfaceId"]]
    if not used:

        def give() -> None:
            machines.address(account, labels, interface, mine.addresses)

        yield Difference(f"address of {spec.name}: it has none of ours", give)
    for double in mine.addresses if used else ():
        if double.get("AssociationId"):
            continue

        def give_back(double: Thing = double) -> None:
            machines.release(account, double)

        # Left by a run that was killed while Amazon's list did not show it yet.
        yield Difference(f"address {double['PublicIp']}: a second one, paid for and not used", give_back)


def _instance(account: Account, instance: Thing) -> Iterator[Difference]:
    identity = str(instance["InstanceId"])
    options = instance.get("MetadataOptions", {})
    if options.get("HttpTokens") != "required":

        def require() -> None:
            account.call(
                "requiring IMDSv2",
                "modify_instance_metadata_options",
                InstanceId=identity,
                HttpTokens="required",
                HttpPutResponseHopLimit=1,
            )

        yield Difference(
            f"machine {identity}: its metadata service answers without a token (IMDSv1)", require
        )
    system = system_volumes(instance)
    for device in instance.get("BlockDeviceMappings", ()):
        volume = device.get("Ebs", {})
        if volume.get("VolumeId") in system or not volume.get("DeleteOnTermination"):
            continue

        def keep(name: str = str(device["DeviceName"])) -> None:
            account.call(
                "keeping the data volume",
                "modify_instance_attribute",
                InstanceId=identity,
                BlockDeviceMappings=[{"DeviceName": name, "Ebs": {"DeleteOnTermination": False}}],
            )

        yield Difference(f"volume {volume.get('VolumeId')}: would be deleted with the machine", keep)


def _volumes(account: Account, spec: MachineSpec, mine: Parts, instance: Thing) -> Iterator[Difference]:
    """A volume that is larger than wanted stays so: none can be made smaller."""
    data = [volume for volume in mine.data() if spec.volume]
    attached = [
        volume
        for volume in data
        if any(one.get("InstanceId") == instance["InstanceId"] for one in volume.get("Attachments", ()))
    ]
    if data and not attached:
        yield Difference(
            f"volume {data[0]['VolumeId']}: not attached to {spec.name}",
            lambda: instances.attach(account, instance, data[0]),
        )
    for volume in attached:
        identity, size = str(volume["VolumeId"]), int(volume.get("Size", 0))
        if not 0 < size < spec.volume:
            continue
        beside = prices.volume(account.settings.region, spec.volume - size)
        yield Difference(
            f"volume {identity}: {size} GiB, to be {spec.volume} (about {beside:.2f} {prices.CURRENCY} a month more)",
            lambda identity=identity: _grow(account, identity, spec.volume),  # type: ignore[misc]
        )


def _grow(account: Account, identity: str, size: int) -> None:
    """Amazon allows that once in six hours for a volume. Its new size is there before the change has ended."""
    what = f"making the volume {identity} larger"
    account.call(what, "modify_volume", VolumeId=identity, Size=size)

    def done() -> bool | None:
        answer = account.call(what, "describe_volumes", VolumeIds=[identity])
        return True if int(answer["Volumes"][0]["Size"]) >= size else None

    account.wait(what, done, GROWING)
