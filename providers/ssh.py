"""Provider `ssh`: machines that exist already, such as bare metal. The inventory names them.

There is no vendor to ask, so the inventory is the truth about which machines there are. "Creating" one means
to see that it answers as the machine we mean; "deleting" one does nothing. A machine is listed once its whole
host key is known: from the inventory, or from the file `adopted`, into which create_machine writes the key
that it found behind a fingerprint, or believed with `trust_first`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from deployer.core.errors import InputError, UnreachableError
from deployer.core.machine import Deployment, Machine, MachineSpec
from deployer.core.provider import Offer

# ssh_key: file of the operator's key for the first log-in, read by the flow.
OPTIONS = ("ssh_key",)
MACHINE_OPTIONS = ("address", "address6", "private_address", "user", "port", "host_key")
# What the flow tells besides: every machine's entry, whether to believe an unknown host key, and
# the file that remembers the keys of adopted machines.
FROM_FLOW = ("machines", "trust_first", "adopted")

# Seconds for the connection, and for the exchange of keys after it.
TIMEOUT = 5
# Kinds of host keys, the preferred one first.
KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")


@dataclass(frozen=True)
class Entry:
    """A machine as the inventory names it. host_key: "", a public key, or "SHA256:..."."""

    name: str
    address: str
    address6: str = ""
    private_address: str = ""
    user: str = "root"
    port: int = 22
    host_key: str = ""

    @property
    def whole_key(self) -> str:
        return "" if self.host_key.startswith("SHA256:") else self.host_key


def make(options: Mapping[str, object], deployment: Deployment) -> SshProvider:
    """Raises InputError for options that it does not understand."""
    unknown = sorted(set(options) - set(OPTIONS) - set(FROM_FLOW))
    if unknown:
        raise _bad(unknown[0], f"the provider ssh does not know it (it knows {', '.join(OPTIONS)})")
    machines = options.get("machines", ())
    if not isinstance(machines, list | tuple):
        raise _bad("machines", "expected a list")
    adopted = options.get("adopted", "")
    return SshProvider(
        [parse(entry) for entry in machines],
        deployment,
        trust_first=options.get("trust_first") is True,
        adopted=Path(str(adopted)) if adopted else None,
    )


class SshProvider:
    """Machines named by the inventory; see deployer.core.provider for what each method promises."""

    name = "ssh"

    def __init__(
        self,
        entries: Sequence[Entry],
        deployment: Deployment,
        *,
        trust_first: bool = False,
        adopted: Path | None = None,
    ) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._deployment = deployment
        self._trust_first = trust_first
        self._adopted = adopted

    def check(self) -> None:
        """Nothing to ask for: there is no vendor, no quota and no region."""

    def list_machines(self, deployment: Deployment) -> Sequence[Machine]:
        """The inventory's machines whose whole host key is known; whether they answer, SSH will tell."""
        if deployment != self._deployment:
            return []
        known = {name: self._known_key(entry) for name, entry in self._entries.items()}
        return [self._machine(self._entries[name], key) for name, key in known.items() if key]

    def create_machine(self, deployment: Deployment, spec: MachineSpec) -> Machine:
        """See that the machine answers with the host key that the inventory names, and remember it.

        Raises UnreachableError when it does not.
        """
        entry = self._entries.get(spec.name) or parse({"name": spec.name, **spec.options})
        # The inventory goes first: its writer may have seen the console since the key was remembered.
        wanted = entry.host_key or self._remembered().get(entry.name, "")
        found = read_host_key(entry, kind=wanted.split()[0] if " " in wanted else "", wanted=wanted)
        if not wanted and not self._trust_first:
            raise UnreachableError(
                "looking at the host key",
                f"the inventory does not say which one is right; {entry.address} shows {fingerprint(found)}",
                "compare it on the machine's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and "
                "write it into the inventory as host_key, or say --trust-first once",
                machine=entry.name,
            )
        if wanted and not matches(found, wanted):
            raise wrong_key(entry, found, wanted)
        if not entry.whole_key:
            self._remember(entry.name, found)
        return self._machine(entry, found)

    def delete_machine(self, machine: Machine) -> None:
        """Does nothing: the machine is not ours to delete, and what runs on it is stopped by the flow."""

    def offers(self) -> Sequence[Offer]:
        """None: it has no machines to give."""
        return []

    def _machine(self, entry: Entry, key: str) -> Machine:
        return Machine(
            name=entry.name,
            id=f"{entry.address}:{entry.port}",
            status="running",
            address=entry.address,
            address6=entry.address6,
            private_address=entry.private_address,
            ssh_port=entry.port,
            ssh_user=entry.user,
            host_key_public=key,
            labels=self._deployment.labels(),
            ours=False,
        )

    # --- keys that were found, one line "NAME KIND BASE64" a machine ---

    def _known_key(self, entry: Entry) -> str:
        """The whole key, where it is known and not contradicted by the inventory; else ""."""
        key = entry.whole_key or self._remembered().get(entry.name, "")
        return key if not entry.host_key or matches(key, entry.host_key) else ""

    def _remembered(self) -> dict[str, str]:
        if self._adopted is None or not self._adopted.exists():
            return {}
        lines = self._adopted.read_text(encoding="utf-8").splitlines()
        fields = [line.split() for line in lines if not line.startswith("#")]
        return {parts[0]: f"{parts[1]} {parts[2]}" for parts in fields if len(parts) >= 3}

    def _remember(self, name: str, key: str) -> None:
        if self._adopted is None:
            return
        keys = {**self._remembered(), name: key}
        self._adopted.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._adopted.with_name(f".{self._adopted.name}.new")
        head = "# Host keys of machines that were adopted; a line that is wrong may be removed.\n"
        text = head + "".join(f"{machine} {line}\n" for machine, line in sorted(keys.items()))
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._adopted)


def parse(options: object) -> Entry:
    """Check one machine's entry. Raises InputError naming the key."""
    if not isinstance(options, Mapping):
        raise _bad("machines", f"expected a machine's keys, found {options!r}")
    name = str(options.get("name", ""))
    values = {key: options[key] for key in MACHINE_OPTIONS if key in options}
    for key, value in values.items():
        if not isinstance(value, int if key == "port" else str) or isinstance(value, bool):
            raise _bad(key, f"expected a {'number' if key == 'port' else 'text'}, found {value!r}", name)
    if "address" not in values:
        raise _bad("address", "is missing: the machine exists, and its address says where", name)
    entry = Entry(name, **values)
    _check(entry)
    return entry


def _check(entry: Entry) -> None:
    for key, value, kind in (
        ("address", entry.address, IPv4Address),
        ("address6", entry.address6, IPv6Address),
        ("private_address", entry.private_address, IPv4Address),
    ):
        try:
            if value:
                kind(value)
        except ValueError as error:
            raise _bad(key, str(error), entry.name) from error
    if not 0 < entry.port < 1 << 16:
        raise _bad("port", f"{entry.port} is not between 1 and 65535", entry.name)
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", entry.user):
        raise _bad("user", f"{entry.user!r} is no name of a user", entry.name)
    if entry.host_key.startswith("SHA256:"):
        good = bool(re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}=?", entry.host_key))
    else:
        good = not entry.host_key or bool(_blob(entry.host_key))
    if not good:
        raise _bad(
            "host_key", 'expected a line "ssh-ed25519 AAAA..." or a fingerprint "SHA256:..."', entry.name
        )


def read_host_key(entry: Entry, *, kind: str = "", wanted: str = "") -> str:
    """The public key that the machine shows, as "KIND BASE64". Nothing is logged in.

    kind: the only kind to ask for, "" for any. wanted: key or fingerprint; each kind is tried until one
    matches. Raises UnreachableError.
    """
    found = ""
    for algorithm in (kind,) if kind else KINDS:
        shown = _exchange(entry, "rsa-sha2-512" if algorithm == "ssh-rsa" else algorithm)
        if shown and (not wanted or matches(shown, wanted)):
            return shown
        found = found or shown
    if not found:
        raise UnreachableError(
            "reading the host key",
            f"{entry.address} port {entry.port} has none of the kind {kind or ', '.join(KINDS)}",
            "write the key that the machine has into the inventory as host_key",
            machine=entry.name,
        )
    return found


def _exchange(entry: Entry, algorithm: str) -> str:
    """Exchange keys with the machine, asking for one kind of host key; "" when it has none of it."""
    import logging

    import paramiko

    # What fails is raised, in words; paramiko would print its traceback besides.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    try:
        connection = socket.create_connection((entry.address, entry.port), timeout=TIMEOUT)
    except OSError as error:
        raise UnreachableError(
            "connecting",
            f"{entry.address} port {entry.port}: {error.strerror or error} (after at most {TIMEOUT} s)",
            "see that the machine is on, that sshd runs, and that the inventory has its address and port",
            machine=entry.name,
        ) from error
    transport = paramiko.Transport(connection)
    try:
        transport.banner_timeout = TIMEOUT
        transport.get_security_options().key_types = (algorithm,)
        transport.start_client(timeout=TIMEOUT)
        key = transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"
    except paramiko.ssh_exception.IncompatiblePeer:
        return ""
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise UnreachableError(
            "reading the host key",
            f"{entry.address} port {entry.port} does not speak SSH as expected: {error}",
            "see with `ssh -v` what answers there",
            machine=entry.name,
        ) from error
    finally:
        transport.close()


def fingerprint(key: str) -> str:
    """As `ssh-keygen -l` shows it: SHA256 and base64 without padding."""
    digest = hashlib.sha256(_blob(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def matches(key: str, wanted: str) -> bool:
    """Whether a public key is the wanted one, which is a public key or a fingerprint."""
    if not key:
        return False
    return fingerprint(key) == (wanted.rstrip("=") if wanted.startswith("SHA256:") else fingerprint(wanted))


def wrong_key(entry: Entry, found: str, wanted: str) -> UnreachableError:
    expected = wanted if wanted.startswith("SHA256:") else fingerprint(wanted)
    return UnreachableError(
        "looking at the host key",
        f"{entry.address} shows {fingerprint(found)}, expected is {expected}",
        "somebody may stand between you and the machine. If it was installed anew, compare the key on its "
        "console and correct host_key in the inventory",
        machine=entry.name,
    )


def _blob(key: str) -> bytes:
    """The key itself out of a line "KIND BASE64 [COMMENT]"; empty when it is none."""
    fields = key.split()
    try:
        blob = base64.b64decode(fields[1], validate=True)
    except (IndexError, binascii.Error):
        return b""
    # RFC 4253, 6.6: the key begins with its kind, as a string with its length before it.
    kind = fields[0].encode()
    return blob if blob.startswith(len(kind).to_bytes(4, "big") + kind) else b""


def _bad(key: str, why: str, machine: str = "") -> InputError:
    what = "reading the options of provider ssh"
    return InputError(what, f"{key}: {why}", "correct it in the inventory", machine=machine or None)
