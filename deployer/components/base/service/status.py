"""What `deploy status` wants to know about a machine, as one JSON line. Changes nothing.

Sent over SSH for each call rather than installed, so it always fits the version that asks. Python >= 3.9,
standard library only.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from pathlib import Path

# Filesystems that hold nothing of their own, or that are full by nature.
PSEUDO = {"tmpfs", "devtmpfs", "ramfs", "squashfs", "iso9660", "efivarfs", "fuse.lxcfs", "nsfs", "autofs"}


def mounts(table: str) -> list[str]:
    """Mount points of real filesystems, each filesystem once: the shortest path that shows it."""
    found: dict[str, str] = {}
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        device, root, point = left.split()[2:5]
        kind, source = right.split()[:2]
        # An overlay is a container's view of a disk that is counted already, unless it is our own root.
        if kind in PSEUDO or (kind == "overlay" and point != "/"):
            continue
        # A folder of a filesystem mounted once more: its disk is listed where it is mounted whole, or, in a container,
        # is the host's. Subvolumes of btrfs look the same.
        if root != "/" and point != "/" and kind != "btrfs":
            continue
        if point.startswith(("/run/", "/proc/", "/sys/", "/dev/")):
            continue
        if point != "/" and not source.startswith("/") and kind not in ("zfs", "btrfs", "nfs", "nfs4"):
            continue
        point = point.replace("\\040", " ")
        if device not in found or len(point) < len(found[device]):
            found[device] = point
    return sorted(found.values())


def percent(total: int, free: int, available: int) -> int:
    """As df shows it: of what users may use, rounded up."""
    used = total - free
    return -(-100 * used // (used + available)) if used + available > 0 else 0


def disks() -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for point in mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8")):
        try:
            if not os.path.isdir(point):
                continue
            disk = os.statvfs(point)
        except OSError:
            continue
        if disk.f_blocks == 0:
            continue
        found.append(
            {
                "mount": point,
                "size": disk.f_blocks * disk.f_frsize,
                "available": disk.f_bavail * disk.f_frsize,
                "percent": percent(disk.f_blocks, disk.f_bfree, disk.f_bavail),
                "inodes_percent": percent(disk.f_files, disk.f_ffree, disk.f_favail),
            }
        )
    return found


def run(*argv: str) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=10)
    return done.stdout


def days_left(path: str) -> int:
    """Whole days until the first certificate of the file ends; -1 when it cannot be read."""
    out = run("openssl", "x509", "-noout", "-enddate", "-in", path)
    try:
        end = datetime.datetime.strptime(out.strip().partition("=")[2], "%b %d %H:%M:%S %Y %Z")
    except ValueError:
        return -1
    return (end - datetime.datetime.now(datetime.UTC).replace(tzinfo=None)).days


def certificates(folder: Path) -> list[dict[str, object]]:
    """The CA, the machine's issuer, and each leaf that is asked for (missing: -1 day)."""
    paths = {"root": folder / "root.crt", "issuer": folder / "issuer.crt"}
    kinds = {name: name for name in paths}
    for path in sorted((folder / "leaves.d").glob("*.json")):
        paths[path.stem], kinds[path.stem] = folder / "leaves" / f"{path.stem}.crt", "leaf"
    return [{"name": name, "kind": kinds[name], "days": days_left(str(path))} for name, path in paths.items()]


def reboot() -> list[str]:
    """Packages that want a reboot; empty: none is needed. A container has no kernel of its own."""
    if subprocess.run(["systemd-detect-virt", "--container", "--quiet"]).returncode == 0:
        return []
    if not os.path.exists("/run/reboot-required"):
        return []
    try:
        packages = Path("/run/reboot-required.pkgs").read_text(encoding="utf-8").split()
    except OSError:
        packages = []
    return sorted(set(packages)) or ["unknown"]


def failed_units() -> list[str]:
    out = run("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager")
    return [line.split()[0] for line in out.splitlines() if line.strip()]


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "disks": disks(),
                "certificates": certificates(Path("/etc/deploy/pki")),
                "reboot": reboot(),
                "failed_units": failed_units(),
            }
        )
    )
