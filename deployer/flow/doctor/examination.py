"""Starts every check that makes sense for what exists, all at once; for the others the reason why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from deployer.components.mail_relay import layout
from deployer.core.component import ComponentSpec
from deployer.core.errors import CredentialError, DeployError
from deployer.core.finding import Finding
from deployer.core.machine import Machine
from deployer.core.provider import Keeping, Preparing, Remarking, ReverseDns
from deployer.flow import names, provision, sizes
from deployer.flow.doctor import backups, inside, outside, project, vendor
from deployer.flow.doctor.runner import Runner, in_background
from deployer.flow.doctor.scene import Scene
from deployer.flow.session import Session

# Seconds for the vendor to say which machines there are.
LISTING = 8.0

Skipped = Sequence[tuple[str, str]]
_ON_MACHINES: Skipped = (
    ("machine.clock", "clock"),
    ("machine.disk", "disk"),
    ("tls.own", "own certificates"),
    ("tls.public", "TLS"),
)
_VENDORS: Skipped = (("dns.vendors", "DNS vendors"), ("dns.registrar", "registrar"))
_RECORDS: Skipped = (("dns.records", "records"), ("dns.ttl", "TTL of what moves"))
_MAIL: Skipped = (
    ("mail.port25", "port 25 out"),
    ("mail.reverse", "EHLO = PTR = A"),
    ("mail.blocklist", "blocklists"),
)
_PRIVATE = "nothing of this inventory is for the world (catch: true, no ACME directory, no dns:)"


class Examination:
    """One run of all checks over an opened project."""

    def __init__(self, session: Session, runner: Runner) -> None:
        self.session, self.runner, self.scene = session, runner, Scene(session, runner)
        self.project, self.provider = session.project, session.provider
        self.vendor = session.project.inventory.provider
        self.specs = session.machine_specs()

    def findings(self) -> list[Finding]:
        """Begin everything, wait for all of it. Never raises for what a vendor, a machine or DNS answers."""
        listing = in_background(self.session.existing)
        self.runner.start("project", "project folder", self._project)
        self.runner.start("vendor.ready", "access to the vendor", self._access)
        if self.scene.public:
            self.runner.start("dns.vendors", "DNS vendors", partial(outside.dns_vendors, self.scene))
            self.runner.start("dns.registrar", "registrar", partial(outside.registrar, self.scene))
        else:
            self._skip(_VENDORS, _PRIVATE)
        self._backups()
        existing = self._existing(listing)
        if existing is not None:
            self.runner.start("vendor.price", "price", partial(self._prices, existing))
            self._with_machines(existing)
        return self.runner.finish()

    def of_vendor(self) -> list[Finding]:
        """Only whether it lets us in, and what the machines cost; with what else was started in this runner."""
        self.runner.start("vendor.ready", "access to the vendor", self._access)
        self.runner.start("vendor.price", "price", lambda: self._prices(self.session.existing()))
        return self.runner.finish()

    def _project(self) -> list[Finding]:
        from deployer.flow.secrets import list_secrets
        from deployer.project.bundle import RECOVERY_FILE

        path = self.project.root / RECOVERY_FILE
        return [
            project.operators([one.name for one in self.project.stack.operators]),
            project.recovery(str(path), path.exists()),
            project.exposed(list_secrets(self.session.request)),
        ]

    def _backups(self) -> None:
        listed = self.project.inventory.repositories
        self._say(backups.vendors(listed, self.vendor, public=self.scene.public))
        for one in listed:
            check = partial(backups.repository, self.scene, one)
            self.runner.start("backups.repository", f"repository {one.name}", check)

    def _access(self) -> list[Finding]:
        error: DeployError | None = None
        try:
            self.provider.check()
        except DeployError as caught:
            error = caught
        remarks = self.provider.remarks if isinstance(self.provider, Remarking) and not error else ()
        found = vendor.access(self.vendor, error, remarks)
        if not error and isinstance(self.provider, Preparing) and (needs := list(self.provider.missing())):
            text = f"deploy up installs: {', '.join(needs)}"
            found.append(Finding("vendor.tools", "ok", "this computer", found=text))
        return found

    def _existing(self, listing: Future[dict[str, Machine]]) -> dict[str, Machine] | None:
        """The wanted machines that exist; None, and a finding that says so, when the vendor does not tell."""
        what = "list of machines"
        try:
            existing = listing.result(self.runner.left(LISTING))
        except CredentialError:
            # Told already, as the credentials' own finding.
            found = Finding("vendor.machines", "skipped", what, self.vendor, "not known: credentials failed")
        except DeployError as error:
            found = Finding("vendor.machines", "fail", what, self.vendor, error.why, error.next)
        except TimeoutError:
            next = "run it again; see the vendor's status page"
            why = f"no answer within {LISTING:g} s"
            found = Finding("vendor.machines", "fail", what, self.vendor, why, next)
        else:
            wanted = {spec.name for spec in self.specs}
            return {name: machine for name, machine in existing.items() if name in wanted}
        self._say(found)
        unknown = (("vendor.price", "price"), *_ON_MACHINES, *_RECORDS, *_MAIL)
        self._skip(unknown, "the vendor does not say which machines there are")
        return None

    def _prices(self, existing: Mapping[str, Machine]) -> list[Finding]:
        keeping = isinstance(self.provider, Keeping)
        volumes = partial(sizes.volume_price, self.provider) if keeping else None
        return vendor.prices(self.vendor, self.provider.offers(), self.specs, existing, volumes)

    def _with_machines(self, existing: Mapping[str, Machine]) -> None:
        # Placeholders stand for machines that do not exist: the others' specs name them.
        everyone = {spec.name: existing.get(spec.name, provision.placeholder(spec)) for spec in self.specs}
        specs = self.session.specs(everyone, {})
        if not existing:
            self._skip(_ON_MACHINES, "no machine exists yet")
        up = {name: one for name, one in existing.items() if one.status not in ("stopped", "failed")}
        for name in existing.keys() - up.keys():
            text = f"it is {existing[name].status}"
            self._say(Finding("machine.ssh", "fail", "SSH", name, text, "deploy up starts it"))
        if up:
            connection = self.session.connect(up, inside.SSH)
            for name, machine in up.items():
                check = partial(inside.machine, self.scene, connection, machine, specs[name])
                self.runner.start("machine.ssh", f"machine {name}", check)
        addresses = frozenset(machine.address for machine in up.values())
        for host, (address, port) in outside.public_names(specs, addresses).items():
            check = partial(outside.certificate, self.scene, host, address, port)
            self.runner.start("tls.public", f"TLS of {host}", check)
        self._mail(existing)
        self._records(specs, complete=len(existing) == len(self.specs))

    def _mail(self, existing: Mapping[str, Machine]) -> None:
        """What is asked from here about mail; the machine itself looks at port 25 and the blocklists."""
        if self.scene.inventory.catch:
            self._skip(_MAIL, "mail stays on the machine (catch: true)")
            return
        settable = isinstance(self.provider, ReverseDns)
        players = provision.roles(self.project).get("mail", ())
        mailers = [existing[name] for name in players if name in existing]
        if not mailers:
            self._skip(_MAIL, "the mail machine does not exist yet")
            self._say(
                vendor.reverse(
                    self.vendor, layout.mail_host(self.project), settable, bool(self.scene.route.smarthosts)
                )
            )
        for machine in mailers:
            for address in filter(None, (machine.address, machine.address6)):
                check = partial(outside.reverse, self.scene, address, settable)
                self.runner.start("mail.reverse", f"EHLO = PTR = A of {address}", check)

    def _records(self, specs: Mapping[str, Sequence[ComponentSpec]], *, complete: bool) -> None:
        if not self.scene.public:
            self._skip(_RECORDS, _PRIVATE)
            return
        if not complete:
            self._skip(_RECORDS, "not every machine exists yet, so the records are not known")
            return
        wanted = names.records(specs.values())
        self.runner.start("dns.records", "records", partial(outside.records, self.scene, wanted))
        self.runner.start("dns.ttl", "TTL of what moves", partial(outside.lifetimes, self.scene, wanted))

    def _skip(self, checks: Skipped, why: str) -> None:
        for id, what in checks:
            self._say(Finding(id, "skipped", what, found=why))

    def _say(self, finding: Finding) -> None:
        self.runner.start(finding.id, finding.what, lambda: [finding])
