"""What is asked from this computer: DNS, and the certificates that the public sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from deployer.components.mail_relay import layout
from deployer.core.component import ComponentSpec, DnsRecord
from deployer.core.finding import Finding
from deployer.flow.doctor import hosts, mail, names
from deployer.flow.doctor.runner import in_background
from deployer.flow.doctor.scene import Scene

# Seconds for one TLS connection.
TLS = 4.0
_RESOLVER = (
    "see to the DNS of this computer (/etc/resolv.conf), or name a resolver: doctor: {resolvers: [ADDRESS]}"
)


def dns_vendors(scene: Scene) -> list[Finding]:
    """Who serves the zone, as the delegation says and as the inventory says."""
    from deployer.probes.names import Resolver

    resolver, domain = Resolver(scene.policy.resolvers), scene.project.stack.domain
    zone = resolver.zone(domain)
    if zone.why:
        return [Finding("dns.vendors", "warn", "DNS vendors", domain, zone.why, _RESOLVER)]
    servers = [one.name for one in resolver.authorities(zone.values[0])] if zone.values else []
    return [names.vendors(zone.values[0] if zone.values else domain, servers, scene.inventory.dns)]


def registrar(scene: Scene) -> list[Finding]:
    domain = scene.project.stack.domain
    return [names.registrar(domain, scene.policy.registrar, scene.inventory.provider)]


def records(scene: Scene, wanted: Sequence[DnsRecord]) -> list[Finding]:
    """Every record at every authoritative server."""
    from deployer.dns.authoritative import differences
    from deployer.probes.names import Resolver

    domain = scene.project.stack.domain
    zone = Resolver(scene.policy.resolvers).zone(domain)
    if zone.why and not scene.inventory.dns:
        return [Finding("dns.records", "warn", "records", domain, zone.why, _RESOLVER)]
    bound = max(1.0, scene.runner.left() - 1)
    found = differences(wanted, scene.inventory.dns, scene.policy.resolvers, bound)
    # Nobody to ask is one fault, not one for each record.
    nobody = Counter(one.found for one in found if not one.server)
    texts = [("", f"{count} records: {why}") for why, count in nobody.items()]
    texts += [(one.server, f"{one.type} of {one.name} {one.found}") for one in found if one.server]
    return names.records(texts, len(wanted), bool(scene.inventory.dns))


def lifetimes(scene: Scene, wanted: Sequence[DnsRecord]) -> list[Finding]:
    """How long others remember what moves, as the authorities say it."""
    from deployer.probes.names import Resolver, Server, ask_authority

    domain, resolver = scene.project.stack.domain, Resolver(scene.policy.resolvers)
    servers = [Server(one, one) for service in scene.inventory.dns for one in service.nameservers]
    if not servers:
        zone = resolver.zone(domain)
        if zone.why:
            return [Finding("dns.ttl", "warn", "TTL of what moves", domain, zone.why, _RESOLVER)]
        servers = [one for name in zone.values for one in resolver.authorities(name)]
    keys = list(dict.fromkeys((record.name, record.type) for record in names.moving(wanted)))
    asked = [(key, in_background(partial(ask_authority, server, *key))) for server in servers for key in keys]
    ttls: dict[tuple[str, str], int] = {}
    for key, future in asked:
        answer = future.result(scene.runner.left())
        if answer.values:
            ttls[key] = max(ttls.get(key, 0), answer.ttl)
    return [names.lifetimes(domain, ttls, bool(scene.inventory.dns))]


def reverse(scene: Scene, address: str, settable: bool) -> list[Finding]:
    """The name of a mail machine's address, and where that name leads."""
    from deployer.probes.names import Resolver

    resolver, name = Resolver(scene.policy.resolvers), layout.mail_host(scene.project)
    pointers = resolver.reverse(address)
    forward = resolver.ask(name, "AAAA" if ":" in address else "A")
    found = mail.reverse(
        address,
        name,
        None if pointers.why else pointers.values,
        None if forward.why else forward.values,
        scene.route,
        settable,
    )
    return [found]


def public_names(
    specs: Mapping[str, Sequence[ComponentSpec]], addresses: frozenset[str]
) -> dict[str, tuple[str, int]]:
    """Names that the public meets by TLS, with address and port, where they lead to one of `addresses`."""
    found: dict[str, tuple[str, int]] = {}
    probes = [probe for listed in specs.values() for spec in listed for probe in spec.probes if probe.outside]
    for probe in probes:
        parts = urlsplit(str(probe.args.get("url", "")))
        address = str(probe.args.get("address", ""))
        if parts.scheme == "https" and parts.hostname and address in addresses:
            found.setdefault(parts.hostname, (address, parts.port or 443))
    return found


def certificate(scene: Scene, host: str, address: str, port: int) -> list[Finding]:
    """How long the certificate of a public name is good."""
    from deployer.probes import explain
    from deployer.probes.certificate import days_left

    try:
        days = days_left(address, port, host, scene.session.trusted_ca(), scene.runner.left(TLS))
    except TimeoutError:
        return [hosts.public_certificate(host, None, f"no answer at {address}")]
    except OSError as error:
        return [hosts.public_certificate(host, None, explain(error))]
    return [hosts.public_certificate(host, days, "")]
