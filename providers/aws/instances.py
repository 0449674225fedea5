"""The instance itself: run, started, its kept volume attached, terminated. Each step is safe to repeat."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.machine import MachineSpec
from providers.aws.account import SETTLE, Account, filters
from providers.aws.errors import Refused, code_of
from providers.aws.machines import Wish
from providers.aws.parts import GONE, Thing, flat, specifications, token

DATA_DEVICE = "/dev/sdf"
# Seconds.
START_TIMEOUT, STOP_TIMEOUT = 180, 300


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
