"""Debian's own image of Debian 13, and which types and zones there are."""

from __future__ import annotations

from deployer.core.errors import DeployError
from providers.aws.account import Account, filters
from providers.aws.parts import Thing
from providers.aws.settings import ARCHITECTURES, bad

# Debian's account and names: https://wiki.debian.org/Cloud/AmazonEC2Image
OWNER = "136693071363"
NAME = "debian-13-{architecture}-*"
# Debian publishes the same there.
PARAMETER = "/aws/service/debian/release/13/latest/{architecture}"


def debian(account: Account, architecture: str, named: str = "") -> Thing:
    """The newest image, or the one that the inventory names. architecture: Debian's name. Raises DeployError."""
    what = "looking for the image of Debian 13"
    if named:
        found = account.call(what, "describe_images", ImageIds=[named]).get("Images", [])
    else:
        found = account.call(
            what,
            "describe_images",
            Owners=[OWNER],
            Filters=filters(
                name=NAME.format(architecture=architecture),
                architecture=ARCHITECTURES[architecture],
                state="available",
                virtualization_type="hvm",
                root_device_type="ebs",
            ),
        ).get("Images", [])
        found = found or _published(account, what, architecture)
    if not found:
        raise DeployError(
            what,
            f"{account.settings.region} has {named or f'no image of Debian 13 for {architecture}'}",
            "name one in the inventory: `image: ami-...` of the machine",
        )
    return max(found, key=lambda image: str(image.get("CreationDate", "")))


def _published(account: Account, what: str, architecture: str) -> list[Thing]:
    """The image that Debian's parameter names."""
    name = PARAMETER.format(architecture=architecture)
    try:
        answer = account.call(what, "get_parameter", service="ssm", Name=name)
    except DeployError:
        return []
    value = str(answer.get("Parameter", {}).get("Value", ""))
    return list(account.call(what, "describe_images", ImageIds=[value]).get("Images", []))


def architecture_of(account: Account, kind: str, machine: str) -> str:
    """Debian's name of the type's architecture. Raises InputError when there is no such type."""
    what = f"looking at the type {kind}"
    try:
        types = account.call(what, "describe_instance_types", InstanceTypes=[kind]).get("InstanceTypes", [])
    except DeployError as error:
        if "InvalidInstanceType" not in error.why:
            raise
        types = []
    if not types:
        raise bad("type", f"{account.settings.region} has no machines of type {kind!r}", machine)
    supported = types[0].get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    for ours, theirs in ARCHITECTURES.items():
        if theirs in supported:
            return ours
    raise bad(
        "type", f"{kind} is of the architecture {', '.join(supported)}, which Debian's image is not", machine
    )


def zones_with(account: Account, kind: str) -> list[str]:
    """Availability zones that have machines of this type, in order of their names."""
    found = account.pages(
        f"looking for zones with machines of type {kind}",
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=filters(instance_type=kind),
    )
    return sorted(str(entry["Location"]) for entry in found)
