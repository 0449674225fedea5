"""Asks everything that the checks judge: the vendor, DNS, the machines, all at once and each within a bound."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from deployer.components.base import actions as base
from deployer.components.mail_relay import layout, outlook
from deployer.core.component import ComponentSpec, DnsRecord
from deployer.core.errors import DeployError
from deployer.core.finding import Finding
from deployer.core.machine import Machine
from deployer.core.provider import Preparing, ReverseDns
from deployer.flow import provision
from deployer.flow.doctor import hosts, mail, names, project, vendor
from deployer.flow.doctor.runner import Runner, in_background
from deployer.flow.session import Session, unreachable

# Seconds: for the vendor to list machines, for SSH, for a mail machine to look around, for one TLS connection.
LISTING, SSH, OUTLOOK, TLS = 8.0, 4.0, 7.0, 4.0
_RESOLVER = (
    "see to the DNS of this computer (/etc/resolv.conf), or name a resolver: doctor: {resolvers: [ADDRESS]}"
)

# What is looked at on or around machines, for saying that it was not.
_ON_MACHINES = (
    ("machine.clock", "clock"),
    ("machine.disk", "disk"),
    ("tls.own", "own certificates"),
    ("tls.public", "TLS"),
)
_OF_NAMES = (("dns.records", "records"), ("dns.ttl", "TTL of what moves"))
_OF_MAIL = (
    ("mail.port25", "port 25 out"),
    ("mail.reverse", "EHLO = PTR = A"),
    ("mail.blocklist", "blocklists"),
)


class Examination:
    """One run of all checks over an opened project."""

    def __init__(self, session: Session, runner: Runner) -> None:
        self.session, self.runner = session, runner
        self.project, self.provider = session.project, session.provider
        self.inventory, self.policy = session.project.inventory, session.project.inventory.doctor
        self.route = mail.Route(tuple(one.name for one in self.inventory.smarthosts))
        self.specs = session.machine_specs()
        # The connections of all machines, once there are any.
        self._connection: Future[Any]

    def findings(self) -> list[Finding]:
        start, before = self.runner.start, self._skipped
        listing = in_background(self.session.existing)
        start("project", "project folder", self._project)
        start("vendor.ready", "access to the vendor", self._access)
        if self.public:
            start("dns.vendors", "DNS vendors", self._dns_vendors)
            start("dns.registrar", "registrar", self._registrar)
        else:
            reason = "nothing of this inventory is for the world (catch: true, no ACME directory, no dns:)"
            before((("dns.vendors", "DNS vendors"), ("dns.registrar", "registrar")), reason)
        existing = self._existing(listing)
        if existing is not None:
            start("vendor.price", "price", partial(self._prices, existing))
            self._with_machines(existing)
        return self.runner.finish()

    @property
    def public(self) -> bool:
        """The world is meant to reach it by name."""
        return not self.inventory.catch or bool(self.inventory.dns or self.inventory.acme.directories)

    # --- without machines ---

    def _project(self) -> list[Finding]:
        from deployer.flow.secrets import list_secrets
        from deployer.project.bundle import RECOVERY_FILE

        path = self.project.root / RECOVERY_FILE
        return [
            project.operators([one.name for one in self.project.stack.operators]),
            project.recovery(str(path), path.exists()),
            project.exposed(list_secrets(self.session.request)),
        ]

    def _access(self) -> list[Finding]:
        error: DeployError | None = None
        try:
            self.provider.check()
        except DeployError as caught:
            error = caught
        found = vendor.access(self.inventory.provider, error)
        if not error and isinstance(self.provider, Preparing) and (needs := list(self.provider.missing())):
            text = f"deploy up installs: {', '.join(needs)}"
            found.append(Finding("vendor.tools", "ok", "this computer", found=text))
        return found

    def _dns_vendors(self) -> list[Finding]:
        from deployer.probes.names import Resolver

        resolver = Resolver(self.policy.resolvers)
        domain = self.project.stack.domain
        zone = resolver.zone(domain)
        if zone.why:
            return [Finding("dns.vendors", "warn", "DNS vendors", domain, zone.why, _RESOLVER)]
        servers = [one.name for one in resolver.authorities(zone.values[0])] if zone.values else []
        return [names.vendors(zone.values[0] if zone.values else domain, servers, self.inventory.dns)]

    def _registrar(self) -> list[Finding]:
        domain = self.project.stack.domain
        return [names.registrar(domain, self.policy.registrar, self.inventory.provider)]

    def _existing(self, listing: Future[dict[str, Machine]]) -> dict[str, Machine] | None:
        """The machines that the vendor lists; None, with the findings that say so, when it does not answer."""
        what = "list of machines"
        try:
            existing = listing.result(self.runner.left(LISTING))
        except DeployError as error:
            finding = Finding("vendor.machines", "fail", what, self.inventory.provider, error.why, error.next)
        except TimeoutError:
            text = f"no answer within {LISTING:g} s"
            finding = Finding(
                "vendor.machines",
                "fail",
                what,
                self.inventory.provider,
                text,
                "try again; see the vendor's status page",
            )
        else:
            wanted = {spec.name for spec in self.specs}
            return {name: machine for name, machine in existing.items() if name in wanted}
        self.runner.start("vendor.machines", what, lambda: [finding])
        self._skipped(
            (*_ON_MACHINES, *_OF_NAMES, *_OF_MAIL), "the vendor did not say which machines there are"
        )
        return None

    def _prices(self, existing: Mapping[str, Machine]) -> list[Finding]:
        return vendor.prices(self.inventory.provider, self.provider.offers(), self.specs, existing)

    # --- with machines ---

    def _with_machines(self, existing: Mapping[str, Machine]) -> None:
        start = self.runner.start
        players = provision.roles(self.project).get("mail", ())
        mailers = [existing[name] for name in players if name in existing]
        if not existing:
            self._skipped(_ON_MACHINES, "no machine exists yet")
        # Placeholders stand for machines that do not exist: the others' specs name them.
        everyone = {spec.name: existing.get(spec.name, provision.placeholder(spec)) for spec in self.specs}
        specs = self.session.specs(everyone, {})
        up = {name: one for name, one in existing.items() if one.status not in ("stopped", "failed")}
        for name in existing.keys() - up.keys():
            text, next = f"it is {existing[name].status}", "deploy up starts it"
            down = Finding("machine.ssh", "fail", "SSH", name, text, next)
            start(down.id, down.what, lambda down=down: [down])  # type: ignore[misc]
        if up:
            self._connection = self.session.connect(up, SSH)
        for name, machine in up.items():
            start("machine.ssh", f"machine {name}", partial(self._machine, machine, specs[name]))
        for host, (address, port) in _public_names(specs, up).items():
            start("tls.public", f"TLS of {host}", partial(self._tls, host, address, port))
        self._mail(mailers)
        self._names(specs, complete=len(existing) == len(self.specs))

    def _mail(self, mailers: Sequence[Machine]) -> None:
        settable = isinstance(self.provider, ReverseDns)
        if self.inventory.catch:
            self._skipped(_OF_MAIL, "mail stays on the machine (catch: true)")
            return
        if not mailers:
            self._skipped(_OF_MAIL, "the mail machine does not exist yet")
            self.runner.start("vendor.reverse", "reverse names", lambda: [self._may_reverse(settable)])
        for machine in mailers:
            for address in filter(None, (machine.address, machine.address6)):
                self.runner.start(
                    "mail.reverse", f"EHLO = PTR = A of {address}", partial(self._reverse, address, settable)
                )

    def _may_reverse(self, settable: bool) -> Finding:
        id, what, where = "vendor.reverse", "reverse names", self.inventory.provider
        if settable:
            return Finding(id, "ok", what, where, "deploy up sets them")
        text = "the toolkit cannot set them there"
        name = layout.mail_host(self.project)
        next = (
            f"find out how {name} becomes the reverse name of the mail machine's address (panel or support)"
        )
        return Finding(id, "ok" if self.route.smarthosts else "warn", what, where, text, next)

    def _names(self, specs: Mapping[str, Sequence[ComponentSpec]], *, complete: bool) -> None:
        if not self.public:
            self._skipped(_OF_NAMES, "nothing of this inventory is for the world")
        elif not complete:
            self._skipped(_OF_NAMES, "not every machine exists yet, so the records are not known")
        else:
            wanted = sorted(
                {record for listed in specs.values() for spec in listed for record in spec.dns},
                key=lambda record: (record.name, record.type, record.value),
            )
            self.runner.start("dns.records", "records", partial(self._records, wanted))
            self.runner.start("dns.ttl", "TTL of what moves", partial(self._lifetimes, wanted))

    def _machine(self, machine: Machine, specs: Sequence[ComponentSpec]) -> list[Finding]:
        """All that one machine is asked."""
        name, engine = machine.name, self.session.engine
        failure = self._connection.result(self.runner.left())[name]
        if failure:
            raise unreachable(name, failure, SSH)
        found = [Finding("machine.ssh", "ok", "SSH", name, "answers, with the host key that we know")]
        found.append(self._clock(name))
        mailer = any(spec.name == "mail_relay" for spec in specs) and not self.inventory.catch
        addresses = [address for address in (machine.address, machine.address6) if address]
        scripts = {"host": base.status_script()}
        if mailer:
            seconds = min(OUTLOOK, self.runner.left() - 2)
            scripts["outlook"] = outlook.script(self.policy.mail_servers, self._queries(addresses), seconds)
        request = {"components": ["base"], "scripts": scripts, "probes": _vendor_probes(specs)}
        left = self.runner.left()
        answer = engine.ask("observe", bound=left, requests={name: request}, timeout=left)[name]
        if "error" in answer:
            raise DeployError("looking at the machine", answer["error"]["why"], "try again", machine=name)
        status = base.parse_status(answer["scripts"]["host"][1], name)
        found += hosts.disks(name, status.disks)
        if mailer:
            found += self._outlook(name, addresses, outlook.parse(answer["scripts"]["outlook"][1], name))
        if not answer["applied"].get("base"):
            text = "nothing of ours is installed there yet"
            return [*found, Finding("tls.own", "skipped", "own certificates", name, text)]
        found += hosts.certificates(name, status.certificates)
        for kind, prefix in _VENDORS.items():
            answers = {
                key.split(prefix)[1]: (bool(probe["ok"]), str(probe["detail"]))
                for key, probe in answer["probes"].items()
                if prefix in key
            }
            found += hosts.vendors(name, kind, answers)
        return found

    def _clock(self, name: str) -> Finding:
        """The second of two questions counts: the first may wait for the connection."""
        for _ in range(2):
            asked = time.time()
            code, out, _ = self.session.engine.run(name, "date +%s.%N", timeout=self.runner.left(5))
            answered = time.time()
            if code or not out.strip():
                text = "`date` does not answer there"
                return Finding(
                    "machine.clock", "warn", "clock", name, text, "see what is wrong with it: deploy ssh"
                )
        return hosts.clock(name, float(out) - (asked + answered) / 2, (answered - asked) / 2)

    def _queries(self, addresses: Sequence[str]) -> list[str]:
        asked = [mail.query(address, zone) for address, zone in self._listings(addresses)]
        return [*asked, *(mail.control(zone) for zone in self.policy.blocklists)]

    def _listings(self, addresses: Sequence[str]) -> list[tuple[str, str]]:
        return [
            (address, zone)
            for address in addresses
            for zone in self.policy.blocklists
            if not (":" in address and zone in mail.IPV4_ONLY)
        ]

    def _outlook(self, name: str, addresses: Sequence[str], seen: outlook.Outlook) -> list[Finding]:
        tries = [
            (server, *seen.servers.get(server, (False, "no answer"))) for server in self.policy.mail_servers
        ]
        found = [
            mail.port25(name, tries, self.route),
            mail.greeting(name, layout.mail_host(self.project), seen.helo),
        ]
        for address, zone in self._listings(addresses):
            answer, tried = seen.names.get(mail.query(address, zone)), seen.names.get(mail.control(zone))
            found.append(mail.blocklist(address, zone, answer, tried, self.route))
        return found

    def _tls(self, host: str, address: str, port: int) -> list[Finding]:
        from deployer.probes import explain
        from deployer.probes.certificate import days_left

        try:
            days = days_left(address, port, host, self.session.trusted_ca(), self.runner.left(TLS))
        except TimeoutError:
            return [hosts.public_certificate(host, None, f"no answer at {address}")]
        except OSError as error:
            return [hosts.public_certificate(host, None, explain(error))]
        return [hosts.public_certificate(host, days, "")]

    def _reverse(self, address: str, settable: bool) -> list[Finding]:
        from deployer.probes.names import Resolver

        resolver, name = Resolver(self.policy.resolvers), layout.mail_host(self.project)
        pointers = resolver.reverse(address)
        forward = resolver.ask(name, "AAAA" if ":" in address else "A")
        return [
            mail.reverse(
                address,
                name,
                None if pointers.why else pointers.values,
                None if forward.why else forward.values,
                self.route,
                settable,
            )
        ]

    def _records(self, wanted: Sequence[DnsRecord]) -> list[Finding]:
        from deployer.dns.authoritative import differences

        bound = max(1.0, self.runner.left() - 1)
        found = differences(wanted, self.inventory.dns, self.policy.resolvers, bound)
        texts = [(one.server, f"{one.type} of {one.name} {one.found}") for one in found]
        return names.records(texts, len(wanted), bool(self.inventory.dns))

    def _lifetimes(self, wanted: Sequence[DnsRecord]) -> list[Finding]:
        from deployer.probes.names import Resolver, Server, ask_authority

        domain, resolver = self.project.stack.domain, Resolver(self.policy.resolvers)
        named = [Server(one, one) for service in self.inventory.dns for one in service.nameservers]
        zone = resolver.zone(domain)
        if zone.why and not named:
            return [Finding("dns.ttl", "warn", "TTL of what moves", domain, zone.why, _RESOLVER)]
        servers = named or [one for name in zone.values for one in resolver.authorities(name)]
        keys = list(dict.fromkeys((record.name, record.type) for record in names.moving(wanted)))
        asked = {
            (server, key): in_background(partial(ask_authority, server, *key))
            for server in servers
            for key in keys
        }
        ttls: dict[tuple[str, str], int] = {}
        for (_, key), future in asked.items():
            answer = future.result(self.runner.left())
            if answer.values:
                ttls[key] = max(ttls.get(key, 0), answer.ttl)
        return [names.lifetimes(domain, ttls, bool(self.inventory.dns))]

    def _skipped(self, checks: Sequence[tuple[str, str]], why: str) -> None:
        for id, what in checks:
            one = Finding(id, "skipped", what, found=why)
            self.runner.start(id, what, lambda one=one: [one])  # type: ignore[misc]


# The names of probes that ask a vendor, up to the vendor's own name.
_VENDORS = {"smarthost": "mail_relay/mail: smarthost ", "carrier": "sms_gateway/sms carrier "}


def _vendor_probes(specs: Sequence[ComponentSpec]) -> dict[str, list[object]]:
    from deployer.flow.observe import probes_of

    return {key: value for key, value in probes_of(specs).items() if key.startswith(tuple(_VENDORS.values()))}


def _public_names(
    specs: Mapping[str, Sequence[ComponentSpec]], up: Mapping[str, Machine]
) -> dict[str, tuple[str, int]]:
    """Names that the public meets by TLS, with address and port, of machines that run."""
    found: dict[str, tuple[str, int]] = {}
    addresses = {machine.address for machine in up.values()}
    for listed in specs.values():
        for spec in listed:
            for probe in spec.probes:
                parts = urlsplit(str(probe.args.get("url", "")))
                address = str(probe.args.get("address", ""))
                if probe.outside and parts.scheme == "https" and parts.hostname and address in addresses:
                    found.setdefault(parts.hostname, (address, parts.port or 443))
    return found
