"""What is written into a machine's disk before its first boot, in the place of cloud-init."""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from deployer.core.errors import DeployError
from deployer.core.machine import MachineSpec
from providers.local.host import run
from providers.local.records import Record
from providers.local.settings import Settings

RESOLV = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"


def files(record: Record, spec: MachineSpec, settings: Settings, resolv: str) -> dict[str, tuple[str, int]]:
    """Path below the machine's root -> content and mode. resolv: text of its resolv.conf."""
    keys = "".join(f"{key.strip()}\n" for key in spec.ssh_keys)
    return {
        "etc/hostname": (f"{record.name}\n", 0o644),
        "etc/hosts": (f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {record.name}\n", 0o644),
        "etc/resolv.conf": (resolv, 0o644),
        "etc/systemd/network/10-host0.network": (network_file(record, settings), 0o644),
        "root/.ssh/authorized_keys": (keys, 0o600),
        # The packages of sshd make keys of other kinds when the configuration names none.
        "etc/ssh/sshd_config.d/10-deploy-host-key.conf": (f"HostKey /{HOST_KEY}\n", 0o644),
    }


def network_file(record: Record, settings: Settings) -> str:
    """Static addresses. No IPv6 gateway: outside is reached by IPv4, and "unreachable" is known at once."""
    lines = [
        "[Match]",
        "Name=host0",
        "[Link]",
        # One for each address: the next machine that gets the address is not looked for at the last one's.
        f"MACAddress={hardware(record.address)}",
        "[Network]",
        "DHCP=no",
        "IPv6AcceptRA=no",
        f"Gateway={settings.gateway}",
        "[Address]",
        f"Address={record.address}/{settings.subnet.prefixlen}",
    ]
    if record.address6:
        # We gave the addresses out; looking for duplicates would only keep services from binding at first.
        lines += ["[Address]", f"Address={record.address6}/64", "DuplicateAddressDetection=none"]
    return "\n".join(lines) + "\n"


def hardware(address: str) -> str:
    """02: locally administered (IEEE 802)."""
    return ":".join(f"{byte:02x}" for byte in (2, 0, *ip_address(address).packed))


def write(root: Path, record: Record, spec: MachineSpec, settings: Settings) -> str:
    """Write all of it into the mounted disk; gives the public half of the host key."""
    for name, (content, mode) in files(record, spec, settings, resolv_conf(settings)).items():
        _put(root / name, content, mode)
    (root / "root/.ssh").chmod(0o700)
    key = root / HOST_KEY
    if spec.host_key:
        _put(key, spec.host_key.rstrip("\n") + "\n", 0o600)
    elif not key.exists():
        what = "making the host key"
        run(
            what,
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)],
            machine=record.name,
        )
    public = run("reading the host key", ["ssh-keygen", "-y", "-f", str(key)], machine=record.name).strip()
    _put(key.with_name(f"{key.name}.pub"), public + "\n", 0o644)
    return " ".join(public.split()[:2])


def _put(path: Path, content: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A link would lead out of the machine; and a new file never shows a secret with a wider mode.
    path.unlink(missing_ok=True)
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8"
    ) as stream:
        stream.write(content)
    path.chmod(mode)


def write_resolvers(root: Path, settings: Settings) -> None:
    """This computer may have moved to another network since the machine's last boot."""
    _put(root / "etc/resolv.conf", resolv_conf(settings), 0o644)


def resolv_conf(settings: Settings) -> str:
    """The machine's /etc/resolv.conf. Raises DeployError when this computer has no usable resolver."""
    if settings.nameservers:
        return "".join(f"nameserver {server}\n" for server in settings.nameservers)
    for path in RESOLV:
        if path.exists() and (lines := reachable(path.read_text(encoding="utf-8"))):
            return "".join(f"{line}\n" for line in lines)
    raise DeployError(
        "choosing the resolvers of a local machine",
        f"this computer's own ({RESOLV[0]}) answer on loopback or IPv6 only, where a machine does not reach them",
        "set `nameservers` in the inventory, such as nameservers: [192.0.2.53]",
    )


def reachable(text: str) -> Sequence[str]:
    """The lines of a resolv.conf that are of use to a machine; none when no resolver is."""
    kept, found = [], False
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            address = ip_address(words[1].partition("%")[0])
            if address.is_loopback or address.version != 4:
                continue
            found = True
        if words and not line.startswith(("#", ";")):
            kept.append(line)
    return kept if found else []
