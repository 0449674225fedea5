"""A machine's security group: Amazon's firewall, as a second wall before the machine's own.

Its id is also the machine's generation. A group cannot be deleted while an instance uses it, its name is unique in
the network, and a new machine of the same name gets a new one: so a client token made of its id stands for this
one machine and no former one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.machine import MachineSpec, Opening
from providers.aws.account import Account, filters
from providers.aws.errors import code_of
from providers.aws.network import WORLD, WORLD6, cidr6
from providers.aws.parts import Thing, by, pairs, specifications, tags

# Whoever looks for a path through the internet needs answers (RFC 1191, RFC 4890); ping helps the operator.
ALWAYS = (Opening(-1, "icmp", (WORLD,)), Opening(-1, "icmpv6", (WORLD6,)))
SSH = 22


@dataclass(frozen=True, order=True)
class Rule:
    """One range that may send to one port. protocol "-1" is everything."""

    protocol: str
    first: int
    last: int
    source: str

    def __str__(self) -> str:
        if self.protocol == "-1":
            return f"everything from {self.source}"
        port = "" if self.first == -1 else f"/{self.first}"
        port += f"-{self.last}" if self.last != self.first else ""
        return f"{self.protocol}{port} from {self.source}"

    def permission(self) -> dict[str, Any]:
        found: dict[str, Any] = {"IpProtocol": self.protocol}
        if self.protocol != "-1":
            found |= {"FromPort": self.first, "ToPort": self.last}
        if ":" in self.source:
            return {**found, "Ipv6Ranges": [{"CidrIpv6": self.source}]}
        if self.source.startswith("sg-"):
            return {**found, "UserIdGroupPairs": [{"GroupId": self.source}]}
        if self.source.startswith("pl-"):
            return {**found, "PrefixListIds": [{"PrefixListId": self.source}]}
        return {**found, "IpRanges": [{"CidrIp": self.source}]}


def wanted(spec: MachineSpec, vpc: Thing) -> set[Rule]:
    """What may come in: the openings, and everything from the stack's other machines (they filter themselves)."""
    rules = {Rule("-1", -1, -1, str(vpc["CidrBlock"]))}
    if range6 := cidr6(vpc):
        rules.add(Rule("-1", -1, -1, str(ip_network(range6))))
    openings = [*ALWAYS, *spec.openings]
    if not any((opening.number, opening.protocol) == (SSH, "tcp") for opening in openings):
        openings.append(Opening(SSH))
    for opening in openings:
        for source in opening.sources or (WORLD, WORLD6):
            rules.add(
                Rule(opening.protocol, opening.number, opening.number, str(ip_network(source, strict=False)))
            )
    return rules


def found(group: Thing) -> set[Rule]:
    """What the group lets in now."""
    rules = set()
    for entry in group.get("IpPermissions", ()):
        protocol = {"58": "icmpv6", "1": "icmp", "6": "tcp", "17": "udp"}.get(
            str(entry["IpProtocol"]), str(entry["IpProtocol"])
        )
        first, last = (-1, -1) if protocol == "-1" else (entry.get("FromPort", -1), entry.get("ToPort", -1))
        sources = [
            *(one["CidrIp"] for one in entry.get("IpRanges", ())),
            *(str(ip_network(one["CidrIpv6"])) for one in entry.get("Ipv6Ranges", ())),
            *(one["GroupId"] for one in entry.get("UserIdGroupPairs", ()) if "GroupId" in one),
            *(one["PrefixListId"] for one in entry.get("PrefixListIds", ())),
        ]
        rules |= {Rule(protocol, first, last, str(source)) for source in sources}
    return rules


def ensure(
    account: Account, labels: dict[str, str], spec: MachineSpec, vpc: Thing, groups: list[Thing]
) -> Thing:
    """The machine's group with the wanted rules. groups: those found by its tags."""
    what = "making the firewall of the machine"
    name = group_name(spec.name)

    def find() -> Thing | None:
        ours = filters(vpc_id=vpc["VpcId"], group_name=name)
        there = account.pages(what, "describe_security_groups", "SecurityGroups", Filters=ours)
        return there[0] if there else None

    here = [group for group in by(groups, "GroupId") if group["VpcId"] == vpc["VpcId"]]
    group = here[0] if here else None
    if group is None:
        try:
            group = account.make(
                what,
                "create_security_group",
                find,
                GroupName=name,
                Description=f"deploy: machine {spec.name}",
                VpcId=vpc["VpcId"],
                TagSpecifications=specifications(labels, "security-group"),
            )
        except DeployError as error:
            if code_of(error) != "InvalidGroup.Duplicate":
                raise
            # Made by a run that was killed; the list was late.
            group = account.wait(what, find)
        if any(tags(group).get(key) != labels[key] for key in ("deploy-stack", "deploy-inventory")):
            raise DeployError(
                what,
                f"the group {name} ({group['GroupId']}) in our network lacks our labels",
                "delete or rename it in Amazon's console; then run again",
                machine=spec.name,
            )
    put_rules(account, group, wanted(spec, vpc))
    return group


def put_rules(account: Account, group: Thing, rules: Iterable[Rule]) -> None:
    """Make the group let in exactly these: first what is missing, then without what is too much."""
    what = "setting the rules of the firewall"
    there, asked = found(group), set(rules)
    for operation, difference, repeated in (
        ("authorize_security_group_ingress", asked - there, "InvalidPermission.Duplicate"),
        ("revoke_security_group_ingress", there - asked, "InvalidPermission.NotFound"),
    ):
        if not difference:
            continue
        permissions = [rule.permission() for rule in sorted(difference)]
        try:
            account.fresh(what, operation, GroupId=group["GroupId"], IpPermissions=permissions)
        except DeployError as error:
            # One of them was done already, by a call whose answer was lost: then each by itself.
            if code_of(error) != repeated:
                raise
            for permission in permissions:
                try:
                    account.call(what, operation, GroupId=group["GroupId"], IpPermissions=[permission])
                except DeployError as single:
                    if code_of(single) != repeated:
                        raise


def retag(account: Account, what: str, identity: str, labels: dict[str, str]) -> None:
    account.fresh(what, "create_tags", Resources=[identity], Tags=pairs(labels))


def group_name(machine: str) -> str:
    return f"deploy-{machine}"
