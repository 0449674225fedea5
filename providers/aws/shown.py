"""One machine of ours out of Amazon's descriptions of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from deployer.core.machine import Machine
from providers.aws import prices
from providers.aws.parts import GONE, Parts, Thing, system_volumes, tags
from providers.aws.settings import Settings

STATUS = {"pending": "starting", "running": "running", "stopping": "stopped", "stopped": "stopped"}


def machine(settings: Settings, name: str, parts: Parts) -> Machine:
    """One machine out of its parts (those of `Parts.of`). Without an instance it is "failed": to be made or deleted."""
    instance = next((one for one in parts.instances if one["State"]["Name"] not in GONE), None)
    # An interface and an address that lost their labels are still the instance's.
    inside = next(iter((instance or {}).get("NetworkInterfaces", ())), None)
    own = next(iter(parts.interfaces), inside)
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
        address=str(public["PublicIp"]) if public else str((instance or {}).get("PublicIpAddress", "")),
        address6=next((str(entry["Ipv6Address"]) for entry in addresses6), ""),
        private_address=str(own.get("PrivateIpAddress", "")) if own else "",
        labels={key: value for key, value in tags(anything).items() if key != "Name"},
        type=kind,
        created=iso(launched),
        price=price,
        currency=prices.CURRENCY if price else "",
        volume=bool(attached),
        approximate=bool(price) and prices.approximate(settings.region, kind),
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
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else ""
