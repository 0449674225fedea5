"""What the project's files say, after checking: the stack and the inventory; the app's manifest is in core/manifest.py.

Made by project/ from YAML; frozen, complete, with defaults filled in. Values that came from the environment
are in fields that do not show in a repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deployer.core.machine import Deployment, Size
from deployer.core.manifest import Manifest


@dataclass(frozen=True)
class Operator:
    """A person who may change the stack. age: an age recipient, or an SSH public key that age accepts."""

    name: str
    ssh_key: str
    age: str


@dataclass(frozen=True)
class MailPolicy:
    """sender: address of the app's mail; postmaster: where bounces and postmaster's mail go ("" = a local mailbox)."""

    sender: str
    postmaster: str = ""
    dkim_selector: str = "deploy1"
    # bytes
    message_size: int = 25 << 20
    # RFC 8461: what other servers shall do when they meet no good certificate on our port 25.
    mta_sts: Literal["none", "testing", "enforce"] = "testing"


@dataclass(frozen=True)
class SmsPolicy:
    """Bounds against SMS pumping. countries: ISO codes; empty means every country.

    The caps count messages a day (UTC); prefix_digits says how many digits make a prefix.
    """

    sender: str = ""
    countries: tuple[str, ...] = ()
    per_number: int = 10
    per_prefix: int = 100
    per_day: int = 1000
    prefix_digits: int = 7
    callback_hosts: tuple[str, ...] = ()
    # days that delivery reports are kept
    keep_reports: int = 30
    # The app's URL for inbound messages, called as Twilio would; its host must be in callback_hosts.
    inbound_url: str = ""


@dataclass(frozen=True)
class BackupPolicy:
    """When backups are made, how long they are kept, who hears of one that failed.

    full, differential: days between two of them in one repository. files: minutes between two snapshots.
    keep_full: full backups that `backup prune` keeps, with all that is needed to restore from them on.
    keep_files: days that it keeps snapshots of files. wal_bound: GiB that WAL may take on the database's disk while
    repositories do not answer; at half of it they leave the archiving. late: minutes without a good backup of files,
    or of WAL that can be read back, after which it counts as late. pings: URLs of dead-man services outside, asked
    while all is well. mail, sms: who hears of it besides, by the stack's own relay and gateway.
    """

    full: int = 7
    differential: int = 1
    files: int = 5
    keep_full: int = 4
    keep_files: int = 30
    wal_bound: int = 4
    late: int = 15
    pings: tuple[str, ...] = ()
    mail: tuple[str, ...] = ()
    sms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stack:
    name: str
    domain: str
    app: str
    operators: tuple[Operator, ...]
    mail: MailPolicy
    sms: SmsPolicy
    # Size wished for each role; complete when it comes from project/.
    sizes: Mapping[str, Size] = field(default_factory=dict)
    # Settings that the app's manifest offers, such as {"registration": "open"}.
    settings: Mapping[str, object] = field(default_factory=dict)
    # Local time window in which upgrades may restart services: "HH:MM".
    upgrade_window: str = "04:00"
    timezone: str = "Etc/UTC"
    backup: BackupPolicy = BackupPolicy()


@dataclass(frozen=True)
class MachineEntry:
    """One line of `machines:`. options is what the provider alone understands (address, type, host_key ...)."""

    name: str
    roles: tuple[str, ...]
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Smarthost:
    """A mail vendor. spf: what the vendor wants in our SPF record, such as "include:spf.example.net"."""

    name: str
    host: str
    port: int = 587
    user: str = ""
    password: str = field(default="", repr=False)
    spf: str = ""


@dataclass(frozen=True)
class Carrier:
    """An SMPP account. tls: SMPP over TLS. sender overrides the stack's."""

    name: str
    host: str
    port: int
    system_id: str
    password: str = field(repr=False)
    tls: bool = False
    system_type: str = ""
    sender: str = ""
    # Kannel's msg-id-type: how the carrier writes ids (0x00 same, 0x01 hex in the response, 0x02 hex in reports, ...)
    msg_id_type: int = 0


@dataclass(frozen=True)
class Acme:
    """Directories to get certificates from, in order of preference. Empty: our own CA signs."""

    directories: tuple[str, ...] = ()
    email: str = ""
    # PEM text of a CA that the directory itself is signed by (tests, a private CA).
    trusted_ca: str = ""


@dataclass(frozen=True)
class Repository:
    """One vendor's place for backups; everything in it is encrypted by us.

    kind "s3": endpoint (https URL), region, bucket; prefix: folder in it, "" for its top. key, secret: what the
    machines use, which should be able to add and read but not to delete (docs/backups.md). prune_key, prune_secret:
    what `backup prune` uses, which never reaches a machine of the stack. trusted_ca: PEM of a CA that signs it.
    kind "path": path, a folder (of another disk, a mounted share) on every machine that holds data.
    vendor: the company behind it; two repositories of one company count as one for `doctor`. "" is the endpoint's
    domain, or the path.
    """

    name: str
    kind: Literal["s3", "path"]
    endpoint: str = ""
    region: str = "us-east-1"
    bucket: str = ""
    prefix: str = ""
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    prune_key: str = field(default="", repr=False)
    prune_secret: str = field(default="", repr=False)
    trusted_ca: str = field(default="", repr=False)
    path: str = ""
    vendor: str = ""


@dataclass(frozen=True)
class DnsService:
    """A vendor that serves a zone of the stack's names. Two for one zone get the same records.

    provider: "hetzner", "route53", "rfc2136", or the class path of an octoDNS provider; options: its own keys.
    zone: "" is the longest zone of the vendor that the stack's domain lies in.
    nameservers: addresses to ask instead of those that the zone is delegated to ("address" or "address:port").
    limit: percent of our own records that one `up` may delete.
    """

    provider: str
    zone: str = ""
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    nameservers: tuple[str, ...] = ()
    limit: int = 30


@dataclass(frozen=True)
class DoctorPolicy:
    """What `deploy doctor` asks.

    resolvers: addresses of DNS resolvers to ask from here instead of this computer's own.
    mail_servers: whose port 25 is tried from the mail machine. blocklists: DNS zones (RFC 5782) that it asks.
    registrar: where the domain is registered, which nothing else knows.
    """

    resolvers: tuple[str, ...] = ()
    # Of vendors who have little to do with one another; resolved on the machine.
    mail_servers: tuple[str, ...] = (
        "gmail-smtp-in.l.google.com",
        "outlook-com.olc.protection.outlook.com",
        "mx01.mail.icloud.com",
        "mx00.gmx.net",
    )
    blocklists: tuple[str, ...] = ("zen.spamhaus.org", "bl.spamcop.net")
    registrar: str = ""


@dataclass(frozen=True)
class Inventory:
    name: str
    provider: str
    machines: tuple[MachineEntry, ...]
    # What the provider alone understands (region, bridge ...): the section of its own name.
    options: Mapping[str, object] = field(default_factory=dict)
    # Mail and SMS land in a store on the machine instead of leaving.
    catch: bool = False
    acme: Acme = Acme()
    smarthosts: tuple[Smarthost, ...] = ()
    carriers: tuple[Carrier, ...] = ()
    # Who serves the stack's names; () leaves the records to the operator.
    dns: tuple[DnsService, ...] = ()
    doctor: DoctorPolicy = DoctorPolicy()
    # Where backups go; () makes none.
    repositories: tuple[Repository, ...] = ()
    # A copy that is looked at and thrown away: it is never live, and nothing guards it.
    drill: bool = False


@dataclass(frozen=True)
class Project:
    """Everything that was read from one project folder for one inventory."""

    root: Path
    stack: Stack
    inventory: Inventory
    app: Manifest

    @property
    def deployment(self) -> Deployment:
        return Deployment(self.stack.name, self.inventory.name)

    @property
    def state_dir(self) -> Path:
        """A cache on the operator's computer that may be lost."""
        return self.root / ".deploy" / self.inventory.name
