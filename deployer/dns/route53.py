"""Amazon's Route 53, by octodns-route53 and boto3. Credentials are found as boto3 does, unless they are named.

Needs route53:ListHostedZones, ListResourceRecordSets and ChangeResourceRecordSets, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octodns_route53 import Route53Provider
from octodns_route53.provider import _octal_replace

from deployer.dns.rrset import Key, Rrset
from deployer.dns.vendors import CALL, Exact


class Route53(Exact, Route53Provider):
    def __init__(self, endpoint: str = "", **keys: str) -> None:
        self._endpoint = endpoint
        # Private zones of the same name are not seen by the world.
        super().__init__("route53", private=False, root_ns_warnings=False, **keys)

    def client(self, service_name: str, **keys: Any) -> Any:
        """A client whose calls are bounded; boto3 repeats what is throttled or broken off, with jitter."""
        from boto3 import Session
        from botocore.config import Config

        session = Session(
            aws_access_key_id=keys.get("access_key_id"),
            aws_secret_access_key=keys.get("secret_access_key"),
            aws_session_token=keys.get("session_token"),
            profile_name=keys.get("profile"),
        )
        config = Config(
            connect_timeout=CALL, read_timeout=CALL, retries={"max_attempts": 5, "mode": "standard"}
        )
        # One region for the whole world.
        where = {"endpoint_url": self._endpoint} if self._endpoint else {}
        return session.client(service_name, region_name="us-east-1", config=config, **where)

    def zones_near(self, domain: str) -> Sequence[str]:
        self.update_r53_zones(f"{domain}.")
        return [name.rstrip(".") for name in self._r53_zones or ()]

    def read(self, zone: str) -> list[Rrset] | None:
        self._id = self._get_zone_id(f"{zone}.")
        if not self._id:
            return None
        self._r53_rrsets.clear()
        self._raw: dict[Key, list[dict[str, Any]]] = {}
        found = []
        for raw in self._load_records(self._id):
            name, type = _octal_replace(raw["Name"]).rstrip(".").lower(), raw["Type"]
            self._raw.setdefault((name, type), []).append(raw)
            values = tuple(str(record["Value"]) for record in raw.get("ResourceRecords", ()))
            if "AliasTarget" in raw:
                values = (f"ALIAS {raw['AliasTarget']['DNSName']}",)
            found.append(Rrset(name, type, int(raw.get("TTL", 0)), values))
        return found

    def _apply(self, plan: Any) -> None:
        """All in one batch, which Route 53 carries out wholly or not at all. A set is replaced by deleting exactly
        what was read: when somebody has changed it since, nothing happens, and the plan is made anew."""
        batch: list[dict[str, Any]] = []
        steps = self.steps(plan)
        for key, _, _ in steps:
            batch += [{"Action": "DELETE", "ResourceRecordSet": raw} for raw in self._raw.get(key, ())]
        made: dict[Key, list[dict[str, Any]]] = {}
        for key, _, after in steps:
            if after:
                made[key] = [
                    {
                        "Name": f"{after.name}.",
                        "Type": after.type,
                        "TTL": after.ttl,
                        "ResourceRecords": [{"Value": value} for value in after.values],
                    }
                ]
                batch += [{"Action": "CREATE", "ResourceRecordSet": raw} for raw in made[key]]
        self._conn.change_resource_record_sets(
            HostedZoneId=self._id, ChangeBatch={"Comment": "deploy", "Changes": batch}
        )
        for key, _, after in steps:
            self._raw[key] = made.get(key, [])
            self.done(key, after)
