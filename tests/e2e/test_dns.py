"""Names at an operator's own name server (BIND, RFC 2136), and a deployment whose names follow by themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsigkeyring
import dns.update
import dns.xfr
import dns.zone
import hcloud
import pytest

from deployer.core.component import DnsRecord
from deployer.core.errors import CredentialError, UnreachableError
from deployer.core.model import DnsService
from deployer.dns import authoritative, manage
from tests.e2e.conftest import local_section, project
from tests.e2e.doors import Doors
from tests.e2e.scratch import error, nothing_to_do, within
from tests.rig.hetzner.fake import FakeHetzner
from tests.rig.world import KEY, KEYED, World
from tests.rig.zones import DOMAIN, US, ZONE, Held, Zone, ZoneContract, others_of, sorted_values, wanted


class BindZone(Zone):
    """The rig's zone under another name each time would cost a reload: it is emptied instead."""

    def __init__(self, rig: World, zone: str = ZONE, key: tuple[str, str] | None = None) -> None:
        self.rig, self.zone, self.key = rig, zone, key
        self._kept = {name for name, _ in self._all()}

    def keys(self) -> dict[str, Any]:
        if not self.key:
            return {}
        return {
            "keyring": dns.tsigkeyring.from_text({self.key[0]: self.key[1]}),
            "keyalgorithm": "hmac-sha256",
        }

    def service(self, **other: Any) -> DnsService:
        options: dict[str, object] = {"host": self.rig.internet.address}
        if self.key:
            options |= {"key_name": self.key[0], "key_secret": self.key[1]}
        return DnsService("rfc2136", **{"zone": self.zone, "options": options, **other})

    def send(self, update: dns.update.UpdateMessage) -> None:
        answer = dns.query.tcp(update, self.rig.internet.address, timeout=10)
        assert answer.rcode() == dns.rcode.NOERROR, dns.rcode.to_text(answer.rcode())

    def enter(self, held: Held) -> None:
        there = self.held()
        update = dns.update.UpdateMessage(f"{self.zone}.", **self.keys())
        for (name, type), (ttl, values) in held.items():
            update.add(f"{name}.", there.get((name, type), (ttl,))[0], type, *values)
        self.send(update)

    def _all(self) -> Held:
        found = dns.zone.Zone(f"{self.zone}.", relativize=False)
        query, _ = dns.xfr.make_query(found, **self.keys())
        dns.query.inbound_xfr(self.rig.internet.address, found, query, timeout=10, lifetime=10)
        return {
            (name.to_text(omit_final_dot=True), dns.rdatatype.to_text(item.rdtype)): (
                item.ttl,
                sorted_values([rdata.to_text() for rdata in item]),
            )
            for name, item in found.iterate_rdatasets()
        }

    def held(self) -> Held:
        return {key: value for key, value in self._all().items() if key[0] not in self._kept} | {
            key: value
            for key, value in self._all().items()
            if key[0] == self.zone and key[1] not in ("SOA", "NS")
        }

    def empty(self) -> None:
        update = dns.update.UpdateMessage(f"{self.zone}.", **self.keys())
        for name, type in self.held():
            update.delete(f"{name}.", type)
        self.send(update)

    def wrong(self) -> tuple[DnsService, Mapping[str, str]]:
        options = {"host": self.rig.internet.address, "key_name": "nobody", "key_secret": KEY[1]}
        return DnsService("rfc2136", ZONE, options), {}


class TestBind(ZoneContract):
    @pytest.fixture
    def zone(self, rig: World) -> Iterator[BindZone]:
        made = BindZone(rig)
        yield made
        made.empty()


def test_a_key_of_tsig_opens_its_zone(rig: World) -> None:
    zone = BindZone(rig, KEYED, KEY)
    names = manage.Names((zone.service(),), KEYED, US, (DnsRecord(KEYED, "A", "192.0.2.1"),))
    assert [str(change) for change in manage.apply(names).changes] == [
        f"create dns {KEYED} A (192.0.2.1 at rfc2136)"
    ]
    refused = replace(names, services=(DnsService("rfc2136", KEYED, {"host": rig.internet.address}),))
    with pytest.raises(CredentialError, match="refused") as caught:
        manage.plan(refused)
    assert "allow-transfer" in caught.value.next
    manage.remove(names)
    assert zone.held() == {}


def test_a_server_that_does_not_answer_is_named(rig: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manage, "TRIES", 2)
    options = {"host": rig.internet.address, "port": 5353}
    names = manage.Names((DnsService("rfc2136", ZONE, options),), DOMAIN, US, tuple(wanted()))
    with pytest.raises(UnreachableError, match="rfc2136"):
        manage.plan(names)


def test_what_name_servers_answer_is_compared(rig: World) -> None:
    """By the delegation that the rig's resolver knows, without any entry of the inventory."""
    zone = BindZone(rig)
    resolvers = (rig.internet.address,)
    try:
        names = manage.Names((zone.service(),), DOMAIN, US, tuple(wanted()))
        missing = authoritative.differences(wanted(), (), resolvers)
        assert {(one.name, one.type) for one in missing} == {(r.name, r.type) for r in wanted()}
        assert all(one.server == rig.internet.address for one in missing)
        manage.apply(names)
        assert authoritative.settle(wanted(), (), resolvers, 10) == []
        zone.enter({(DOMAIN, "A"): (60, ("203.0.113.66",)), (DOMAIN, "TXT"): (60, ('"theirs"',))})
        [differs] = authoritative.differences(wanted(), (zone.service(),))
        assert str(differs) == (
            f"A of {DOMAIN} at {rig.internet.address}: is also 203.0.113.66, which is not ours"
        )
        [unknown] = authoritative.differences([DnsRecord("a.nowhere.test", "A", "192.0.2.1")], (), resolvers)
        assert unknown.server == "" and "registered and delegated" in unknown.found
    finally:
        zone.empty()


def test_one_that_is_silent_costs_no_more_than_the_bound() -> None:
    service = DnsService("hetzner", ZONE, nameservers=("127.0.0.1:9",))
    began = time.monotonic()
    found = authoritative.differences(wanted(), (service,), bound=3)
    assert len(found) == len({(record.name, record.type) for record in wanted()})
    assert time.monotonic() - began < 4


# --- a deployment ---

NAMED = """\
provider: local
machines:
- roles: [all]
catch: true
acme: {{directories: ["{directory}"], email: ops@chat.keyed.test, trusted_ca: acme.crt}}
dns:
- provider: rfc2136
  host: {host}
  key_name: {key}
  key_secret: ${{DNS_KEY}}
- provider: hetzner
  endpoint: {endpoint}
  nameservers: {host}
"""


@pytest.fixture(scope="module")
def vendor() -> Iterator[FakeHetzner]:
    with FakeHetzner() as made:
        hcloud.Client(made.token, api_endpoint=made.endpoint).zones.create(name=KEYED, mode="primary")
        yield made
        assert made.violations == []


def test_names_follow_a_deployment(
    rig: World, package_layer: Path, tmp_path: Path, vendor: FakeHetzner
) -> None:
    """Two vendors for one zone; certificates come because the names were there before; drift is mended."""
    zone = BindZone(rig, KEYED, KEY)
    theirs: Held = {
        (f"www.{KEYED}", "A"): (60, ("203.0.113.7",)),
        (KEYED, "TXT"): (99, ('"a" "b;c"',)),
        (f"chat.{KEYED}", "TXT"): (99, ('"site-" "verify=1"',)),
    }
    zone.enter(theirs)
    before = zone.held()
    text = NAMED.format(
        directory=rig.directory, host=rig.internet.address, key=KEY[0], endpoint=vendor.endpoint
    )
    text += local_section(rig, package_layer)
    operator = project(tmp_path / "project", f"chat.{KEYED}", "named", text, tmp_path / "home", "named")
    (operator.folder / "acme.crt").write_text(rig.acme_ca, encoding="utf-8")
    operator.environment = {"DNS_KEY": KEY[1], "HCLOUD_TOKEN": "x" * 64}

    # Another key, and another token: nothing is made.
    operator.environment = {"DNS_KEY": "bm90IHRoZSBrZXk=", "HCLOUD_TOKEN": "x" * 64}
    refused = error(operator.run("up", "--yes"))
    assert refused["error"] == "CredentialError" and refused["next"], refused
    assert not list((rig.folder / "machines" / "machines").glob("named-*"))

    operator.environment = {"DNS_KEY": KEY[1], "HCLOUD_TOKEN": vendor.token}
    rows = [row for row in operator.good("plan").result["changes"] if row["kind"] == "dns"]
    assert any("(known after create)" in row["detail"] for row in rows), rows
    assert zone.held() == before
    first = operator.good("up", "--yes")
    assert KEY[1] not in first.out + first.err
    assert first.result["degraded"] == [], first.result["degraded"]
    address = first.result["machines"][0]["address"]
    for host in ("", "sms.", "mail.", "mta-sts."):
        assert zone.held()[(f"{host}chat.{KEYED}", "A")] == (60, (address,)), host
    at_hetzner = {
        (item["name"], item["type"]): tuple(sorted(record["value"] for record in item["records"]))
        for item in next(iter(vendor.store.tables["zones"].values()))["_sets"].values()
    }
    assert at_hetzner[("mail.chat", "A")] == (address,)
    others_of(before, zone.held(), f"chat.{KEYED}")
    nothing_to_do(operator)
    again = operator.good("up", "--yes").result
    assert again["changed"] == 0 and again["degraded"] == []
    status = operator.good("status").result
    assert status["ok"] and status["degraded"] == [], status

    # Somebody takes a name away by hand.
    gone = dns.update.UpdateMessage(f"{KEYED}.", **zone.keys())
    gone.delete(f"sms.chat.{KEYED}.", "A")
    zone.send(gone)
    told = operator.good("status").result
    assert any(f"A of sms.chat.{KEYED}" in text for text in told["degraded"]), told["degraded"]
    assert operator.run("plan", "--exit-code").code == 3
    mended = operator.good("up", "--yes").result
    assert [(row["name"], row["action"]) for row in mended["changes"]] == [(f"sms.chat.{KEYED} A", "create")]
    nothing_to_do(operator)

    # Nothing waits for this one's certificate, so it may come later.
    url = f"https://mta-sts.chat.{KEYED}/.well-known/mta-sts.txt"
    page = within(60, "policy of MTA-STS", lambda: _page(address, rig.acme_ca, url))
    assert page.startswith("version: STSv1\nmode: testing\n"), page

    operator.good("down", "--yes")
    assert zone.held() == before
    assert {kind for _, kind in _sets(vendor)} == {"SOA", "NS"}
    zone.empty()


def _page(address: str, ca: str, url: str) -> str:
    try:
        return Doors(address, ca).request("GET", url).body.decode()
    except OSError:
        return ""


def _sets(vendor: FakeHetzner) -> set[tuple[str, str]]:
    [held] = vendor.store.tables["zones"].values()
    return {(item["name"], item["type"]) for item in held["_sets"].values()}
