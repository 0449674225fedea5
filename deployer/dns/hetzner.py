"""Hetzner's DNS (zones of the Cloud API), by octodns-hetzner and hcloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octodns_hetzner import HetznerProvider
from octodns_hetzner.hcloud_adapter import DEFAULT_TTL, HCloudZonesClient

from deployer.dns.rrset import Key, Rrset
from deployer.dns.vendors import CALL, Exact

# Times that an action of theirs is asked after, a second in between.
_POLLS = 30


class _Client(HCloudZonesClient):
    """With a bound for every call, and an address of its own for tests."""

    def __init__(self, token: str, endpoint: str) -> None:
        from hcloud import Client

        super().__init__(token)
        where = {"api_endpoint": endpoint} if endpoint else {}
        self._hcloud = Client(
            token,
            application_name="deploy",
            timeout=CALL,
            poll_interval=0.5 if not endpoint else 0.05,
            poll_max_retries=_POLLS,
            **where,
        )
        self._zones = self._hcloud.zones


class Hetzner(Exact, HetznerProvider):
    def __init__(self, token: str, endpoint: str = "") -> None:
        self._endpoint = endpoint
        super().__init__("hetzner", token, backend="hcloud", root_ns_warnings=False)

    def _create_client(self, backend: str, token: str) -> Any:
        return _Client(token, self._endpoint)

    def zones_near(self, domain: str) -> Sequence[str]:
        return [str(zone.name) for zone in self._client._zones.get_all()]

    def read(self, zone: str) -> list[Rrset] | None:
        # A failure is raised: an empty answer here would make every name look free.
        zones = self._client._zones.get_list(name=zone).zones
        if not zones:
            return None
        self._zone = zones[0]
        self._sets: dict[Key, Any] = {}
        found = []
        for item in self._zone.get_rrset_all():
            name = zone if item.name == "@" else f"{item.name}.{zone}".lower()
            ttl = item.ttl or self._zone.ttl or DEFAULT_TTL
            self._sets[(name, item.type)] = item
            found.append(
                Rrset(name, item.type, ttl, tuple(str(record.value) for record in item.records or ()))
            )
        return found

    def _apply(self, plan: Any) -> None:
        from hcloud.zones.domain import ZoneRecord

        zone = plan.desired.name.rstrip(".")
        for key, before, after in self.steps(plan):
            relative = "@" if key[0] == zone else key[0].removesuffix(f".{zone}")
            if after is None:
                self._sets.pop(key).delete_rrset().action.wait_until_finished()
            elif before is None:
                records = [ZoneRecord(value) for value in after.values]
                made = self._zone.create_rrset(name=relative, type=key[1], ttl=after.ttl, records=records)
                made.action.wait_until_finished()
                self._sets[key] = made.rrset
            else:
                self._change(self._sets[key], before, after)
            self.done(key, after)

    def _change(self, item: Any, before: Rrset, after: Rrset) -> None:
        """Value by value: theirs, with the comments that they carry, are not even sent. First what comes, then
        what goes, so that the name is never without an answer."""
        from hcloud.zones.domain import ZoneRecord

        come = [ZoneRecord(value) for value in after.values if value not in before.values]
        go = [ZoneRecord(value) for value in before.values if value not in after.values]
        if come:
            item.add_rrset_records(records=come).wait_until_finished()
        if go:
            item.remove_rrset_records(records=go).wait_until_finished()
        if after.ttl != before.ttl:
            item.change_rrset_ttl(ttl=after.ttl).wait_until_finished()
