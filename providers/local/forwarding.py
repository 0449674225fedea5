"""Letting this computer pass packets on: the kernel's switch, and firewalls that refuse what they do not know."""

from __future__ import annotations

import shutil
from pathlib import Path

from providers.local.host import SEARCH, run, write_atomically

SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
# Gone after a reboot, like the setting whose former value it keeps. Shared by all bridges of this computer.
FORMER = Path("/run/deploy-local/ip_forward")


def turn_on() -> None:
    """Pass IPv4 on, remembering the former setting once."""
    if not FORMER.exists():
        write_atomically(FORMER, SWITCH.read_text(encoding="ascii"))
    SWITCH.write_text("1", encoding="ascii")


def restore() -> None:
    """Set it as it was before the first bridge."""
    if FORMER.exists():
        if FORMER.read_text(encoding="ascii").strip() == "0":
            SWITCH.write_text("0", encoding="ascii")
        FORMER.unlink()


def exceptions(bridge: str) -> list[list[str]]:
    """Rules of iptables that leave the bridge's packets to our own table."""
    mark = ["-m", "comment", "--comment", f"deploy-local {bridge}", "-j", "ACCEPT"]
    return [["FORWARD", direction, bridge, *mark] for direction in ("-i", "-o")]


def except_bridge(bridge: str) -> None:
    """Docker and ufw drop by default what passes through: make an exception where that is so."""
    if not shutil.which("iptables", path=SEARCH):
        return
    listing = run("reading the rules of iptables", ["iptables", "-w", "-S", "FORWARD"], check=False)
    if "-P FORWARD DROP" not in listing:
        return
    for rule in exceptions(bridge):
        if f" {rule[1]} {bridge} " not in listing:
            run("making an exception in iptables", ["iptables", "-w", "-I", *rule])


def forget_bridge(bridge: str) -> None:
    """Remove the exceptions."""
    if not shutil.which("iptables", path=SEARCH):
        return
    listing = run("reading the rules of iptables", ["iptables", "-w", "-S", "FORWARD"], check=False)
    # As many as there are: a killed run may have made one of them twice.
    for line in listing.splitlines():
        if f'"deploy-local {bridge}"' in line:
            rule = next(rule for rule in exceptions(bridge) if f" {rule[1]} {bridge} " in line)
            run("removing an exception in iptables", ["iptables", "-w", "-D", *rule])
