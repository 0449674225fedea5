"""What the world sees: every authoritative server of a name's zone is asked whether it answers as wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from deployer.core.component import DnsRecord
from deployer.core.model import DnsService
from deployer.dns.rrset import Key, Rrset, canonical, wanted

# Seconds for one question, and for everything.
ASK, BOUND = 2.0, 8.0


@dataclass(frozen=True)
class Difference:
    """A name that is answered differently. server: who says so; "" when nobody was found to ask."""

    name: str
    type: str
    server: str
    found: str

    def __str__(self) -> str:
        where = f" at {self.server}" if self.server else ""
        return f"{self.type} of {self.name}{where}: {self.found}"


class _Nobody(Exception):
    pass


def differences(
    records: Iterable[DnsRecord],
    services: Sequence[DnsService] = (),
    resolvers: Sequence[str] = (),
    bound: float = BOUND,
) -> list[Difference]:
    """Every record that some authoritative server does not answer. Never raises for what a network does.

    A wanted value must be in the answer; what else is there is somebody else's, but A and AAAA must be ours alone.
    resolvers: "address" or "address:port" of resolvers to find the servers with; this computer's own by default.
    """
    sets = wanted(records)
    found: list[Difference] = []
    deadline = time.monotonic() + bound
    by_zone: dict[tuple[str, ...], list[Rrset]] = {}
    lookups = _side_by_side(
        {name: partial(_servers, name, services, resolvers) for name in {name for name, _ in sets}},
        deadline,
    )
    for rrset in sets.values():
        servers = lookups.get(rrset.name) or ()
        if isinstance(servers, Exception) or not servers:
            why = (
                str(servers) if isinstance(servers, _Nobody) else "no authoritative server was found in time"
            )
            found.append(Difference(rrset.name, rrset.type, "", why))
        else:
            by_zone.setdefault(tuple(servers), []).append(rrset)
    questions: dict[tuple[Key, str], Callable[[], str]] = {}
    for servers, listed in by_zone.items():
        for server in servers:
            for rrset in listed:
                questions[(rrset.key, server)] = partial(_asked, server, rrset)
    answers = _side_by_side(questions, deadline)
    for key, server in questions:
        answer = answers.get((key, server), "no answer in time")
        if answer:
            found.append(Difference(*key, server, str(answer)))
    return sorted(found, key=lambda one: (one.name, one.type, one.server))


def settle(
    records: Sequence[DnsRecord],
    services: Sequence[DnsService],
    resolvers: Sequence[str] = (),
    seconds: float = 60,
) -> list[Difference]:
    """Wait until every authoritative server answers as wanted, at most `seconds`; what differs still."""
    deadline = time.monotonic() + seconds
    pause = 0.2
    while True:
        left = differences(records, services, resolvers)
        if not left or time.monotonic() + pause > deadline:
            return left
        time.sleep(pause)
        pause = min(pause * 2, 5)


def _side_by_side(work: dict[Any, Callable[[], Any]], deadline: float) -> dict[Any, Any]:
    """Run all at once; what is not done by the deadline is missing. An exception is an answer, too."""
    answers: dict[Any, Any] = {}
    threads = []
    gate = threading.BoundedSemaphore(32)
    for key, function in work.items():

        def run(key: Any = key, function: Callable[[], Any] = function) -> None:
            with gate:
                try:
                    answers[key] = function()
                except Exception as error:
                    answers[key] = error

        # Not a pool: its threads would be waited for when the program ends.
        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return dict(answers)


def _servers(name: str, services: Sequence[DnsService], resolvers: Sequence[str]) -> list[str]:
    """Addresses ("address" or "address:port") of the servers that the name's zone is delegated to."""
    zones = [service for service in services if service.zone and f".{name}".endswith(f".{service.zone}")]
    longest = max((len(service.zone) for service in zones), default=0)
    fixed = [
        address
        for service in services
        if not service.zone or (len(service.zone) == longest and service in zones)
        for address in _fixed(service)
    ]
    return list(dict.fromkeys(fixed)) or _delegated(name, resolvers)


def _fixed(service: DnsService) -> list[str]:
    """What the entry says: `nameservers`, or the server that takes its updates."""
    if service.nameservers:
        return list(service.nameservers)
    if service.provider == "rfc2136":
        port = int(str(service.options.get("port", 53)))
        host = str(service.options.get("host", ""))
        return [host if port == 53 else f"{host}:{port}"]
    return []


def _delegated(name: str, resolvers: Sequence[str]) -> list[str]:
    """Found as the world finds them: by the NS set of the nearest zone above the name."""
    import dns.exception
    import dns.nameserver
    import dns.resolver

    resolver = dns.resolver.Resolver(configure=not resolvers)
    if resolvers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*_door(one)) for one in resolvers]
    resolver.lifetime = ASK * 2
    labels = name.split(".")
    for first in range(len(labels) - 1):
        zone = ".".join(labels[first:])
        try:
            hosts = [str(item.target) for item in resolver.resolve(f"{zone}.", "NS")]
        except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
            continue
        except dns.exception.DNSException as error:
            raise _Nobody(f"its name servers cannot be looked up ({error})") from None
        found = []
        for host in hosts:
            try:
                found.append(str(resolver.resolve(host, "A")[0]))
            except dns.exception.DNSException:
                found.append(host)
        return found
    raise _Nobody("it lies in no zone that the world knows; is the domain registered and delegated?")


def _asked(server: str, rrset: Rrset) -> str:
    """What is wrong with the server's answer; "" when it is as wanted."""
    import dns.exception
    import dns.flags
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype

    host, port = _door(server)
    question = dns.message.make_query(f"{rrset.name}.", rrset.type)
    question.flags &= ~dns.flags.RD
    try:
        answer, _ = dns.query.udp_with_fallback(question, _address(host), timeout=ASK, port=port)
    except dns.exception.Timeout:
        return f"no answer within {ASK:g} s"
    except (dns.exception.DNSException, OSError) as error:
        return f"cannot be asked: {error}"
    code = answer.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return f"answers {dns.rcode.to_text(code)}; is the zone delegated to it by mistake?"
    type = dns.rdatatype.from_text(rrset.type)
    texts = [
        data.to_text()
        for item in answer.answer
        if item.rdtype == type and item.name.to_text(omit_final_dot=True).lower() == rrset.name
        for data in item
    ]
    there = {canonical(rrset.type, text): text for text in texts}
    shall = {canonical(rrset.type, value): value for value in rrset.values}
    missing = [value for key, value in shall.items() if key not in there]
    if missing:
        return f"is {', '.join(texts) or 'not there'}, and should be {', '.join(missing)}"
    more = [text for key, text in there.items() if key not in shall]
    if more and rrset.type in ("A", "AAAA"):
        return f"is also {', '.join(more)}, which is not ours"
    return ""


def _door(server: str) -> tuple[str, int]:
    """Host and port of "address", "address:port" or "[address6]:port"."""
    if server.startswith("["):
        host, _, port = server[1:].partition("]")
        return host, int(port.lstrip(":") or 53)
    host, colon, port = server.rpartition(":")
    return (host, int(port)) if colon and ":" not in host else (server, 53)


def _address(host: str) -> str:
    """dnspython wants an address. Raises OSError."""
    import socket

    found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return str(found[0][4][0])
