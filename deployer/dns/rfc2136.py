"""A name server of the operator's own (BIND, Knot, PowerDNS): read by zone transfer, changed by RFC 2136 updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octodns_bind import Rfc2136Provider

from deployer.dns.rrset import Rrset
from deployer.dns.vendors import CALL, Exact


class Changed(Exception):
    """Somebody changed a set between our reading and our writing."""


class Rfc2136(Exact, Rfc2136Provider):
    """key_name, key_secret (base64), key_algorithm: of TSIG; without them nothing is signed."""

    def __init__(self, host: str, port: int = 53, **key: str) -> None:
        key.setdefault("key_algorithm", "hmac-sha256")
        super().__init__("rfc2136", host, port, timeout=CALL, root_ns_warnings=False, **key)

    def _signed(self) -> dict[str, Any]:
        return self._auth_params() if self.key_name else {}

    def zones_near(self, domain: str) -> Sequence[str]:
        """The zone that the server says the domain lies in: the owner of its SOA."""
        import dns.message
        import dns.query
        import dns.rdatatype

        question = dns.message.make_query(f"{domain}.", "SOA")
        answer = dns.query.tcp(question, self.host, port=self.port, timeout=self.timeout)
        return [
            rrset.name.to_text(omit_final_dot=True).lower()
            for rrset in (*answer.answer, *answer.authority)
            if rrset.rdtype == dns.rdatatype.SOA
        ]

    def read(self, zone: str) -> list[Rrset] | None:
        import dns.message
        import dns.query
        import dns.rcode
        import dns.rdatatype
        import dns.xfr
        import dns.zone

        found = dns.zone.Zone(f"{zone}.", relativize=False)
        query, _ = dns.xfr.make_query(found, **_keyring(self._signed()))
        dns.query.inbound_xfr(
            self.host, found, query, port=self.port, timeout=self.timeout, lifetime=self.timeout
        )
        return [
            Rrset(
                name.to_text(omit_final_dot=True).lower(),
                dns.rdatatype.to_text(rdataset.rdtype),
                rdataset.ttl,
                tuple(rdata.to_text() for rdata in rdataset),
            )
            for name, rdataset in found.iterate_rdatasets()
        ]

    def _apply(self, plan: Any) -> None:
        """One message, which the server carries out wholly or not at all, and only where every set is still the one
        that was read (RFC 2136, 2.4)."""
        import dns.query
        import dns.rcode
        import dns.update

        update = dns.update.UpdateMessage(plan.desired.name, **self._signed())
        steps = self.steps(plan)
        for (name, type), before, after in steps:
            owner = f"{name}."
            if before:
                update.present(owner, type, *before.values)
            else:
                update.absent(owner, type)
            old, new = before.values if before else (), after.values if after else ()
            renewed = bool(before and after and before.ttl != after.ttl)
            go = [value for value in old if renewed or value not in new]
            come = [value for value in new if renewed or value not in old]
            if go:
                update.delete(owner, type, *go)
            if after and come:
                update.add(owner, after.ttl, type, *come)
        answer = dns.query.tcp(update, self.host, port=self.port, timeout=self.timeout)
        code = answer.rcode()
        if code in (dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.YXDOMAIN, dns.rcode.NXDOMAIN):
            raise Changed(dns.rcode.to_text(code))
        if code != dns.rcode.NOERROR:
            raise Refused(dns.rcode.to_text(code))
        for key, _, after in steps:
            self.done(key, after)


class Refused(Exception):
    """The server's answer was not NOERROR; the text is the code."""


def _keyring(signed: dict[str, Any]) -> dict[str, Any]:
    return {"keyring": signed["keyring"], "keyalgorithm": signed["keyalgorithm"]} if signed else {}
