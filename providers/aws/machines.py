"""A machine's parts: network interface, address, instance, volume. Each step is safe to repeat.

The interface comes before the instance, so that the address belongs to it from the first moment and nothing has to
wait until the instance runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from deployer.core.machine import MachineSpec
from providers.aws import images
from providers.aws.account import Account
from providers.aws.network import delete
from providers.aws.parts import (
    CREATED,
    MACHINE,
    Thing,
    by,
    specifications,
    token,
)
from providers.aws.settings import Settings, bad, disk


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
            TagSpecifications=specifications(
                {**labels, CREATED: datetime.now(UTC).isoformat(timespec="seconds")}, "elastic-ip"
            ),
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
    if one.get("AssociationId"):
        delete(account, what, "disassociate_address", AssociationId=one["AssociationId"])
    delete(account, what, "release_address", AllocationId=one["AllocationId"])
