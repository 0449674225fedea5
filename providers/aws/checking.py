"""Whether machines can be had: credentials, region, zone, image, limits. Changes nothing."""

from __future__ import annotations

from deployer.core.errors import CredentialError, DeployError, QuotaError
from deployer.core.machine import Deployment
from providers.aws import images
from providers.aws.account import Account, filters
from providers.aws.parts import flat, read
from providers.aws.settings import bad

# Service Quotas' codes: vCPUs of running on-demand standard instances (families A, C, D, H, I, M, R, T, Z), and
# Elastic IPs a region.
VCPUS = ("ec2", "L-1216C47A", "vCPUs of standard instances")
ADDRESSES = ("ec2", "L-0263D0A3", "Elastic IPs")
# STS knows an account in this region even when the inventory's region is switched off.
HOME = "us-east-1"


def check(account: Account, deployment: Deployment) -> list[str]:
    """Remarks: what could not be found out. Raises CredentialError, QuotaError, or DeployError for what is wrong."""
    identity = account.call("asking AWS who we are", "get_caller_identity", service="sts", region=HOME)
    _region(account, str(identity.get("Account", "")))
    images.debian(account, account.settings.architecture)
    return _limits(account, deployment)


def _region(account: Account, number: str) -> None:
    settings = account.settings
    try:
        zones = account.call("looking at the region", "describe_availability_zones")["AvailabilityZones"]
    except CredentialError as error:
        if "AuthFailure" in error.why or "OptInRequired" in error.why:
            error.next = (
                f"the account {number} is good elsewhere: switch on the region {settings.region} in Amazon's console "
                "(Account, AWS Regions), or choose another"
            )
        raise
    names = [zone["ZoneName"] for zone in zones if zone.get("State") == "available"]
    if settings.zone and settings.zone not in names:
        raise bad(
            "zone", f"{settings.zone} cannot be used by this account; there are {', '.join(sorted(names))}"
        )


def _limits(account: Account, deployment: Deployment) -> list[str]:
    """Raises QuotaError when a limit is reached and this deployment has nothing yet."""
    remarks = []
    used = {VCPUS: _cores(account), ADDRESSES: _addresses(account)}
    for quota, count in used.items():
        service, code, words = quota
        try:
            answer = account.call(
                f"reading the limit of {words}",
                "get_service_quota",
                service="service-quotas",
                ServiceCode=service,
                QuotaCode=code,
            )
            limit = int(answer["Quota"]["Value"])
        except DeployError as error:
            remarks.append(f"the limit of {words} could not be read ({error.why}); {count} are in use")
            continue
        if count < limit:
            continue
        if not read(account, deployment.labels()).names():
            raise QuotaError(
                "looking at the account's limits",
                f"{count} of {limit} {words} in {account.settings.region} are in use",
                "ask for more in Amazon's console (Service Quotas), or delete something",
            )
        remarks.append(f"all {limit} {words} are in use: no further machine can be made")
    return remarks


def _cores(account: Account) -> int:
    found = account.pages(
        "counting the account's machines",
        "describe_instances",
        "Reservations",
        Filters=filters(instance_state_name=("pending", "running")),
    )
    options = [instance.get("CpuOptions", {}) for instance in flat(found)]
    return sum(int(one.get("CoreCount", 1)) * int(one.get("ThreadsPerCore", 1)) for one in options)


def _addresses(account: Account) -> int:
    return len(account.call("counting the account's addresses", "describe_addresses").get("Addresses", []))
