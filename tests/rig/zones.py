"""Zones at vendors of DNS, as other people and the world see them; and what must hold for every vendor.

A vendor is given by `Zone`: how the stack's inventory names it, how somebody else enters a record there, and all that
it holds, byte for byte.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from deployer.core.component import DnsRecord
from deployer.core.errors import CredentialError, DeployError
from deployer.core.machine import Deployment
from deployer.core.model import DnsService
from deployer.dns import manage, owners

ZONE = "social.test"
DOMAIN = f"chat.{ZONE}"
# What is in a zone after years: (name, type) -> TTL and values, as zone files have them.
Held = dict[tuple[str, str], tuple[int, tuple[str, ...]]]
OTHERS: Held = {
    (ZONE, "A"): (300, ("203.0.113.7",)),
    (ZONE, "MX"): (3600, ("10 in1.mail.example.", "20 in2.mail.example.")),
    (ZONE, "TXT"): (1234, ('"v=spf1 include:mail.example" " -all"', '"site-verify=aBc;d\\"e\\\\f"')),
    (ZONE, "CAA"): (3600, ('0 issue "digicert.example"', '0 iodef "mailto:ca@social.test"')),
    (f"www.{ZONE}", "CNAME"): (600, (f"{ZONE}.",)),
    (f"shop.{ZONE}", "A"): (60, ("203.0.113.8", "203.0.113.9")),
    (f"_sip._tcp.{ZONE}", "SRV"): (3600, (f"1 5 5060 shop.{ZONE}.",)),
    (f"sel._domainkey.{ZONE}", "TXT"): (3600, ('"v=DKIM1; p=' + "A" * 200 + '" "' + "B" * 100 + '"',)),
    (f"lab.{ZONE}", "NS"): (3600, ("ns1.lab.example.", "ns2.lab.example.")),
    # Below and at the stack's own domain: a shared set, cut into strings as nobody else would, and a neighbour.
    (DOMAIN, "TXT"): (1234, ('"other-" "verify" "=42; x"', '"second=\\"quoted\\""')),
    (f"_dmarc.{DOMAIN}", "TXT"): (900, ('"v=DMARC1; p=none"',)),
    (f"blog.{DOMAIN}", "A"): (60, ("203.0.113.10",)),
}
US = Deployment("demo", "here")


def wanted(address: str = "192.0.2.1", address6: str = "2001:db8::1") -> list[DnsRecord]:
    """As the components say it for a stack of this domain."""
    hosts = [DOMAIN, f"sms.{DOMAIN}", f"mail.{DOMAIN}", f"mta-sts.{DOMAIN}"]
    found = [DnsRecord(name, "A", address) for name in hosts]
    found += [DnsRecord(name, "AAAA", address6) for name in hosts if address6]
    return [
        *found,
        *(DnsRecord(name, "CAA", '0 issue "letsencrypt.org"', 3600) for name in hosts[:2]),
        DnsRecord(DOMAIN, "MX", f"10 mail.{DOMAIN}.", 3600),
        DnsRecord(DOMAIN, "TXT", f"v=spf1 ip4:{address} ~all", 3600),
        DnsRecord(f"mail.{DOMAIN}", "TXT", "v=spf1 a -all", 3600),
        DnsRecord(f"deploy1._domainkey.{DOMAIN}", "TXT", "v=DKIM1; k=rsa; p=" + "Q" * 392, 3600),
        DnsRecord(f"_dmarc.{DOMAIN}", "TXT", "v=DMARC1; p=quarantine", 3600),
        DnsRecord(f"_mta-sts.{DOMAIN}", "TXT", "v=STSv1; id=0123", 3600),
        DnsRecord(f"_smtp._tls.{DOMAIN}", "TXT", f"v=TLSRPTv1; rua=mailto:tlsrpt@{DOMAIN}", 3600),
    ]


class Zone(ABC):
    """One zone at one vendor."""

    environment: Mapping[str, str] = {}

    @abstractmethod
    def service(self, **other: Any) -> DnsService:
        """The inventory's entry; `other` replaces keys of it."""

    @abstractmethod
    def enter(self, held: Held) -> None:
        """Somebody else enters records by hand."""

    @abstractmethod
    def held(self) -> Held:
        """All that is there but the SOA and the zone's own NS, as the vendor writes it."""

    @abstractmethod
    def wrong(self) -> tuple[DnsService, Mapping[str, str]]:
        """An entry, and an environment, with credentials that are not good."""


class ZoneContract:
    """What must hold for every vendor whose values we keep byte for byte. Inherit and give the fixture `zone`."""

    @pytest.fixture
    def zone(self) -> Zone:
        raise NotImplementedError

    def names(
        self, at: Zone, records: Sequence[DnsRecord] = (), us: Deployment = US, **other: Any
    ) -> manage.Names:
        return manage.Names((at.service(**other),), DOMAIN, us, tuple(records), environment=at.environment)

    def test_others_records_survive_byte_for_byte(self, zone: Zone) -> None:
        """Through up, a change of everything that moves, an edit by others in between, and down."""
        zone.enter(OTHERS)
        before = zone.held()
        assert len(before) == len(OTHERS), before
        manage.apply(self.names(zone, wanted()))
        others_of(before, zone.held())
        during = {
            (DOMAIN, "TXT"): (1234, ('"new; one" "two"',)),
            (f"wiki.{ZONE}", "A"): (60, ("203.0.113.99",)),
        }
        zone.enter(during)
        edited = zone.held()
        manage.apply(self.names(zone, wanted("192.0.2.99", "")))
        assert zone.held()[(f"mail.{DOMAIN}", "A")][1] == ("192.0.2.99",)
        assert (f"mail.{DOMAIN}", "AAAA") not in zone.held()
        others_of(before, zone.held())
        manage.remove(self.names(zone))
        after = zone.held()
        whole = {key: value for key, value in after.items() if key != (f"wiki.{ZONE}", "A")}
        assert whole[(DOMAIN, "TXT")][0] == 1234
        assert set(whole[(DOMAIN, "TXT")][1]) == {*before[(DOMAIN, "TXT")][1], '"new; one" "two"'}
        assert {**whole, (DOMAIN, "TXT"): before[(DOMAIN, "TXT")]} == before
        assert after[(f"wiki.{ZONE}", "A")] == edited[(f"wiki.{ZONE}", "A")]

    def test_a_second_plan_is_empty(self, zone: Zone) -> None:
        zone.enter(OTHERS)
        first = manage.plan(self.names(zone, wanted()))
        untouched = zone.held()
        assert manage.plan(self.names(zone, wanted())) == first and zone.held() == untouched
        assert manage.apply(self.names(zone, wanted())).changes == first.changes != ()
        assert manage.plan(self.names(zone, wanted())).changes == ()
        there = zone.held()
        assert manage.apply(self.names(zone, wanted())).changes == ()
        assert zone.held() == there

    def test_in_an_empty_zone_nothing_stays(self, zone: Zone) -> None:
        before = zone.held()
        manage.apply(self.names(zone, wanted()))
        assert {key for key in zone.held() if key[1] != "TXT"} == {
            (record.name, record.type) for record in wanted() if record.type != "TXT"
        }
        manage.remove(self.names(zone))
        assert zone.held() == before

    def test_another_operators_computer_knows_what_is_ours(self, zone: Zone) -> None:
        """Nothing is kept here: every call begins with what the zone says."""
        zone.enter(OTHERS)
        manage.apply(self.names(zone, wanted()))
        assert (f"{owners.LABEL}.{DOMAIN}", "TXT") in zone.held()
        moved = manage.apply(self.names(zone, wanted("192.0.2.2"))).changes
        assert {change.action for change in moved} == {"change"}

    def test_another_deployments_names_are_not_taken(self, zone: Zone) -> None:
        manage.apply(self.names(zone, wanted()))
        before = zone.held()
        other = self.names(zone, wanted("192.0.2.50"), Deployment("demo", "there"))
        assert any("belongs to the deployment demo@here" in text for text in manage.plan(other).conflicts)
        with pytest.raises(DeployError, match="taken"):
            manage.apply(other)
        assert zone.held() == before
        # And what one does not own, one does not remove.
        manage.remove(self.names(zone, (), Deployment("demo", "there")))
        assert zone.held() == before

    def test_a_name_that_is_somebody_elses_stops_everything(self, zone: Zone) -> None:
        zone.enter({(f"sms.{DOMAIN}", "A"): (60, ("203.0.113.1",))})
        before = zone.held()
        with pytest.raises(DeployError) as caught:
            manage.apply(self.names(zone, wanted()))
        assert f"A of sms.{DOMAIN}: is there already and not ours: 203.0.113.1" in caught.value.detail
        assert zone.held() == before

    def test_too_much_at_once_is_refused(self, zone: Zone) -> None:
        """octoDNS's limit, counted over what is ours."""
        manage.apply(self.names(zone, wanted()))
        before = zone.held()
        few = wanted()[:3]
        with pytest.raises(DeployError, match="too far") as caught:
            manage.apply(self.names(zone, few))
        assert "limit:" in caught.value.next
        assert zone.held() == before
        manage.apply(self.names(zone, few, limit=100))
        assert {key for key in zone.held() if key[1] != "TXT"} == {(r.name, r.type) for r in few}

    def test_wrong_credentials_say_what_to_do(self, zone: Zone) -> None:
        service, environment = zone.wrong()
        names = manage.Names((service,), DOMAIN, US, tuple(wanted()), environment=environment)
        with pytest.raises(CredentialError) as caught:
            manage.plan(names)
        assert service.provider in caught.value.what
        assert caught.value.next, caught.value

    def test_the_zone_is_found_above_the_domain_and_never_made(self, zone: Zone) -> None:
        assert manage.plan(self.names(zone, wanted(), zone="")).changes
        with pytest.raises(DeployError):
            manage.apply(self.names(zone, wanted(), zone=f"absent.{ZONE}"))
        assert zone.held() == {}

    def test_what_was_broken_off_is_continued(self, zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
        """After ownership was written, and after the records were: the next run ends the same, and down leaves nothing."""
        from deployer.dns import octo

        zone.enter(OTHERS)
        before = zone.held()
        whole = octo._part
        for stop in (2, 3):
            calls = []

            def part(*arguments: Any, stop: int = stop, calls: list[int] = calls) -> Any:
                calls.append(1)
                # The first is for the guard alone.
                if len(calls) > stop:
                    raise KeyboardInterrupt
                return whole(*arguments)

            monkeypatch.setattr(octo, "_part", part)
            address = f"192.0.2.{stop}"
            with pytest.raises(KeyboardInterrupt):
                manage.apply(self.names(zone, wanted(address)))
            monkeypatch.setattr(octo, "_part", whole)
            others_of(before, zone.held())
        manage.apply(self.names(zone, wanted("192.0.2.77")))
        assert manage.plan(self.names(zone, wanted("192.0.2.77"))).changes == ()
        manage.remove(self.names(zone))
        assert zone.held() == before


def others_of(before: Held, after: Held, domain: str = DOMAIN) -> None:
    """Everything that was there is there still, in the same bytes and with the same TTL; ours is at `domain` only."""
    for key, (ttl, values) in before.items():
        assert key in after, key
        assert after[key][0] == ttl, key
        assert set(values) <= set(after[key][1]), (key, values, after[key])
        if key[0] != domain:
            assert after[key][1] == values, key


def relative(name: str) -> str:
    return "@" if name == ZONE else name.removesuffix(f".{ZONE}")


def sorted_values(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(values))


def unescaped(name: str) -> str:
    r"""Route 53 writes * as \052."""
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), name).rstrip(".")
