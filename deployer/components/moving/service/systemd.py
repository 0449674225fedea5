"""Units, with bounds. Whatever does not stop in time is killed."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from ground import Failure, last

SYSTEMD = Path("/etc/systemd/system")
GUARD = "deploy-guard.service"
# Seconds that units have to stop before they are killed, and then.
STOP, KILL = 30, 10


def call(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Raises TimeoutExpired."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=timeout)


def states(units: Iterable[str]) -> dict[str, str]:
    """ActiveState of each."""
    names = list(units)
    if not names:
        return {}
    done = call("show", "-p", "ActiveState", "--value", "--", *names, timeout=30)
    return dict(zip(names, [line for line in done.stdout.splitlines() if line], strict=False))


def active(unit: str) -> bool:
    return states([unit]).get(unit) == "active"


def running(units: Iterable[str]) -> list[str]:
    """Those that are not at rest."""
    return [name for name, state in states(units).items() if state not in ("inactive", "failed")]


def stop(units: Sequence[str], bound: float = STOP) -> None:
    """All at once; nothing of them runs when this returns. Raises Failure."""
    if not units:
        return
    try:
        call("stop", "--", *units, timeout=max(bound, 1))
    except subprocess.TimeoutExpired:
        call("kill", "--signal=KILL", "--", *units)
        try:
            call("stop", "--", *units, timeout=KILL)
        except subprocess.TimeoutExpired:
            pass
    if left := running(units):
        why = f"they do not end, not even when killed: {', '.join(left)}"
        raise Failure("stopping what serves", why, "see `systemctl status` on that machine")


def start(units: Sequence[str], bound: float = 120) -> list[str]:
    """All at once, in systemd's order. Returns those that do not run then."""
    if not units:
        return []
    call("reset-failed", "--", *units)
    try:
        call("start", "--", *units, timeout=bound)
    except subprocess.TimeoutExpired:
        pass
    return [name for name, state in states(units).items() if state != "active"]


def must_start(what: str, units: Sequence[str], bound: float = 120) -> None:
    """Raises Failure with the unit's last words."""
    if left := start(units, bound):
        words = ["journalctl", "--no-pager", "-o", "cat", "-n", "3", "-u", left[0]]
        said = subprocess.run(words, capture_output=True, text=True, timeout=20).stdout
        raise Failure(what, f"{', '.join(left)} does not run: {last(said)}", f"see `journalctl -u {left[0]}`")


def reload() -> None:
    """Read the units anew."""
    done = call("daemon-reload", timeout=90)
    if done.returncode:
        raise Failure("reading the units anew", last(done.stderr), "see `systemctl status`")


def exists(unit: str) -> bool:
    return call("cat", "--", unit).returncode == 0


def ready() -> None:
    """Tell systemd that this service (Type=notify) is at work."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.connect(address)
            to.send(b"READY=1")
