"""The deployment's own network: VPC, one subnet, internet gateway, routes. It costs nothing.

All of it is made before the first machine and deleted after the last one. Its calls know no client tokens, so
each thing is looked for by its tags first; a double, left by a process that was killed while Amazon did not
show the first one yet, is removed by the next run.
"""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.machine import Deployment
from providers.aws.account import Account, filters
from providers.aws.errors import code_of, in_use, missing
from providers.aws.parts import Parts, Thing, by, labels_of, pairs, specifications, tags

WORLD, WORLD6 = "0.0.0.0/0", "::/0"


def ensure(
    account: Account, deployment: Deployment, parts: Parts, name: str, zone: str
) -> tuple[Thing, Thing]:
    """The VPC and its subnet, made where they are missing. name: the machine for which it is."""
    labels = labels_of(deployment, name) | {"Name": str(deployment)}
    vpc = _vpc(account, labels, parts)
    subnet = _subnet(account, labels, vpc, zone)
    gateway = _gateway(account, labels, vpc)
    _routes(account, labels, vpc, gateway)
    return vpc, subnet


def _vpc(account: Account, labels: dict[str, str], parts: Parts) -> Thing:
    what = "making the network of the deployment"

    def find() -> Thing | None:
        ours = [
            {"Name": f"tag:{key}", "Values": [labels[key]]} for key in ("deploy-stack", "deploy-inventory")
        ]
        found = by(account.pages(what, "describe_vpcs", "Vpcs", Filters=ours), "VpcId")
        return found[0] if found else None

    used = [thing["VpcId"] for thing in (*parts.interfaces, *parts.groups)]
    # The one that is in use, if there are two.
    vpcs = sorted(parts.vpcs, key=lambda vpc: vpc["VpcId"] not in used)
    for double in vpcs[1:]:
        if double["VpcId"] not in used:
            remove(account, double)
    vpc = vpcs[0] if vpcs else None
    if vpc is None:
        vpc = account.make(
            what,
            "create_vpc",
            find,
            CidrBlock=str(account.settings.cidr),
            AmazonProvidedIpv6CidrBlock=True,
            TagSpecifications=specifications(labels, "vpc"),
        )
    if not cidr6(vpc):
        # Amazon gives the range a little later.
        identity = vpc["VpcId"]

        def with_range() -> Thing | None:
            found = account.fresh(what, "describe_vpcs", VpcIds=[identity])["Vpcs"]
            return found[0] if found and cidr6(found[0]) else None

        vpc = account.wait("waiting for an IPv6 range of the network", with_range, timeout=60)
    return vpc


def cidr6(vpc: Thing) -> str:
    """Its IPv6 range, once it is there; else ""."""
    for entry in vpc.get("Ipv6CidrBlockAssociationSet", ()):
        if entry.get("Ipv6CidrBlockState", {}).get("State") == "associated":
            return str(entry["Ipv6CidrBlock"])
    return ""


def _in(account: Account, what: str, operation: str, key: str, vpc: Thing) -> list[Thing]:
    return account.pages(what, operation, key, Filters=filters(vpc_id=vpc["VpcId"]))


def _subnet(account: Account, labels: dict[str, str], vpc: Thing, zone: str) -> Thing:
    what = "making the subnet of the deployment"

    def find() -> Thing | None:
        found = by(_in(account, what, "describe_subnets", "Subnets", vpc), "SubnetId")
        return found[0] if found else None

    first6 = next(IPv6Network(cidr6(vpc)).subnets(new_prefix=64))
    return find() or account.make(
        what,
        "create_subnet",
        find,
        VpcId=vpc["VpcId"],
        CidrBlock=vpc["CidrBlock"],
        Ipv6CidrBlock=str(first6),
        AvailabilityZone=zone,
        TagSpecifications=specifications(labels, "subnet"),
    )


def _gateway(account: Account, labels: dict[str, str], vpc: Thing) -> Thing:
    what = "making the internet gateway of the deployment"

    def gateways() -> list[Thing]:
        ours = [
            {"Name": f"tag:{key}", "Values": [labels[key]]} for key in ("deploy-stack", "deploy-inventory")
        ]
        return by(
            account.pages(what, "describe_internet_gateways", "InternetGateways", Filters=ours),
            "InternetGatewayId",
        )

    def find() -> Thing | None:
        found = gateways()
        # The one that is attached, if there are two.
        return next((one for one in found if _attached(one)), found[0] if found else None)

    gateway = find() or account.make(
        what, "create_internet_gateway", find, TagSpecifications=specifications(labels, "internet-gateway")
    )
    if vpc["VpcId"] not in _attached(gateway):
        try:
            account.fresh(
                what,
                "attach_internet_gateway",
                InternetGatewayId=gateway["InternetGatewayId"],
                VpcId=vpc["VpcId"],
            )
        except DeployError as error:
            # A repeat of a call whose answer was lost.
            if code_of(error) != "Resource.AlreadyAssociated":
                raise
    for double in gateways():
        if double["InternetGatewayId"] != gateway["InternetGatewayId"] and not _attached(double):
            _delete(account, what, "delete_internet_gateway", InternetGatewayId=double["InternetGatewayId"])
    return gateway


def _attached(gateway: Thing) -> list[str]:
    return [str(entry["VpcId"]) for entry in gateway.get("Attachments", ())]


def _routes(account: Account, labels: dict[str, str], vpc: Thing, gateway: Thing) -> None:
    """Both ways out, in the table that every VPC has from its beginning."""
    what = "making the routes of the deployment"

    def find() -> Thing | None:
        tables = _in(account, what, "describe_route_tables", "RouteTables", vpc)
        return next(
            (table for table in tables if any(entry.get("Main") for entry in table.get("Associations", ()))),
            None,
        )

    table = account.wait(what, find)
    wanted = {key: value for key, value in labels.items() if tags(table).get(key) != value}
    if wanted:
        account.fresh(what, "create_tags", Resources=[table["RouteTableId"]], Tags=pairs(wanted))
    for key, destination in (("DestinationCidrBlock", WORLD), ("DestinationIpv6CidrBlock", WORLD6)):
        there = [route for route in table.get("Routes", ()) if route.get(key) == destination]
        if any(route.get("GatewayId") == gateway["InternetGatewayId"] for route in there):
            continue
        arguments: dict[str, Any] = {
            "RouteTableId": table["RouteTableId"],
            key: destination,
            "GatewayId": gateway["InternetGatewayId"],
        }
        try:
            account.fresh(what, "replace_route" if there else "create_route", **arguments)
        except DeployError as error:
            # A repeat of a call whose answer was lost.
            if code_of(error) != "RouteAlreadyExists":
                raise


def remove_all(account: Account, parts: Parts) -> None:
    """Delete the deployment's networks, and gateways that a killed run left without one."""
    for vpc in parts.vpcs:
        remove(account, vpc)
    for gateway in parts.gateways:
        if not _attached(gateway):
            identity = gateway["InternetGatewayId"]
            what = "deleting the internet gateway of the deployment"
            _delete(account, what, "delete_internet_gateway", InternetGatewayId=identity)


def remove(account: Account, vpc: Thing) -> None:
    """Delete a VPC of ours with all that `ensure` made in it. What is missing already is no error.

    Raises DeployError when something in it is not ours, such as another instance.
    """
    what = "deleting the network of the deployment"
    identity = vpc["VpcId"]
    attached = [{"Name": "attachment.vpc-id", "Values": [identity]}]
    for gateway in account.pages(what, "describe_internet_gateways", "InternetGateways", Filters=attached):
        if tags(gateway).get("deploy-stack") != tags(vpc).get("deploy-stack"):
            continue
        arguments = {"InternetGatewayId": gateway["InternetGatewayId"]}
        # For some seconds after its last address was given back Amazon still counts it.
        _delete(account, what, "detach_internet_gateway", VpcId=identity, **arguments)
        _delete(account, what, "delete_internet_gateway", **arguments)
    for subnet in _in(account, what, "describe_subnets", "Subnets", vpc):
        if tags(subnet).get("deploy-stack") == tags(vpc).get("deploy-stack"):
            _delete(account, what, "delete_subnet", SubnetId=subnet["SubnetId"])
    try:
        _delete(account, what, "delete_vpc", VpcId=identity)
    except DeployError as error:
        if code_of(error) == "DependencyViolation":
            error.next = f"something in {identity} is not ours: delete it in Amazon's console, then run `deploy down` again"
        raise


def _delete(account: Account, what: str, operation: str, **arguments: str) -> None:
    delete(account, what, operation, timeout=60, **arguments)


def delete(account: Account, what: str, operation: str, *, timeout: float = 120, **arguments: Any) -> None:
    """Delete one thing; one that is missing is no error, and one that something else still uses is waited for."""

    busy: list[DeployError] = []

    def attempt() -> bool | None:
        try:
            account.call(what, operation, **arguments)
        except DeployError as error:
            if missing(error):
                return True
            if not in_use(error):
                raise
            busy.append(error)
            return None
        return True

    try:
        account.wait(what, attempt, timeout)
    except DeployError as error:
        # What it waited for says more than "time-out".
        raise busy[-1] if busy and not code_of(error) else error from None
