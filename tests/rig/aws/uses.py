"""What EC2 refuses because something is in use, or not ready yet; moto is more lenient."""

from __future__ import annotations

from typing import Any

from tests.rig.aws import wire
from tests.rig.aws.wire import Answer, Request


def refuse(request: Request, backend: Any, known: bool) -> Answer | None:
    """known: the request repeats one whose client token was seen."""
    code, message = "", ""
    if request.action == "DeleteSecurityGroup":
        group = request.get("GroupId")
        if any(group in [one.id for one in nic.group_set] for nic in backend.enis.values()):
            code, message = "DependencyViolation", f"resource {group} has a dependent object"
    elif request.action == "DeleteNetworkInterface":
        nic = backend.enis.get(request.get("NetworkInterfaceId"))
        if nic is not None and nic.instance is not None and nic.instance._state.name != "terminated":
            code, message = "InvalidNetworkInterface.InUse", f"The network interface {nic.id} is in use."
    elif request.action == "DeleteSubnet":
        subnet = request.get("SubnetId")
        if any(nic.subnet.id == subnet for nic in backend.enis.values()):
            code, message = "DependencyViolation", f"The subnet '{subnet}' has dependencies"
    elif request.action == "DetachInternetGateway":
        mapped = [one for one in backend.addresses if one.eni and one.eni.vpc_id == request.get("VpcId")]
        if mapped:
            code, message = "DependencyViolation", "The network has some mapped public address(es)."
    elif request.action == "DeleteVpc":
        attached = [one for one in backend.internet_gateways.values() if one.vpc]
        groups = [one.name for one in backend.groups.get(request.get("VpcId"), {}).values()]
        if any(one.vpc.id == request.get("VpcId") for one in attached) or set(groups) - {"default"}:
            code, message = "DependencyViolation", f"The vpc '{request.get('VpcId')}' has dependencies"
    elif request.action == "ReleaseAddress":
        allocation = request.get("AllocationId")
        if any(one.allocation_id == allocation and one.association_id for one in backend.addresses):
            code, message = (
                "InvalidIPAddress.InUse",
                f"Address with allocation id {allocation} is associated",
            )
    elif request.action == "AttachVolume":
        instance = _instance(backend, request.get("InstanceId"))
        if instance is not None and instance._state.name not in ("running", "stopped"):
            code, message = "IncorrectState", f"Instance '{instance.id}' is not 'running'."
    elif request.action == "AssociateAddress" and request.get("InstanceId"):
        instance = _instance(backend, request.get("InstanceId"))
        if instance is not None and instance._state.name == "pending":
            code, message = (
                "InvalidInstanceID",
                f"The pending-instance-creation '{instance.id}' is not valid",
            )
    elif request.action == "RunInstances":
        nic = backend.enis.get(request.get("NetworkInterface.1.NetworkInterfaceId"))
        if nic is not None and nic.instance is not None and not known:
            code, message = "InvalidNetworkInterface.InUse", f"The network interface {nic.id} is in use."
    return wire.refuse(request, 400, code, message) if code else None


def _instance(backend: Any, identity: str) -> Any:
    return next((one for one in backend.all_instances() if one.id == identity), None)
