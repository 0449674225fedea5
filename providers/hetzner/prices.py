"""Machine types and prices. All are net of VAT, as other vendors' are, so that they compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deployer.core.errors import DeployError
from deployer.core.machine import MachineSpec
from deployer.core.provider import Offer
from providers.hetzner.api import Api
from providers.hetzner.settings import Settings

if TYPE_CHECKING:
    from hcloud.server_types import BoundServerType


class Prices:
    """What the location offers. Asked for once, when it is first needed."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._settings = settings

    @cached_property
    def _pricing(self) -> Mapping[str, Any]:
        answer = self._api.call("asking for prices", self._api.client.request, "GET", "/pricing")
        pricing: Mapping[str, Any] = answer["pricing"]
        return pricing

    @cached_property
    def types(self) -> Mapping[str, BoundServerType]:
        """All machine types by name, also those that cannot be had any more."""
        found = self._api.call("asking for machine types", self._api.client.server_types.get_all)
        return {kind.name: kind for kind in found if kind.name}

    @property
    def currency(self) -> str:
        return str(self._pricing["currency"])

    @property
    def address(self) -> float:
        """An IPv4 address, a month."""
        for item in self._pricing["primary_ips"]:
            if item["type"] == "ipv4":
                return monthly(item["prices"], self._settings.location)
        return 0.0

    def volume(self, size: float) -> float:
        """A volume of `size` GiB, a month."""
        return float(self._pricing["volume"]["price_per_gb_month"]["net"]) * size

    def server(self, kind: str) -> float:
        """A server of that type, a month, without its address."""
        found = self.types.get(kind)
        return monthly(found.prices or (), self._settings.location) if found else 0.0

    def offers(self) -> Sequence[Offer]:
        """What can be had in the location, with an IPv4 address, cheapest first."""
        wanted = self._settings.architecture
        found = [
            Offer(
                name=name,
                cores=int(kind.cores or 0),
                memory=float(kind.memory or 0),
                disk=int(kind.disk or 0),
                price=round(monthly(kind.prices or (), self._settings.location) + self.address, 4),
                currency=self.currency,
            )
            for name, kind in self.types.items()
            if wanted in ("any", kind.architecture) and self._to_be_had(kind)
        ]
        return sorted(found, key=lambda offer: (offer.price, offer.name))

    def _to_be_had(self, kind: BoundServerType) -> bool:
        here = [item for item in kind.locations or () if item.location.name == self._settings.location]
        return any(item.deprecation is None and item.available is not False for item in here)

    def choose(self, spec: MachineSpec) -> BoundServerType:
        """The type that the inventory or the flow names, else the cheapest that is large enough. Raises DeployError."""
        named = spec.type or str(spec.options.get("type", ""))
        if named:
            if named in self.types:
                return self.types[named]
            known = ", ".join(offer.name for offer in self.offers())
            raise DeployError(
                "choosing a machine type",
                f"Hetzner has no type {named!r}",
                f"known are {known}",
                machine=spec.name,
            )
        size = spec.size
        for offer in self.offers():
            if offer.cores >= size.cores and offer.memory >= size.memory and offer.disk >= size.disk:
                return self.types[offer.name]
        raise DeployError(
            "choosing a machine type",
            f"no type in {self._settings.location} has {size.cores} cores, {size.memory:g} GiB of memory and "
            f"{size.disk} GiB of disk",
            "ask for less in the stack, or name another location in the inventory",
            machine=spec.name,
        )


def monthly(prices: Sequence[Mapping[str, Any]], location: str) -> float:
    """The price in a location, out of the vendor's list of prices; 0 where it has none."""
    for item in prices:
        if item["location"] == location:
            return float(item["price_monthly"]["net"])
    return 0.0
