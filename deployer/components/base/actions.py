"""What flows ask of a machine itself: commands to send, and the meaning of their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.resources import service_file

# Percent of a disk, or of its inodes, from which on the machine is not healthy.
DISK_LIMIT = 80
# Days before its end from which on a certificate is reported. Leaves are renewed 30 days before by the machine,
# so a leaf this near its end means that renewing fails; the CA and the issuers are renewed by `deploy up`.
DAYS = {"leaf": 20, "issuer": 60, "root": 60}


@dataclass(frozen=True)
class Disk:
    """A mounted filesystem. size, available: bytes; the percentages are rounded up, as by df."""

    mount: str
    size: int
    available: int
    percent: int
    inodes_percent: int


@dataclass(frozen=True)
class Certificate:
    """kind: "leaf", "issuer" or "root"; days: whole days left, negative when it ended or is missing."""

    name: str
    kind: str
    days: int


@dataclass(frozen=True)
class HostStatus:
    """reboot: packages that take effect with a reboot only; failed_units: in systemd's words."""

    disks: tuple[Disk, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    reboot: tuple[str, ...] = ()
    failed_units: tuple[str, ...] = ()


def status_script() -> str:
    """A bash script that prints one JSON line for `parse_status`. Reads only; well under a second."""
    return f"exec python3 - <<'DEPLOY_STATUS'\n{service_file('base', 'status.py')}\nDEPLOY_STATUS\n"


def parse_status(output: str, machine: str = "") -> HostStatus:
    """Raises DeployError when the machine answered something else."""
    try:
        answer: Mapping[str, Any] = json.loads(output.strip().splitlines()[-1])
        return HostStatus(
            disks=tuple(Disk(**disk) for disk in answer["disks"]),
            certificates=tuple(Certificate(**one) for one in answer["certificates"]),
            reboot=tuple(answer["reboot"]),
            failed_units=tuple(answer["failed_units"]),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DeployError(
            "reading the machine's status",
            f"unexpected answer ({error})",
            "see whether python3 works there",
            machine=machine or None,
            detail=output[-500:],
        ) from None


def problems(status: HostStatus) -> tuple[str, ...]:
    """What makes `status` fail."""
    return (*_disk_problems(status.disks), *_certificate_problems(status.certificates))


def notices(status: HostStatus) -> tuple[str, ...]:
    """What the operator should know and which fails nothing."""
    found = []
    if status.reboot:
        found.append(f"reboot needed ({', '.join(status.reboot)})")
    if status.failed_units:
        found.append(f"failed units: {', '.join(status.failed_units)}")
    return tuple(found)


def _disk_problems(disks: Sequence[Disk]) -> list[str]:
    found = []
    for disk in disks:
        if disk.percent >= DISK_LIMIT:
            free = disk.available / (1 << 30)
            found.append(f"disk {disk.mount} is {disk.percent} % full ({free:.1f} GiB free)")
        if disk.inodes_percent >= DISK_LIMIT:
            found.append(f"disk {disk.mount} has {disk.inodes_percent} % of its inodes in use")
    return found


def _certificate_problems(certificates: Sequence[Certificate]) -> list[str]:
    found = []
    for one in certificates:
        if one.days >= DAYS[one.kind]:
            continue
        what = {
            "leaf": f"certificate {one.name}",
            "issuer": "this machine's issuer",
            "root": "the stack's CA",
        }[one.kind]
        if one.days < 0:
            found.append(f"{what} has ended or is missing")
        else:
            found.append(f"{what} ends in {one.days} days")
    return found
