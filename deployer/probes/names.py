"""DNS as others see it: by a resolver, and by each server that is the zone's authority."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dns.message
    import dns.resolver

# Seconds for one question to one server, and for a resolver with all its tries.
ONE, ALL = 2.0, 5.0


@dataclass(frozen=True)
class Answer:
    """values: presentation text, () when there is no such record; why: what stood in the way, "" for nothing.

    ttl: seconds as the server gave them (of an authority: the record's own).
    """

    values: tuple[str, ...] = ()
    ttl: int = 0
    why: str = ""


@dataclass(frozen=True)
class Server:
    """An authority of a zone. name: as the delegation names it; address: "address" or "address:port"."""

    name: str
    address: str


class Resolver:
    """Asks the addresses given, or this computer's resolvers."""

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        import dns.resolver

        self._resolver: dns.resolver.Resolver = dns.resolver.Resolver(configure=not addresses)
        if addresses:
            self._resolver.nameservers = list(addresses)
        self._resolver.timeout, self._resolver.lifetime = ONE, ALL

    def ask(self, name: str, type: str) -> Answer:
        """Never raises for what a network does."""
        import dns.exception
        import dns.resolver

        try:
            found = self._resolver.resolve(f"{name.rstrip('.')}.", type, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return Answer()
        except dns.exception.Timeout:
            return Answer(why=f"{self._names()} did not answer within {ALL:g} s")
        except dns.resolver.NoNameservers:
            return Answer(why=f"{self._names()} answered with an error for {name}")
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return Answer(why=" ".join(str(error).split()) or type_of(error))
        if found.rrset is None:
            return Answer()
        return Answer(tuple(item.to_text() for item in found.rrset), found.rrset.ttl)

    def _names(self) -> str:
        return f"the DNS resolver {' or '.join(map(str, self._resolver.nameservers))}"

    def reverse(self, address: str) -> Answer:
        return self.ask(ipaddress.ip_address(address).reverse_pointer, "PTR")

    def zone(self, name: str) -> Answer:
        """The zone that holds the name, as the only value; none: there is none below the top level."""
        labels = name.rstrip(".").split(".")
        while len(labels) > 1:
            candidate = ".".join(labels)
            answer = self.ask(candidate, "SOA")
            if answer.why:
                return Answer(why=answer.why)
            if answer.values:
                return Answer((candidate,))
            labels = labels[1:]
        return Answer()

    def authorities(self, zone: str) -> list[Server]:
        """Each server that the zone is delegated to, by its IPv4 address (else IPv6); "" for one without any."""
        found = []
        for name in sorted(value.rstrip(".").lower() for value in self.ask(zone, "NS").values):
            addresses = self.ask(name, "A").values or self.ask(name, "AAAA").values
            found.append(Server(name, addresses[0] if addresses else ""))
        return found


def ask_authority(server: Server, name: str, type: str) -> Answer:
    """One question to one authority, without recursion. An alias is answered as what it is: "CNAME target."."""
    import dns.exception
    import dns.flags
    import dns.message
    import dns.query
    import dns.rcode

    if not server.address:
        return Answer(why="its name has no address")
    address, port = door(server.address)
    query = dns.message.make_query(f"{name.rstrip('.')}.", type)
    query.flags &= ~dns.flags.RD
    try:
        answer, _ = dns.query.udp_with_fallback(query, address, timeout=ONE, port=port)
    except (dns.exception.DNSException, OSError) as error:
        return Answer(why=f"no answer ({' '.join(str(error).split()) or type_of(error)})")
    if answer.rcode() == dns.rcode.NXDOMAIN:
        return Answer()
    if answer.rcode() != dns.rcode.NOERROR:
        return Answer(why=f"it answers {dns.rcode.to_text(answer.rcode())}")
    if not answer.flags & dns.flags.AA:
        return Answer(why="it is no authority for this zone")
    return _read(answer, type)


def _read(answer: dns.message.Message, type: str) -> Answer:
    import dns.rdatatype

    for rrset in answer.answer:
        kind = dns.rdatatype.to_text(rrset.rdtype)
        if kind in (type, "CNAME"):
            prefix = "CNAME " if kind != type else ""
            return Answer(tuple(prefix + item.to_text() for item in rrset), rrset.ttl)
    return Answer()


def door(text: str) -> tuple[str, int]:
    """Address and port of "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353"."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.endswith("]")):
        return host.strip("[]"), int(port)
    return text.strip("[]"), 53


def type_of(error: BaseException) -> str:
    return type(error).__name__
