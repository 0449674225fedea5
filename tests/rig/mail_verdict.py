"""What a careful receiver says about a message: SPF (pyspf), DKIM (dkimpy), DMARC (authheaders), asking one DNS server.

No library looks anywhere else: the rig's DNS is the only one that knows the rig's names.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from email import message_from_bytes
from email.utils import getaddresses
from typing import Any

import dkim
import dns.exception
import dns.resolver
import dns.reversename
import spf
from authheaders.dmarc_lookup import get_org_domain, receiver_record

# seconds for all attempts of one question
LIFETIME = 3.0


@dataclass(frozen=True)
class Verdict:
    """spf: pyspf's word ("pass", "softfail", "none" ...); dkim: "pass", "fail" or "none";
    dmarc: "pass", "fail" or "none" (no record); policy: of the domain.

    dkim_domains: d= of the signatures that hold; signed: headers that the first one of them signs.
    ptr: name of the client's address; ehlo_matches: the EHLO name has that address, and is that name.
    """

    spf: str
    dkim: str
    dkim_domains: tuple[str, ...]
    signed: tuple[str, ...]
    dmarc: str
    policy: str
    ptr: str
    ehlo_matches: bool


class Judge:
    """Asks the DNS server at `server` ("ADDRESS", "ADDRESS:PORT")."""

    def __init__(self, server: str) -> None:
        address, _, port = server.partition(":")
        self.resolver = dns.resolver.Resolver(configure=False)
        self.resolver.nameservers = [address]
        self.resolver.port = int(port or 53)
        self.resolver.lifetime = LIFETIME

    def look_up(self, name: str, kind: str) -> list[Any]:
        """Records of that kind; none when there are none. Raises dns.exception.DNSException when nobody answers."""
        try:
            return list(self.resolver.resolve(name, kind))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []

    def text(self, name: str | bytes, prefix: str = "") -> str:
        """The first TXT record that starts with prefix, its strings joined; "" when there is none."""
        name = name.decode() if isinstance(name, bytes) else name
        found = [b"".join(record.strings).decode() for record in self.look_up(name, "TXT")]
        return next((text for text in found if text.startswith(prefix)), "")

    def judge(self, message: bytes, address: str, ehlo: str, sender: str) -> Verdict:
        """message: as it came over the wire; address: of the client; sender: of the envelope, "" for a bounce."""
        spf_result = _Query(self, address, sender, ehlo).check()[0]
        dkim_result, domains, signed = self._dkim(message)
        dmarc, policy = self._dmarc(message, domains, sender or f"@{ehlo}", spf_result)
        names = []
        with contextlib.suppress(dns.exception.DNSException):
            names = [
                str(record.target).rstrip(".").lower()
                for record in self.look_up(str(dns.reversename.from_address(address)), "PTR")
            ]
        addresses = []
        with contextlib.suppress(dns.exception.DNSException):
            addresses = [record.address for kind in ("A", "AAAA") for record in self.look_up(ehlo, kind)]
        return Verdict(
            spf=spf_result,
            dkim=dkim_result,
            dkim_domains=domains,
            signed=signed,
            dmarc=dmarc,
            policy=policy,
            ptr=names[0] if names else "",
            ehlo_matches=ehlo.lower() in names and address in addresses,
        )

    def _dkim(self, message: bytes) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        count = sum(name.lower() == "dkim-signature" for name in message_from_bytes(message))
        domains, signed = [], ()
        for index in range(count):
            check = dkim.DKIM(message)
            try:
                holds = check.verify(
                    index, dnsfunc=lambda name, timeout=5: self.text(name, "v=DKIM1").encode()
                )
            except (dkim.DKIMException, dns.exception.DNSException):
                continue
            if holds:
                domains.append(check.signature_fields[b"d"].decode().lower())
                names = check.signature_fields[b"h"].decode().lower().split(":")
                signed = signed or tuple(name.strip() for name in names)
        result = "pass" if domains else "fail" if count else "none"
        return result, tuple(domains), signed

    def _dmarc(
        self, message: bytes, domains: tuple[str, ...], sender: str, spf_result: str
    ) -> tuple[str, str]:
        """RFC 7489, 3.1: aligned SPF or aligned DKIM. (authheaders' own comparing stumbles over hyphens.)"""
        authors = getaddresses([str(value) for value in message_from_bytes(message).get_all("From", [])])
        if len(authors) != 1 or "@" not in authors[0][1]:
            return "fail", ""
        author = authors[0][1].rpartition("@")[2].lower()
        record, _ = receiver_record(author, dnsfunc=lambda name: self.text(name, "v=DMARC1"))
        if not record:
            return "none", ""

        def aligned(domain: str, mode: str) -> bool:
            return domain == author if mode == "s" else get_org_domain(domain) == get_org_domain(author)

        by_dkim = any(aligned(domain, record.get("adkim", "r")) for domain in domains)
        by_spf = spf_result == "pass" and aligned(sender.rpartition("@")[2].lower(), record.get("aspf", "r"))
        return "pass" if by_dkim or by_spf else "fail", record.get("p", "none")


class _Query(spf.query):  # type: ignore[misc]
    """pyspf with our DNS: this method is the only way in which it asks."""

    def __init__(self, judge: Judge, address: str, sender: str, ehlo: str) -> None:
        super().__init__(i=address, s=sender, h=ehlo, timeout=int(LIFETIME))
        self._judge = judge

    def dns(self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:
        try:
            found = self._judge.look_up(str(name).rstrip("."), qtype)
        except dns.exception.DNSException as error:
            raise spf.TempError(f"DNS {type(error).__name__}") from None
        if qtype in ("A", "AAAA"):
            return [record.address for record in found]
        if qtype == "MX":
            return [(record.preference, str(record.exchange)) for record in found]
        if qtype == "PTR":
            return [str(record.target).rstrip(".") for record in found]
        return [record.strings for record in found]
