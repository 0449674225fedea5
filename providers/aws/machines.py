"""A machine's parts: network interface, address, instance, volume. Each step is safe to repeat.

The interface comes before the instance, so that the address belongs to it from the first moment and nothing has to
wait until the instance runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.machine import Machine, MachineSpec
from providers.aws import images, prices
from providers.aws.account import SETTLE, Account, filters
from providers.aws.errors import Refused, code_of
from providers.aws.parts import (
    GONE,
    MACHINE,
    Parts,
    Thing,
    by,
    flat,
    specifications,
    system_volumes,
    tags,
    token,
)
from providers.aws.settings import Settings, bad, disk

DATA_DEVICE = "/dev/sdf"
# Seconds.
START_TIMEOUT, STOP_TIMEOUT = 180, 300
STATUS = {"pending": "starting", "running": "running", "stopping": "stopped", "stopped": "stopped"}


@dataclass(frozen=True)
class Wish:
    """Everything that is decided before anything is made."""

    kind: str
    image: Thing
    # GiB
    disk: int
    zones: tuple[str, ...]


def wish(account: Account, spec: MachineSpec, kind: str) -> Wish:
    """Look up the image and where the type can be had. Raises InputError for what the inventory says wrongly."""
    # The roles' wish is for their data, which are on the system disk only where there is no volume.
    machine_disk = disk(spec.options, max(account.settings.disk, 0 if spec.volume else spec.size.disk))
    named = spec.options.get("image", "")
    if not isinstance(named, str):
        raise bad("image", f"expected an id such as ami-0123, found {named!r}", spec.name)
    image = images.debian(account, images.architecture_of(account, kind, spec.name), named)
    return Wish(kind, image, machine_disk, tuple(images.zones_with(account, kind)))


def choose_zone(
    settings: Settings, zones: tuple[str, ...], kept: list[Thing], kind: str, machine: str
) -> str:
    """Where a new network goes: to the kept volumes, to the zone of the inventory, or to the first that fits."""
    wanted = str(kept[0]["AvailabilityZone"]) if kept else settings.zone
    if wanted and wanted not in zones:
        why = "which the kept data volumes are in" if kept else "which the inventory names"
        raise bad(
            "type", f"{kind} cannot be had in {wanted}, {why}, only in {', '.join(zones) or 'none'}", machine
        )
    if not zones:
        raise bad("type", f"{kind} cannot be had in {settings.region}", machine)
    return wanted or zones[0]


def interface(
    account: Account, labels: dict[str, str], group: Thing, subnet: Thing, there: list[Thing]
) -> Thing:
    """The machine's network interface with an address of each kind in the subnet."""
    what = "making the network interface of the machine"
    for one in there:
        if one["SubnetId"] == subnet["SubnetId"]:
            return one
    made = account.fresh(
        what,
        "create_network_interface",
        SubnetId=subnet["SubnetId"],
        Groups=[group["GroupId"]],
        Ipv6AddressCount=1,
        Description=f"deploy: machine {labels[MACHINE]}",
        ClientToken=token("interface", group["GroupId"]),
        TagSpecifications=specifications(labels, "network-interface"),
    )
    identity = made["NetworkInterface"]["NetworkInterfaceId"]
    # The answer may be that of an earlier call, and about one that was deleted since.
    shown = account.fresh(what, "describe_network_interfaces", NetworkInterfaceIds=[identity])
    return dict(shown["NetworkInterfaces"][0])


def address(account: Account, labels: dict[str, str], own: Thing, there: list[Thing]) -> Thing:
    """The machine's public IPv4 address (an Elastic IP), given to its interface. Doubles are given back."""
    what = "getting a public address"

    def find() -> Thing | None:
        ours = [
            {"Name": f"tag:{key}", "Values": [labels[key]]}
            for key in ("deploy-stack", "deploy-inventory", MACHINE)
        ]
        found = by(
            account.call(what, "describe_addresses", Filters=ours).get("Addresses", []), "AllocationId"
        )
        return found[0] if found else None

    mine = sorted(there, key=lambda one: one.get("NetworkInterfaceId") != own["NetworkInterfaceId"])
    chosen = mine[0] if mine else None
    if chosen is None:
        chosen = account.make(
            what,
            "allocate_address",
            find,
            Domain="vpc",
            TagSpecifications=specifications(labels, "elastic-ip"),
        )
    for double in mine[1:]:
        release(account, double)
    if chosen.get("NetworkInterfaceId") != own["NetworkInterfaceId"]:
        account.fresh(
            what,
            "associate_address",
            AllocationId=chosen["AllocationId"],
            NetworkInterfaceId=own["NetworkInterfaceId"],
            # Given to another machine, it would not be taken from there.
            AllowReassociation=False,
        )
    return chosen


def release(account: Account, one: Thing) -> None:
    """Give an address back."""
    what = "giving back a public address"
    from providers.aws.network import delete

    if one.get("AssociationId"):
        delete(account, what, "disassociate_address", AssociationId=one["AssociationId"])
    delete(account, what, "release_address", AllocationId=one["AllocationId"])


def run(
    account: Account,
    labels: dict[str, str],
    spec: MachineSpec,
    user_data: str,
    wanted: Wish,
    group: Thing,
    own: Thing,
    new_volume: bool,
) -> Thing:
    """The instance itself. The same instance is returned for the same group, however often it is asked for."""
    what = "making the machine"
    root = str(wanted.image.get("RootDeviceName", "/dev/xvda"))
    common = {"VolumeType": "gp3", "Encrypted": True}
    devices: list[dict[str, Any]] = [
        {
            "DeviceName": root,
            "Ebs": {**common, "VolumeSize": wanted.disk, "DeleteOnTermination": True},
        }
    ]
    if new_volume:
        devices.append(
            {
                "DeviceName": DATA_DEVICE,
                "Ebs": {**common, "VolumeSize": spec.volume, "DeleteOnTermination": False},
            }
        )
    client_token = token(
        "instance", labels["deploy-stack"], labels["deploy-inventory"], spec.name, group["GroupId"]
    )
    try:
        answer = account.fresh(
            what,
            "run_instances",
            ImageId=wanted.image["ImageId"],
            InstanceType=wanted.kind,
            MinCount=1,
            MaxCount=1,
            ClientToken=client_token,
            UserData=user_data,
            NetworkInterfaces=[
                {
                    "DeviceIndex": 0,
                    "NetworkInterfaceId": own["NetworkInterfaceId"],
                    "DeleteOnTermination": False,
                }
            ],
            BlockDeviceMappings=devices,
            # IMDSv2 only, and not for what runs in a container: the user data holds the host key.
            MetadataOptions={
                "HttpTokens": "required",
                "HttpPutResponseHopLimit": 1,
                "HttpEndpoint": "enabled",
            },
            DisableApiTermination=bool(account.settings.protect and spec.volume),
            InstanceInitiatedShutdownBehavior="stop",
            TagSpecifications=specifications(labels, "instance", "volume"),
        )
        made = dict(answer["Instances"][0])
        if made["State"]["Name"] in GONE:
            raise terminated(what, made)
        return made
    except DeployError as error:
        if code_of(error) not in ("IdempotentParameterMismatch", "InvalidNetworkInterface.InUse"):
            raise
        # An earlier run asked for it with something else (an SSH key was added since) and was killed.
        mismatch = error

    def find() -> Thing | None:
        found = flat(
            account.pages(
                what, "describe_instances", "Reservations", Filters=filters(client_token=client_token)
            )
        )
        return found[0] if found else None

    try:
        made = account.wait(what, find)
    except DeployError:
        raise mismatch from None
    if made["State"]["Name"] in GONE:
        raise terminated(what, made)
    return made


def terminated(what: str, instance: Thing) -> Refused:
    """The error that Amazon itself gives for a token whose instance is gone."""
    error = Refused(what, f"{instance['InstanceId']} was terminated", "run again")
    error.code = "IdempotentInstanceTerminated"
    return error


def running(account: Account, identity: str) -> Thing:
    """Wait until it runs; only what attaches a volume needs that. Raises DeployError on time-out."""
    return wait_for_state(account, identity, ("running",), START_TIMEOUT, "waiting until the machine runs")


def wait_for_state(
    account: Account, identity: str, states: tuple[str, ...], timeout: float, what: str
) -> Thing:
    def find() -> Thing | None:
        for instance in flat(
            account.pages(what, "describe_instances", "Reservations", Filters=filters(instance_id=identity))
        ):
            if instance["State"]["Name"] in states:
                return instance
        return None

    return account.wait(what, find, timeout)


def start(account: Account, instance: Thing) -> None:
    """Start a stopped instance; one that runs is left alone."""
    identity, state = str(instance["InstanceId"]), instance["State"]["Name"]
    if state == "stopping":
        wait_for_state(account, identity, ("stopped",), STOP_TIMEOUT, "waiting until the machine has stopped")
    if state in ("stopping", "stopped"):
        account.call("starting the machine", "start_instances", InstanceIds=[identity])


def attach(account: Account, instance: Thing, volume: Thing) -> None:
    """Attach a kept volume, once the instance runs. One that is attached there already is left alone."""
    what = "attaching the data volume"
    holders = [str(entry["InstanceId"]) for entry in volume.get("Attachments", ())]
    if instance["InstanceId"] in holders:
        return
    running(account, instance["InstanceId"])
    try:
        account.fresh(
            what,
            "attach_volume",
            VolumeId=volume["VolumeId"],
            InstanceId=instance["InstanceId"],
            Device=DATA_DEVICE,
        )
    except DeployError as error:
        # The answer to an earlier try was lost.
        now = account.call(what, "describe_volumes", VolumeIds=[volume["VolumeId"]])["Volumes"][0]
        if instance["InstanceId"] not in [entry["InstanceId"] for entry in now.get("Attachments", ())]:
            raise error


def terminate(account: Account, identities: Iterable[str]) -> None:
    """Terminate them and wait for it: what they use can only be deleted after that. Volumes with data stay."""
    what = "deleting the machine"
    wanted = sorted(set(identities))
    for identity in wanted:
        _terminate(account, what, identity)
    deadline = time.monotonic() + STOP_TIMEOUT
    for identity in wanted:

        def gone(identity: str = identity) -> bool | None:
            found = flat(
                account.pages(
                    what, "describe_instances", "Reservations", Filters=filters(instance_id=identity)
                )
            )
            return True if all(one["State"]["Name"] == "terminated" for one in found) else None

        account.wait(
            "waiting until the machine is terminated", gone, max(SETTLE, deadline - time.monotonic())
        )


def _terminate(account: Account, what: str, identity: str) -> None:
    try:
        account.call(what, "terminate_instances", InstanceIds=[identity])
    except DeployError as error:
        if code_of(error) == "InvalidInstanceID.NotFound":
            return
        if code_of(error) != "OperationNotPermitted":
            raise
        # Protected against the console, and this is us.
        unprotected = {"Value": False}
        account.call(
            what, "modify_instance_attribute", InstanceId=identity, DisableApiTermination=unprotected
        )
        account.call(what, "terminate_instances", InstanceIds=[identity])


def machine(settings: Settings, name: str, parts: Parts) -> Machine:
    """One machine out of its parts (those of `Parts.of`). Without an instance it is "failed": to be made or deleted."""
    instance = next((one for one in parts.instances if one["State"]["Name"] not in GONE), None)
    own = next(iter(parts.interfaces), None)
    public = next((one for one in parts.addresses if one.get("AssociationId")), None) or next(
        iter(parts.addresses), None
    )
    anything: Mapping[str, Any] = (
        instance
        or public
        or own
        or next(iter(parts.groups), None)
        or next(iter((*parts.vpcs, *parts.gateways)), {})
    )
    kind = str(instance.get("InstanceType", "")) if instance else ""
    system = system_volumes(instance) if instance else []
    launched = instance.get("LaunchTime") if instance else None
    volumes = [volume for volume in parts.volumes if instance and volume["VolumeId"] not in system]
    attached = [one for one in volumes if _attached_to(one, instance)]
    used = [one for one in parts.volumes if one["VolumeId"] in system] + attached
    gibs = sum(int(volume.get("Size", 0)) for volume in used)
    price = prices.machine(settings.region, kind, gibs, len(parts.addresses)) if instance else 0.0
    addresses6 = own.get("Ipv6Addresses", ()) if own else ()
    return Machine(
        name=name,
        id=_identity(anything),
        status=STATUS.get(instance["State"]["Name"], "failed") if instance else "failed",
        address=str(public["PublicIp"]) if public else "",
        address6=next((str(entry["Ipv6Address"]) for entry in addresses6), ""),
        private_address=str(own.get("PrivateIpAddress", "")) if own else "",
        labels={key: value for key, value in tags(anything).items() if key != "Name"},
        type=kind,
        created=iso(launched),
        price=price,
        currency=prices.CURRENCY if price else "",
        volume=bool(attached),
    )


def _attached_to(volume: Thing, instance: Thing | None) -> bool:
    return instance is not None and any(
        entry.get("InstanceId") == instance["InstanceId"] for entry in volume.get("Attachments", ())
    )


def _identity(thing: Mapping[str, Any]) -> str:
    for key in ("InstanceId", "AllocationId", "NetworkInterfaceId", "GroupId", "VpcId", "InternetGatewayId"):
        if thing.get(key):
            return str(thing[key])
    return ""


def iso(value: Any) -> str:
    """ISO 8601, UTC."""
    from datetime import UTC, datetime

    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else ""
