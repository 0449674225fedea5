"""What a component is: data first. A spec needs no host and is tested by comparing values.

A component's folder holds `spec.py` (this data), `actions.py` (commands that a flow sends by `run`) and
`operations.py` (pyinfra operations that carry out its steps; imported by the engine only).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, Protocol

from deployer.core.machine import Facts, Machine
from deployer.core.model import Project

# Where Debian's clusters lie.
POSTGRES = "/var/lib/postgresql"

# What a unit of the component does when the file changes.
OnChange = Literal["restart", "reload", "none"]


@dataclass(frozen=True)
class File:
    """A managed file. Either `template` (below templates/) with `values`, or `content` as it stands.

    early:  written before the packages are installed (apt settings, createcluster.conf)
    secret: masked in plans and events; the mode must keep others out
    keep:   stays where it is when it is no longer wanted: without it nobody gets in
    """

    path: str
    template: str = ""
    values: Mapping[str, object] = field(default_factory=dict, repr=False)
    content: str = field(default="", repr=False)
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    secret: bool = False
    early: bool = False
    keep: bool = False
    on_change: OnChange = "restart"


@dataclass(frozen=True)
class Directory:
    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class User:
    """A system user without log-in. groups: supplementary groups, which must exist."""

    name: str
    home: str = "/nonexistent"
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """A systemd unit that shall be enabled and active.

    reload:   it can reload (else a change of a "reload" file restarts it)
    resident: it stays active; False for what a timer starts, which is only installed
    wanted:   False for a unit that must be stopped and disabled (what a package starts and we do not use)
    managed_by_step: the flow enables it and sees that it is active, but never starts or restarts it:
              a step of stage "activate" does (an app's switch, which knows when the old one must go first)
    """

    name: str
    reload: bool = False
    resident: bool = True
    wanted: bool = True
    managed_by_step: bool = False


@dataclass(frozen=True)
class Port:
    """A port to open. sources: "world", "stack" (every machine of the stack) or a role's name."""

    number: int
    protocol: Literal["tcp", "udp"] = "tcp"
    sources: tuple[str, ...] = ("world",)
    why: str = ""


@dataclass(frozen=True)
class Step:
    """Work that is neither package, file nor unit, such as "the database exists".

    check:     bash script; exit 0 means already done. Runs (through standard input) in the observe script.
    operation: name of a pyinfra operation in the component's operations.py
    args:      its arguments; a step whose arguments changed runs again. May hold secrets.
    stage:     "build" runs beside the installation of all packages, after the packages in `needs`, the early files and
               the users without supplementary groups are there: for what takes long and needs little;
               "configure" runs after all files are written and before any unit starts;
               "activate" runs after the component's units were started.
    timeout:   seconds the operation may take
    progress:  bash script for a step that waits: run now and then meanwhile, the last line that it prints is shown
    """

    name: str
    operation: str
    check: str = "true"
    args: Mapping[str, object] = field(default_factory=dict, repr=False)
    stage: Literal["build", "configure", "activate"] = "activate"
    timeout: int = 600
    needs: tuple[str, ...] = ()
    progress: str = ""


@dataclass(frozen=True)
class Probe:
    """Something that must answer, within `timeout` seconds.

    kind "script":  args script (bash, standard input, on the machine; exit 0 is green, its last line is shown)
    kind "https":   args url, address, expect (text in the answer), status (default 200; "<500": any below); from outside
    kind "smtp":    args address, port, hostname, recipient; up to RCPT; from outside
    kind "sms_api": args url, address, user, password; from outside
    degrades:       red makes the deployment degraded, not failed
    unit:           whose last journal lines explain a red probe
    """

    name: str
    kind: Literal["script", "https", "smtp", "sms_api"]
    args: Mapping[str, object] = field(default_factory=dict, repr=False)
    timeout: float = 2.0
    degrades: bool = False
    unit: str = ""

    @property
    def outside(self) -> bool:
        return self.kind != "script"


@dataclass(frozen=True)
class DnsRecord:
    """A record that the deployment wants. name: fully qualified, without the last dot."""

    name: str
    type: str
    value: str
    ttl: int = 60


@dataclass(frozen=True)
class Data:
    """Something that a backup must hold. where: a path, or a database's name for kind "postgres".

    within: a folder around it that is put on the data volume as a whole, such as the home of the program's user.
    """

    name: str
    kind: Literal["postgres", "files", "sqlite", "sqlite_folder", "valkey"]
    where: str
    within: str = ""

    @property
    def folder(self) -> str:
        """The folder that lies on the machine's data volume, where it has one."""
        if self.kind == "postgres":
            return self.within or POSTGRES
        return self.within or (str(PurePosixPath(self.where).parent) if self.kind == "sqlite" else self.where)


@dataclass(frozen=True)
class Mount:
    """A folder of the machine (where) that lies on its data volume (what). unit: of systemd, which mounts it."""

    where: str
    what: str
    unit: str


@dataclass(frozen=True)
class Secret:
    """A secret that the bundle must hold; made once by pki/ when it is missing.

    kind: "password" (32 url-safe characters), "hex" (64 hex digits), "rsa" (PKCS8 PEM, 2048 bit),
          "ssh" (OpenSSH ed25519 private key), "ed25519_seed" (unpadded base64 of 32 bytes),
          "vapid" (a key of RFC 8292: private and public half in unpadded URL-safe base64, a blank between them),
          "ca" / "issuer" (PEM key followed by PEM certificate), "given" (set by the operator only)
    lasting: data or identities are bound to it, so that another one in its place would lose them.
    """

    name: str
    kind: str = "password"
    lasting: bool = False


@dataclass(frozen=True)
class ComponentSpec:
    """All that one component wants on one machine."""

    name: str
    packages: tuple[str, ...] = ()
    users: tuple[User, ...] = ()
    directories: tuple[Directory, ...] = ()
    files: tuple[File, ...] = ()
    units: tuple[Unit, ...] = ()
    ports: tuple[Port, ...] = ()
    steps: tuple[Step, ...] = ()
    probes: tuple[Probe, ...] = ()
    dns: tuple[DnsRecord, ...] = ()
    data: tuple[Data, ...] = ()
    # Folders on the data volume; base names them for all. They are mounted before any package is installed.
    mounts: tuple[Mount, ...] = ()
    # Why the deployment is degraded, in words for the operator ("no SMS carrier: messages wait in the spool").
    warnings: tuple[str, ...] = ()
    # Changes of these restart the component like a changed file does (a release, a certificate).
    fingerprints: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Context:
    """What a component may know when it says what it wants on `machine`."""

    project: Project
    machine: Machine
    # All machines of the deployment by name, and who plays which role.
    machines: Mapping[str, Machine]
    roles: Mapping[str, tuple[str, ...]]
    secrets: Mapping[str, str] = field(repr=False)
    facts: Facts = field(default_factory=Facts)

    def plays(self, role: str) -> bool:
        return self.machine.name in self.roles.get(role, ())

    def player(self, role: str) -> Machine:
        """The first machine that plays the role (the only one, for all roles of step 1)."""
        return self.machines[self.roles[role][0]]

    def fqdn(self, machine: Machine) -> str:
        return f"{machine.name}.{self.project.stack.domain}"

    def address_of(self, role: str) -> str:
        """Name to reach the role by from this machine: "localhost", or a name in /etc/hosts that the
        other machine's certificate names."""
        return "localhost" if self.plays(role) else self.fqdn(self.player(role))

    def secret(self, name: str) -> str:
        return self.secrets[name]


class Component(Protocol):
    """A module `deployer.components.NAME.spec` offers these two functions."""

    @staticmethod
    def secrets(project: Project) -> Sequence[Secret]: ...

    @staticmethod
    def spec(ctx: Context) -> ComponentSpec: ...
