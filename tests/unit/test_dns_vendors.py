"""Hetzner's zones and Route 53, by the vendors' libraries against the rig's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import hcloud
import pytest
from hcloud.zones.domain import ZoneRecord

from deployer.core.errors import CredentialError, DeployError
from deployer.core.model import DnsService
from deployer.dns import manage
from tests.rig.aws.fake import CREDENTIALS, FakeAws
from tests.rig.hetzner.fake import FakeHetzner
from tests.rig.zones import (
    DOMAIN,
    OTHERS,
    US,
    ZONE,
    Held,
    Zone,
    ZoneContract,
    others_of,
    relative,
    sorted_values,
    unescaped,
    wanted,
)


class HetznerZone(Zone):
    def __init__(self, vendor: FakeHetzner) -> None:
        self.vendor = vendor
        self.client = hcloud.Client(vendor.token, api_endpoint=vendor.endpoint)
        self.zone = self.client.zones.create(name=ZONE, mode="primary").zone
        self.environment = {"HCLOUD_TOKEN": vendor.token}

    def service(self, **other: Any) -> DnsService:
        keys = {"zone": ZONE, "options": {"endpoint": self.vendor.endpoint}, **other}
        return DnsService("hetzner", **keys)

    def enter(self, held: Held) -> None:
        there = {(item.name, item.type): item for item in self.zone.get_rrset_all()}
        for (name, type), (ttl, values) in held.items():
            records = [ZoneRecord(value, comment="a note of theirs") for value in values]
            if item := there.get((relative(name), type)):
                item.add_rrset_records(records=records)
            else:
                self.zone.create_rrset(name=relative(name), type=type, ttl=ttl, records=records)

    def held(self) -> Held:
        found: Held = {}
        for item in self.zone.get_rrset_all():
            name = ZONE if item.name == "@" else f"{item.name}.{ZONE}"
            if item.type == "SOA" or (name, item.type) == (ZONE, "NS"):
                continue
            values = [str(record.value) for record in item.records or ()]
            found[(name, item.type)] = (item.ttl or 0, sorted_values(values))
        return found

    def wrong(self) -> tuple[DnsService, Mapping[str, str]]:
        return self.service(), {"HCLOUD_TOKEN": "x" * 64}


class TestHetzner(ZoneContract):
    @pytest.fixture
    def zone(self) -> Iterator[HetznerZone]:
        with FakeHetzner() as vendor:
            yield HetznerZone(vendor)
            assert vendor.violations == []

    def test_comments_on_others_values_survive(self, zone: HetznerZone) -> None:
        zone.enter(OTHERS)
        manage.apply(self.names(zone, wanted()))
        [shared] = [item for item in zone.zone.get_rrset_all() if (item.name, item.type) == ("chat", "TXT")]
        assert [(record.comment or "") for record in shared.records or ()] == [*["a note of theirs"] * 2, ""]

    def test_a_token_that_may_only_read_is_named(self, zone: HetznerZone) -> None:
        names = manage.Names(
            (zone.service(),),
            DOMAIN,
            US,
            tuple(wanted()),
            environment={"HCLOUD_TOKEN": zone.vendor.readonly_token},
        )
        with pytest.raises(CredentialError, match="hetzner"):
            manage.apply(names)

    def test_no_token_at_all(self, zone: HetznerZone) -> None:
        with pytest.raises(CredentialError, match="HCLOUD_TOKEN"):
            manage.plan(manage.Names((zone.service(),), DOMAIN, US, environment={}))

    @pytest.mark.parametrize("status", [500, 503])
    def test_a_failed_reading_is_no_empty_zone(self, zone: HetznerZone, status: int) -> None:
        """octodns-hetzner would go on with nothing and write over what is there."""
        zone.enter(OTHERS)
        before = zone.held()
        zone.vendor.faults.error(status, "service_error", method="GET", path=r".*/rrsets", times=None)
        with pytest.raises(DeployError):
            manage.apply(self.names(zone, wanted()))
        zone.vendor.faults.clear()
        assert zone.held() == before

    @pytest.mark.parametrize("share", [2, pytest.param(20, marks=pytest.mark.long)])
    def test_connections_that_break_off(self, zone: HetznerZone, share: int) -> None:
        """At one call after the other, before the work and after it: planned anew, the end is the same."""
        zone.enter(OTHERS)
        before = zone.held()
        zone.vendor.calls.clear()
        # More than an hour's worth of calls follows.
        zone.vendor.rate_limit = 1_000_000
        manage.apply(self.names(zone, wanted()))
        count = len(zone.vendor.calls)
        whole = zone.held()
        manage.remove(self.names(zone))
        assert count > 20
        for index in range(0, count, max(count // share, 1)):
            for when in ("before", "after"):
                zone.vendor.calls.clear()
                zone.vendor.faults.reset(at=index, when=when)
                manage.apply(self.names(zone, wanted()))
                zone.vendor.faults.clear()
                assert zone.held() == whole, (index, when)
                manage.remove(self.names(zone))
                others_of(before, zone.held())
        assert zone.held() == before


class Route53Zone(Zone):
    environment = CREDENTIALS

    def __init__(self, vendor: FakeAws) -> None:
        self.vendor = vendor
        self.client = boto3.client(
            "route53",
            region_name="us-east-1",
            endpoint_url=vendor.endpoint,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        made = self.client.create_hosted_zone(Name=f"{ZONE}.", CallerReference="rig")
        self.id = made["HostedZone"]["Id"]

    def service(self, **other: Any) -> DnsService:
        options = {
            "endpoint": self.vendor.endpoint,
            "access_key_id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "secret_access_key": "${AWS_SECRET_ACCESS_KEY}",
        }
        return DnsService("route53", **{"zone": ZONE, "options": options, **other})

    def enter(self, held: Held) -> None:
        there = {(name, type): entry for (name, type), entry in self.held().items()}
        batch = []
        for (name, type), (ttl, values) in held.items():
            old = there.get((name, type), (ttl, ()))
            batch.append(
                {
                    "Action": "UPSERT",
                    "ResourceRecordSet": {
                        "Name": f"{name}.",
                        "Type": type,
                        "TTL": old[0],
                        "ResourceRecords": [{"Value": value} for value in (*old[1], *values)],
                    },
                }
            )
        self.client.change_resource_record_sets(HostedZoneId=self.id, ChangeBatch={"Changes": batch})

    def held(self) -> Held:
        found: Held = {}
        for page in self.client.get_paginator("list_resource_record_sets").paginate(HostedZoneId=self.id):
            for item in page["ResourceRecordSets"]:
                key = (unescaped(item["Name"]), item["Type"])
                if key[1] != "SOA" and key != (ZONE, "NS"):
                    values = [record["Value"] for record in item["ResourceRecords"]]
                    found[key] = (item["TTL"], sorted_values(values))
        return found

    def wrong(self) -> tuple[DnsService, Mapping[str, str]]:
        # moto takes any key; Amazon answers so.
        self.vendor.faults.error(
            403, "InvalidClientTokenId", message="The security token is invalid.", times=None
        )
        return self.service(), self.environment


@pytest.fixture(scope="module")
def amazon() -> Iterator[FakeAws]:
    vendor = FakeAws()
    yield vendor
    vendor.close()


class TestRoute53(ZoneContract):
    @pytest.fixture
    def zone(self, amazon: FakeAws) -> Route53Zone:
        amazon.reset()
        return Route53Zone(amazon)


def test_two_vendors_get_the_same_records_and_one_may_die(amazon: FakeAws) -> None:
    amazon.reset()
    second = Route53Zone(amazon)
    with FakeHetzner() as vendor:
        first = HetznerZone(vendor)
        environment = {**first.environment, **second.environment}
        names = manage.Names(
            (first.service(), second.service()), DOMAIN, US, tuple(wanted()), environment=environment
        )
        assert len(manage.apply(names).changes) == 2 * len({(r.name, r.type) for r in wanted()})
        assert first.held() == second.held()
        assert manage.plan(names).changes == ()
        # One vendor says no: the other is still told, and the operator reads why.
        moved = manage.Names(
            names.services,
            DOMAIN,
            US,
            tuple(wanted("192.0.2.9")),
            environment={**environment, "HCLOUD_TOKEN": "x" * 64},
        )
        done = manage.apply(moved)
        [(label, error)] = done.failed.items()
        assert label == f"hetzner {ZONE}" and isinstance(error, CredentialError)
        assert second.held()[(DOMAIN, "A")][1] == ("192.0.2.9",)
        assert first.held()[(DOMAIN, "A")][1] == ("192.0.2.1",)
