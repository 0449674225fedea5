"""Checks of the stack's names: who serves them, what is served, and how long others remember it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from deployer.core.component import DnsRecord
from deployer.core.finding import Finding
from deployer.core.model import DnsService

# Seconds: what moves with a machine must be forgotten by then.
TTL = 60
# One company by several names: as registrar, as DNS and as cloud.
_SAME = {
    "route53": "aws",
    "awsdns": "aws",
    "amazon": "aws",
    "amazonaws": "aws",
    "azuredns": "azure",
    "microsoft": "azure",
    "googledomains": "google",
    "gcp": "google",
    "hetzner": "hetzner",
}
_SECOND_LEVEL = {"ac", "co", "com", "edu", "gov", "net", "or", "org"}


def company(name: str) -> str:
    """One word for a vendor, however an inventory or a registry writes it."""
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    return next((known for start, known in _SAME.items() if word.startswith(start)), word)


def of_server(name: str) -> str:
    """Whose a name server is: the owner's part of its name, without numbers ("ns-7.awsdns-12.co.uk" is aws)."""
    labels = name.rstrip(".").lower().split(".")
    if len(labels) < 2:
        return name
    second_level = len(labels) > 2 and labels[-2] in _SECOND_LEVEL and len(labels[-1]) == 2
    owner = labels[-3] if second_level else labels[-2]
    return company(re.sub(r"-?\d+$", "", owner) or owner)


def of_service(service: DnsService) -> str:
    """Whose a DNS service of the inventory is; a server of one's own counts by its address."""
    if service.provider == "rfc2136":
        own = next((str(service.options[key]) for key in ("host", "server") if service.options.get(key)), "")
        return f"rfc2136 {own}".strip()
    # octodns_cloudflare.CloudflareProvider
    return company(re.sub(r"^octodns[_-]?", "", service.provider.split(".")[0]))


def vendors(zone: str, servers: Sequence[str], services: Sequence[DnsService]) -> Finding:
    """At least two vendors serve the zone: servers: names that it is delegated to; services: of the inventory."""
    id, what = "dns.vendors", "DNS vendors"
    delegated = list(dict.fromkeys(of_server(name) for name in servers))
    listed = list(dict.fromkeys(of_service(service) for service in services))
    both = "a dead DNS vendor stays in caches for up to two days"
    if services and len(listed) < 2:
        return Finding(
            id,
            "fail",
            what,
            zone,
            f"{listed[0]} alone serves it",
            f"add a second vendor under dns: in the inventory and delegate to both, since {both}",
        )
    if not servers:
        return Finding(
            id,
            "fail",
            what,
            zone,
            "it is delegated to nobody",
            "name its name servers at the registrar",
        )
    if len(delegated) < 2:
        next = (
            f"name the servers of {' and '.join(listed)} at the registrar, since {both}"
            if services
            else f"let a second vendor serve it too (dns: in the inventory takes two), since {both}"
        )
        return Finding(id, "fail", what, zone, f"delegated to {delegated[0]} alone", next)
    return Finding(id, "ok", what, zone, f"delegated to {' and '.join(delegated)}")


def registrar(domain: str, name: str, provider: str) -> Finding:
    """A registrar that is the cloud too takes names and machines at once."""
    id, what = "dns.registrar", "registrar"
    if not name:
        return Finding(
            id, "skipped", what, domain, "not known", "write it into the inventory: doctor: {registrar: NAME}"
        )
    if company(name) == company(provider):
        return Finding(
            id,
            "warn",
            what,
            domain,
            f"{name} is the machines' vendor too: it could take both on one day",
            "move the domain to another registrar; that takes days, so do it while all is well",
        )
    return Finding(id, "ok", what, domain, name)


def records(differences: Sequence[tuple[str, str]], count: int, ours: bool) -> list[Finding]:
    """What the authorities serve. differences: (server, what differs); count: records looked at.

    ours: `deploy up` writes records here.
    """
    id, what = "dns.records", "records"
    if not differences:
        return [Finding(id, "ok", what, "", f"all {count} as wanted, at every authority")]
    mend = (
        "deploy up writes them" if ours else "enter them by hand: deploy status --json lists them under dns"
    )
    by_server: dict[str, list[str]] = {}
    for server, text in differences:
        by_server.setdefault(server, []).append(text)
    found = []
    for server, texts in by_server.items():
        more = f"; and {len(texts) - 3} more" if len(texts) > 3 else ""
        nobody = "delegate the zone to its name servers at the registrar, and see to this computer's DNS"
        next = mend if server else nobody
        found.append(Finding(id, "fail", what, server, "; ".join(texts[:3]) + more, next))
    return found


def lifetimes(zone: str, ttls: Mapping[tuple[str, str], int], ours: bool) -> Finding:
    """ttls: (name, type) -> the longest that any authority gives, of records that move with a machine."""
    id, what = "dns.ttl", "TTL of what moves"
    if not ttls:
        return Finding(id, "skipped", what, zone, "no record of it is there yet")
    long = {key: ttl for key, ttl in ttls.items() if ttl > TTL}
    if not long:
        return Finding(id, "ok", what, zone, f"at most {max(ttls.values())} s")
    shown = ", ".join(f"{type} of {name} {ttl} s" for (name, type), ttl in list(long.items())[:3])
    more = f" and {len(long) - 3} more" if len(long) > 3 else ""
    next = (
        "deploy up sets them" if ours else f"set them to {TTL} s where you entered them, days before you move"
    )
    return Finding(id, "warn", what, zone, shown + more, next)


def moving(wanted: Sequence[DnsRecord]) -> list[DnsRecord]:
    """Those that change when a machine does."""
    return [record for record in wanted if record.ttl <= TTL]
