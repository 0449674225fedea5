"""The name that a machine's public address answers with. Amazon sets it for Elastic IPs only, and slowly."""

from __future__ import annotations

from deployer.core.errors import DeployError
from deployer.core.machine import Machine
from providers.aws.account import Account
from providers.aws.parts import Parts

# Seconds. Amazon says "a few minutes"; what is not done then goes on without us.
TIMEOUT = 120
FORWARD = (
    "Amazon first looks whether the name leads to the address in public DNS: see that the A record {name} -> "
    "{address} is there (`deploy status`), then run `deploy up` again"
)


def put(account: Account, mine: Parts, machine: Machine, name: str) -> None:
    """Set it and wait until it is. Raises DeployError when Amazon refuses, or has not done it in time."""
    what = "setting the reverse name"
    address = next((one for one in mine.addresses if one["PublicIp"] == machine.address), None)
    if address is None:
        raise DeployError(
            what,
            f"{machine.address or 'the machine'} is no Elastic IP of ours, and Amazon sets names of those only",
            "run `deploy up`, which gives the machine one",
            machine=machine.name,
        )
    wanted = name.rstrip(".") + "."

    def state() -> tuple[str, str]:
        answer = account.call(
            what,
            "describe_addresses_attribute",
            AllocationIds=[address["AllocationId"]],
            Attribute="domain-name",
        )
        found = (answer.get("Addresses") or [{}])[0]
        update = found.get("PtrRecordUpdate") or {}
        return str(
            found.get("PtrRecord", "")
        ), f"{update.get('Status', '')} {update.get('Reason', '')}".strip()

    if _same(state()[0], wanted):
        return
    next_step = FORWARD.format(name=wanted, address=machine.address)
    try:
        account.call(
            what, "modify_address_attribute", AllocationId=address["AllocationId"], DomainName=wanted
        )
    except DeployError as error:
        error.machine, error.next = machine.name, next_step
        raise

    def done() -> bool | None:
        record, update = state()
        if "fail" in update.lower():
            raise DeployError(what, f"Amazon says: {update}", next_step, machine=machine.name)
        return True if _same(record, wanted) and not update.upper().startswith("PENDING") else None

    try:
        account.wait(what, done, TIMEOUT)
    except DeployError as error:
        if "did not show it" in error.why:
            error.why = f"Amazon had not done it after {TIMEOUT} s; it may still do so"
            error.next, error.machine = next_step, machine.name
        raise


def names(account: Account, machine: Machine) -> dict[str, str]:
    """What its IPv4 address answers with now; Amazon has none for the others. One call for all of the account."""
    what = "looking at the reverse names"
    found = account.pages(what, "describe_addresses_attribute", "Addresses", Attribute="domain-name")
    named = {str(one.get("PublicIp", "")): str(one.get("PtrRecord", "")).rstrip(".") for one in found}
    return {machine.address: named.get(machine.address, "")} if machine.address else {}


def _same(found: str, wanted: str) -> bool:
    return found.rstrip(".").lower() == wanted.rstrip(".").lower()
