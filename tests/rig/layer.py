"""What a machine has installed, as a layer that other machines start from: packages and releases, nothing of its own.

So a test run installs everything once, and what comes later is ready in seconds instead of minutes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

# What is a machine's own: identity, our settings, data.
_OWN = (
    "etc/deploy",
    "etc/machine-id",
    "etc/hostname",
    "etc/postgresql",
    # Which services start at boot is for each machine's own `up` to say.
    "etc/rc2.d",
    "etc/systemd/network",
    "etc/systemd/system",
    "usr/local/share/ca-certificates",
    "var/lib/deploy",
    "var/lib/deploy-catch",
    "var/lib/bluesky",
    "var/lib/matrix",
    "var/lib/misago",
    "var/lib/postgresql/17",
    "var/lib/sms-gateway",
)
# Folders that packages made and that stay, without the files in them.
_EMPTIED = ("var/lib/caddy", "var/lib/kannel", "var/lib/postfix", "var/lib/valkey", "var/spool")
# Never copied.
_LEFT = ("root", "run", "tmp", "var/backups", "var/cache", "var/log", "var/tmp")


def make(machine: Path, target: Path) -> Path:
    """Copy the disk of the local machine whose folder is `machine` to `target` and take out what is its own."""
    upper = machine / "upper"
    target.mkdir(parents=True)
    (target / "var").mkdir()
    parts = [*upper.iterdir(), *(upper / "var").iterdir()]
    for part in parts:
        name = str(part.relative_to(upper))
        if name != "var" and name not in _LEFT:
            # -a keeps what overlayfs needs: whiteouts, opaque folders, owners.
            subprocess.run(
                ["cp", "-a", "--reflink=auto", str(part), str(target / name)], check=True, timeout=300
            )
    managed = json.loads((upper / "var/lib/deploy/managed.json").read_text(encoding="utf-8"))
    for path in [*(name.lstrip("/") for name in managed), *_OWN]:
        _remove(target / path)
    for folder in _EMPTIED:
        for path in (target / folder).rglob("*"):
            if not path.is_dir() or path.is_symlink():
                path.unlink()
    for key in (target / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    return target


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
