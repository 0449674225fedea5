"""What somebody changed by hand at Amazon, in words; and putting it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deployer.core.machine import Deployment, MachineSpec
from providers.aws import firewall, machines
from providers.aws.account import Account
from providers.aws.parts import Parts, Thing, labels_of, system_volumes, tags


@dataclass(frozen=True)
class Difference:
    """words: what differs. mend: puts it back; None where only the operator can."""

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
    yield from _labels(account, deployment, spec, mine, instance)
    vpc = next((one for one in parts.vpcs if one["VpcId"] == instance.get("VpcId")), None)
    if vpc is not None:
        yield from _walls(account, deployment, spec, mine, vpc)
    yield from _addresses(account, deployment, spec, mine)
    yield from _instance(account, spec, instance)


def _labels(
    account: Account, deployment: Deployment, spec: MachineSpec, mine: Parts, instance: Thing
) -> Iterator[Difference]:
    wanted = labels_of(deployment, spec.name, spec.roles)
    attached = {
        str(device["Ebs"]["VolumeId"])
        for device in instance.get("BlockDeviceMappings", ())
        if "Ebs" in device
    }
    carriers = [
        (instance["InstanceId"], instance),
        *((one["NetworkInterfaceId"], one) for one in mine.interfaces),
        *((one["AllocationId"], one) for one in mine.addresses),
        *((one["GroupId"], one) for one in mine.groups),
        *((one["VolumeId"], one) for one in mine.volumes),
    ]
    for unlabelled in sorted(attached - {str(one["VolumeId"]) for one in mine.volumes}):
        carriers.append((unlabelled, {}))
    # What was read of an instance without labels has its name from the interface.
    real = _real_tags(account, instance)
    for identity, thing in carriers:
        there = real if thing is instance else tags(thing)
        wrong = {key: value for key, value in wanted.items() if there.get(key) != value}
        if wrong:
            words = ", ".join(
                f"{key} is {there.get(key, 'missing')!r}, not {value!r}" for key, value in wrong.items()
            )

            def retag(identity: str = str(identity), wrong: dict[str, str] = wrong) -> None:
                firewall.retag(account, "putting labels back", identity, wrong)

            yield Difference(f"labels of {identity}: {words}", retag)


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

        yield Difference("the machine's firewall (security group) is missing", make)
        return
    group = mine.groups[0]
    wanted, found = firewall.wanted(spec, vpc), firewall.found(group)
    words = [
        *(f"firewall lets in {rule}, which nobody asked for" for rule in sorted(found - wanted)),
        *(f"firewall does not let in {rule}" for rule in sorted(wanted - found)),
    ]
    for number, text in enumerate(words):
        # One call mends all of them.
        yield Difference(text, (lambda: firewall.put_rules(account, group, wanted)) if number == 0 else None)
    for interface in mine.interfaces:
        used = {entry["GroupId"] for entry in interface.get("Groups", ())}
        if used != {group["GroupId"]}:
            yield Difference(
                f"the machine uses the firewalls {', '.join(sorted(used)) or 'none'}, not {group['GroupId']}",
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
        yield Difference("its network interface has lost its labels; put them back in Amazon's console")
        return
    labels = labels_of(deployment, spec.name, spec.roles)
    used = [one for one in mine.addresses if one.get("NetworkInterfaceId") == interface["NetworkInterfaceId"]]
    if not used:

        def give() -> None:
            machines.address(account, labels, interface, mine.addresses)

        yield Difference("the machine has no public address of ours", give)
    for double in mine.addresses if used else ():
        if double.get("AssociationId"):
            continue

        def give_back(double: Thing = double) -> None:
            machines.release(account, double)

        # Left by a run that was killed while Amazon's list did not show it yet.
        yield Difference(
            f"a second public address, {double['PublicIp']}, is paid for and not used", give_back
        )


def _instance(account: Account, spec: MachineSpec, instance: Thing) -> Iterator[Difference]:
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

        yield Difference("the metadata service answers without a token (IMDSv1)", require)
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

        yield Difference(f"the data volume {volume.get('VolumeId')} would be deleted with the machine", keep)
    if spec.type and spec.type != instance.get("InstanceType"):
        yield Difference(
            f"the type is {instance.get('InstanceType')}, not {spec.type}: change it in Amazon's console while the "
            "machine is stopped"
        )
