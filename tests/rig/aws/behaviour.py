"""What the real EC2 does and moto does not: client tokens, states that take time, things that are in use, reverse
names, limits, prices; and the machines behind the instances. Sources: the EC2 API reference and user guide.
"""

from __future__ import annotations

import base64
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.rig.aws import uses, wire
from tests.rig.aws.extras import Extras
from tests.rig.aws.lag import Lag
from tests.rig.aws.wire import Answer, App, Request
from tests.rig.hetzner.faults import Faults
from tests.rig.hetzner.hardware import Hardware, Wanted

# Calls whose client token Amazon keeps; where a parameter is in no way part of the request.
TOKENS = ("RunInstances", "CreateNetworkInterface", "CreateVolume")


class Behaviour:
    """Answers every request, mostly by moto."""

    def __init__(self, moto: App, hardware: Hardware, faults: Faults) -> None:
        self._moto, self.hardware, self._faults = moto, hardware, faults
        self._lock = threading.RLock()
        self.lag = Lag(faults)
        self.extras = Extras()
        # Seconds that an instance is "pending", and "shutting-down".
        self.pending = 0.0
        self.addresses: Iterator[str] = iter(())
        self.free_addresses: list[str] = []
        self._patch_addresses()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            for name in list(getattr(self, "machines", {}).values()):
                self.hardware.delete(name)
            # Instance -> name of its machine.
            self.machines: dict[str, str] = {}
            self._tokens: dict[tuple[str, str], tuple[tuple[tuple[str, str], ...], Answer]] = {}
            self._since: dict[str, float] = {}
            self._numbers = itertools.count(1)
            self.addresses = iter(self.hardware.addresses())
            self.free_addresses = []
            self.pending = 0.0
            self.lag.reset()
            self.extras.reset()

    def close(self) -> None:
        self.reset()
        self.hardware.close()

    def answer(self, request: Request) -> Answer:
        if request.service != "ec2":
            return self.extras.answer(request) or wire.ask(self._moto, request)
        # One at a time: moto's records are no database.
        with self._lock:
            self._settle()
            known = (request.action, request.get("ClientToken")) in self._tokens
            if refusal := uses.refuse(request, self.backend(request), known):
                return refusal
            own: Callable[[Request], Answer] | None = getattr(self, f"_{_snake(request.action)}", None)
            if request.action in TOKENS and request.get("ClientToken"):
                answer = self._once(request, own or self._ask)
            else:
                answer = (own or self._ask)(request)
            return self.lag.see(request, answer)

    def _ask(self, request: Request) -> Answer:
        return wire.ask(self._moto, request)

    def backend(self, request: Request) -> Any:
        from moto.ec2.models import ec2_backends

        scope = re.search(r"Credential=[^/]*/[^/]*/([^/]*)/", request.environ.get("HTTP_AUTHORIZATION", ""))
        return ec2_backends["123456789012"][scope[1] if scope else "us-east-1"]

    # --- client tokens: https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html ---

    def _once(self, request: Request, do: Callable[[Request], Answer]) -> Answer:
        key = (request.action, request.get("ClientToken"))
        asked = tuple(sorted(item for item in request.parameters.items()))
        if key in self._tokens:
            before, answer = self._tokens[key]
            if before != asked:
                message = "The client token was already used with other parameters."
                return wire.refuse(request, 400, "IdempotentParameterMismatch", message)
            return self._as_now(request, answer)
        answer = do(request)
        if answer.status == 200:
            self._tokens[key] = (asked, answer)
        return answer

    def _as_now(self, request: Request, answer: Answer) -> Answer:
        """The first answer again, with the instance's state of today."""
        found = re.search(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", answer.body)
        if request.action != "RunInstances" or not found:
            return answer
        instance = self._instance(request, found[1].decode())
        code, name = (instance._state.code, instance._state.name) if instance else (48, "terminated")
        if name == "terminated":
            message = (
                "The request uses the same client token as a previous one whose instance has been terminated."
            )
            return wire.refuse(request, 400, "IdempotentInstanceTerminated", message)
        now = f"<instanceState><code>{code}</code><name>{name}</name></instanceState>".encode()
        body = re.sub(rb"<instanceState>.*?</instanceState>", now, answer.body, flags=re.S)
        return Answer(answer.status, body, answer.headers)

    # --- instances ---

    def _instance(self, request: Request, identity: str) -> Any:
        for instance in self.backend(request).all_instances():
            if instance.id == identity:
                return instance
        return None

    def _run_instances(self, request: Request) -> Answer:
        answer = self._ask(request)
        found = re.search(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", answer.body)
        if answer.status != 200 or not found:
            return answer
        identity = found[1].decode()
        instance = self._instance(request, identity)
        instance.disable_api_termination = request.get("DisableApiTermination") == "true"
        self._become(instance, "pending", 0)
        self._since[identity] = time.monotonic()
        self._build(request, instance)
        return self._as_now(request, answer)

    def _build(self, request: Request, instance: Any) -> None:
        """The machine behind it, with the addresses that its interface has."""
        own = instance.nics[0]
        data = base64.b64decode(request.get("UserData")).decode()
        prefix = own.subnet.cidr_block.rsplit("/", 1)[1]
        number = next(self._numbers)
        if own.ipv6_addresses:
            from ipaddress import IPv6Network

            own.ipv6_addresses = [str(IPv6Network(self.hardware.network6(number))[1])]
        name = f"i-{instance.id[-8:]}"
        system = instance.root_device_name
        volumes = [one.volume_id for key, one in instance.get_block_device_mapping if key != system]
        self.hardware.create(
            Wanted(
                id=number,
                name=name,
                address=own.public_ip or "",
                address6=own.ipv6_addresses[0] if own.ipv6_addresses else "",
                private=f"{own.private_ip_address}/{prefix}",
                user_data=data,
                volumes=[int(one[4:], 16) for one in volumes or self._kept(request, instance)],
            )
        )
        self.machines[instance.id] = name

    def _kept(self, request: Request, instance: Any) -> list[str]:
        """A volume that will be attached in a moment, known by its labels: a real machine of the rig must have it from
        its start."""
        labels = {tag["key"]: tag["value"] for tag in instance.get_tags() if tag["key"] != "deploy-roles"}
        return [
            volume.id
            for volume in self.backend(request).volumes.values()
            if volume.status == "available"
            and {tag["key"]: tag["value"] for tag in volume.get_tags()}.items() >= labels.items()
        ]

    def _delete_volume(self, request: Request) -> Answer:
        answer = self._ask(request)
        if answer.status == 200:
            self.hardware.delete_volume(int(request.get("VolumeId")[4:], 16))
        return answer

    def _terminate_instances(self, request: Request) -> Answer:
        answer = self._ask(request)
        if answer.status == 200:
            for identity in request.ids("InstanceId"):
                if name := self.machines.pop(identity, ""):
                    self.hardware.delete(name)
                if self.pending:
                    self._become(self._instance(request, identity), "shutting-down", 32)
                    self._since[identity] = time.monotonic()
        return answer

    def _stop_instances(self, request: Request) -> Answer:
        answer = self._ask(request)
        for identity in request.ids("InstanceId") if answer.status == 200 else ():
            self.hardware.stop(self.machines[identity])
        return answer

    def _start_instances(self, request: Request) -> Answer:
        answer = self._ask(request)
        for identity in request.ids("InstanceId") if answer.status == 200 else ():
            self.hardware.start(self.machines[identity])
        return answer

    @staticmethod
    def _become(instance: Any, name: str, code: int) -> None:
        if instance is not None:
            instance._state.name, instance._state.code = name, code

    def _settle(self) -> None:
        """States that take time go on."""
        from moto.ec2.models import ec2_backends

        for identity, since in list(self._since.items()):
            if time.monotonic() - since < self.pending:
                continue
            del self._since[identity]
            for _, _, backend in ec2_backends.iter_backends():
                for instance in backend.all_instances():
                    if instance.id != identity:
                        continue
                    if instance._state.name == "pending":
                        self._become(instance, "running", 16)
                    elif instance._state.name == "shutting-down":
                        self._become(instance, "terminated", 48)

    def _delete_network_interface(self, request: Request) -> Answer:
        nic = self.backend(request).enis.get(request.get("NetworkInterfaceId"))
        answer = self._ask(request)
        if answer.status == 200 and nic is not None:
            for address in self.backend(request).addresses:
                if address.eni is nic:
                    address.eni, address.association_id, address.instance = None, None, None
        return answer

    # --- public addresses: those that the machines can have ---

    def _patch_addresses(self) -> None:
        import moto.ec2.models.elastic_ip_addresses as module
        from moto.ec2.utils import filter_dict_attribute_mapping

        # A filter of DescribeInstances that moto does not know.
        filter_dict_attribute_mapping["client-token"] = "client_token"
        module.random_ip = lambda: self.free_addresses.pop(0) if self.free_addresses else next(self.addresses)

    def _release_address(self, request: Request) -> Answer:
        allocation = request.get("AllocationId")
        found = [one.public_ip for one in self.backend(request).addresses if one.allocation_id == allocation]
        answer = self._ask(request)
        if answer.status == 200:
            # The next one may get it, as at Amazon.
            self.free_addresses += found
            self.extras.names.pop(allocation, None)
        return answer

    def _modify_address_attribute(self, request: Request) -> Answer:
        return self.extras.put_name(request, self.backend(request))

    def _describe_addresses_attribute(self, request: Request) -> Answer:
        return self.extras.show_names(request, self.backend(request))


def _snake(action: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", action).lower()
