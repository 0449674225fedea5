"""Lists that lag behind a creation: for some seconds a new thing is not shown, and a question for it says "not found"."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree

from tests.rig.aws import wire
from tests.rig.aws.wire import NAMESPACE, Answer, Request
from tests.rig.hetzner.faults import Faults

# Call that makes it -> kind in `faults.lag`, name of its id in answers, Amazon's word when it is not found.
MAKERS = {
    "CreateVpc": ("vpc", "vpcId", "InvalidVpcID.NotFound"),
    "CreateSubnet": ("subnet", "subnetId", "InvalidSubnetID.NotFound"),
    "CreateInternetGateway": ("gateway", "internetGatewayId", "InvalidInternetGatewayID.NotFound"),
    "CreateSecurityGroup": ("group", "groupId", "InvalidGroup.NotFound"),
    "CreateNetworkInterface": ("interface", "networkInterfaceId", "InvalidNetworkInterfaceID.NotFound"),
    "AllocateAddress": ("address", "allocationId", "InvalidAllocationID.NotFound"),
    "RunInstances": ("instance", "instanceId", "InvalidInstanceID.NotFound"),
}
# List -> name of its items' id. An item of another list that mentions the thing is shown.
LISTS = {
    "DescribeVpcs": "vpcId",
    "DescribeSubnets": "subnetId",
    "DescribeInternetGateways": "internetGatewayId",
    "DescribeSecurityGroups": "groupId",
    "DescribeNetworkInterfaces": "networkInterfaceId",
    "DescribeAddresses": "allocationId",
    "DescribeInstances": "instanceId",
}


class Lag:
    """`faults.lag` says for how many seconds, by kind; "" is every kind."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.reset()

    def reset(self) -> None:
        # Id -> until when it is hidden, and Amazon's word.
        self._hidden: dict[str, tuple[float, str]] = {}

    def see(self, request: Request, answer: Answer) -> Answer:
        if answer.status != 200:
            return answer
        if request.action in MAKERS:
            self._note(request, answer)
        now = time.monotonic()
        self._hidden = {key: value for key, value in self._hidden.items() if value[0] > now}
        if not self._hidden or request.action not in LISTS:
            return answer
        for value in request.parameters.values():
            # Filters find nothing; only a question for the id itself is refused.
            asked = [key for key, one in request.parameters.items() if one == value and "Filter" not in key]
            if value in self._hidden and asked:
                return wire.refuse(request, 400, self._hidden[value][1], f"The ID '{value}' does not exist")
        return self._without(answer, LISTS[request.action])

    def _note(self, request: Request, answer: Answer) -> None:
        kind, key, word = MAKERS[request.action]
        seconds = self._faults.lag.get(kind, self._faults.lag.get("", 0.0))
        found = re.search(rf"<{key}>([^<]+)</{key}>", answer.body.decode())
        if seconds and found:
            self._hidden.setdefault(found[1], (time.monotonic() + seconds, word))

    def _without(self, answer: Answer, key: str) -> Answer:
        ElementTree.register_namespace("", NAMESPACE)
        root = ElementTree.fromstring(answer.body)
        for parent in list(root.iter()):
            for item in list(parent):
                if item.tag.rpartition("}")[2] != "item":
                    continue
                own = [child.text for child in item if child.tag.rpartition("}")[2] == key]
                if any(identity in self._hidden for identity in own):
                    parent.remove(item)
        return Answer(answer.status, ElementTree.tostring(root), answer.headers)
