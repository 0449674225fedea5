"""Services around EC2 of which little is needed: limits, prices, Debian's parameter, reverse names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.rig.aws import wire
from tests.rig.aws.wire import Answer, Request

LIMITS = {"L-1216C47A": 32, "L-0263D0A3": 5}
HOURLY = {"t3.micro": 0.0121, "t3.small": 0.0242, "t3.medium": 0.0484, "t3.large": 0.0968}


class Extras:
    """Tests change `limits`, `prices` and `forward`, and look at `names`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.limits: dict[str, int] = dict(LIMITS)
        # Type -> US dollars an hour; {} refuses, as without the permission.
        self.prices: dict[str, float] = dict(HOURLY)
        # Debian's parameter; "" is none.
        self.parameter = ""
        # Allocation -> name.
        self.names: dict[str, str] = {}
        # Called with every reverse name that is set, for a rig whose DNS shall follow.
        self.reverse: Callable[[str, str], None] = lambda address, name: None
        # Questions until a name is set.
        self.name_polls = 1
        self._left: dict[str, int] = {}
        # Whether a name leads to an address, as the world's DNS sees it.
        self.forward: Callable[[str, str], bool] = lambda name, address: True

    def answer(self, request: Request) -> Answer | None:
        body = json.loads(request.body) if request.environ.get("HTTP_X_AMZ_TARGET") and request.body else {}
        if request.service == "servicequotas" and request.action == "GetServiceQuota":
            if not self.limits:
                return wire.refuse(request, 400, "AccessDeniedException", "not authorized: GetServiceQuota")
            return wire.as_json({"Quota": {"Value": float(self.limits[body["QuotaCode"]])}})
        if request.service == "pricing" and request.action == "GetProducts":
            if not self.prices:
                return wire.refuse(request, 400, "AccessDeniedException", "not authorized: GetProducts")
            return wire.as_json(
                {"FormatVersion": "aws_v1", "PriceList": [_product(*one) for one in self.prices.items()]}
            )
        if request.service == "ssm" and request.action == "GetParameter":
            if not self.parameter:
                return wire.refuse(request, 400, "ParameterNotFound", "")
            return wire.as_json({"Parameter": {"Name": body["Name"], "Value": self.parameter}})
        return None

    # --- reverse names: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Elastic_Addressing_Reverse_DNS.html ---

    def put_name(self, request: Request, backend: Any) -> Answer:
        allocation, name = request.get("AllocationId"), request.get("DomainName")
        address = next((one for one in backend.addresses if one.allocation_id == allocation), None)
        if address is None:
            return wire.refuse(request, 400, "InvalidAllocationID.NotFound", f"{allocation} does not exist")
        if not self.forward(name.rstrip("."), address.public_ip):
            message = f"The domain name {name} does not have a forward record to {address.public_ip}"
            return wire.refuse(request, 400, "InvalidParameterValue", message)
        self.names[allocation] = name.rstrip(".") + "."
        self._left[allocation] = self.name_polls
        self.reverse(address.public_ip, name.rstrip("."))
        return wire.ec2(request, f"<address>{self._name(address)}</address>")

    def show_names(self, request: Request, backend: Any) -> Answer:
        wanted = request.ids("AllocationId")
        found = [one for one in backend.addresses if one.allocation_id in wanted or not wanted]
        answer = wire.ec2(
            request,
            "<addressSet>" + "".join(f"<item>{self._name(one)}</item>" for one in found) + "</addressSet>",
        )
        for one in found:
            self._left[one.allocation_id] = max(0, self._left.get(one.allocation_id, 0) - 1)
        return answer

    def _name(self, address: Any) -> str:
        allocation, name = address.allocation_id, self.names.get(address.allocation_id, "")
        head = f"<publicIp>{address.public_ip}</publicIp><allocationId>{allocation}</allocationId>"
        if self._left.get(allocation):
            return f"{head}<ptrRecordUpdate><value>{name}</value><status>PENDING</status></ptrRecordUpdate>"
        return head + (f"<ptrRecord>{name}</ptrRecord>" if name else "")


def _product(kind: str, price: float) -> str:
    """One entry of a price list, as the Pricing API words it."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{price:.10f}"}}
    return json.dumps(
        {
            "product": {"attributes": {"instanceType": kind}},
            "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}},
        }
    )
