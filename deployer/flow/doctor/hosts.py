"""Checks of what machines say of themselves: clock, disks, certificates, vendors of mail and SMS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployer.components.base import actions as base
from deployer.core.finding import Finding

# Seconds. Log-ins by time-based codes and signatures of S3 fail from some minutes on, TLS and mail dates look odd before.
CLOCK_OK, CLOCK_BAD = 2.0, 30.0
# Days before its end from which on a public certificate is told, and from which on it fails. ACME renews 30 days before.
TLS_WARN, TLS_FAIL = 20, 7


def clock(machine: str, difference: float, uncertainty: float) -> Finding:
    """difference: the machine's clock minus this computer's, in seconds; uncertainty: half of the round trip."""
    id, what = "machine.clock", "clock"
    off = abs(difference)
    # What the line itself may have made of it is not held against the machine.
    sure = max(0.0, off - uncertainty)
    ahead = "ahead of" if difference > 0 else "behind"
    found = (
        f"{off:.1f} s {ahead} this computer's" if off >= 0.05 else "the same as this computer's, within 0.1 s"
    )
    if sure <= CLOCK_OK:
        return Finding(id, "ok", what, machine, found)
    next = "see which of the two is wrong: timedatectl on both; NTP needs UDP port 123 out"
    return Finding(id, "warn" if sure <= CLOCK_BAD else "fail", what, machine, found, next)


def disks(machine: str, found: Sequence[base.Disk]) -> list[Finding]:
    id, what = "machine.disk", "disk"
    bad = []
    for disk in found:
        most = max(disk.percent, disk.inodes_percent)
        if most < base.DISK_LIMIT:
            continue
        kind = "full" if disk.percent >= base.DISK_LIMIT else "of its inodes in use"
        text = f"{disk.mount} is {most} % {kind} ({disk.available / (1 << 30):.1f} GiB free)"
        next = "remove what is not needed, or take a machine with a larger disk"
        bad.append(Finding(id, "fail", what, machine, text, next))
    if bad:
        return bad
    text = ", ".join(f"{disk.mount} {disk.percent} %" for disk in found) or "none to look at"
    return [Finding(id, "ok", what, machine, text)]


def certificates(machine: str, found: Sequence[base.Certificate]) -> list[Finding]:
    """Those that the stack's own CA signed: the CA itself, the machine's issuer, and what its services show."""
    id, what = "tls.own", "own certificates"
    words = {"leaf": "certificate", "issuer": "the machine's issuer", "root": "the stack's CA"}
    bad = []
    for one in found:
        if one.days >= base.DAYS[one.kind]:
            continue
        name = f"{words[one.kind]} {one.name}" if one.kind == "leaf" else words[one.kind]
        text = f"{name} has ended or is missing" if one.days < 0 else f"{name} ends in {one.days} days"
        next = (
            "deploy up makes new ones"
            if one.kind == "leaf"
            else f"deploy secrets rotate {_secret(one.kind, machine)}"
        )
        bad.append(Finding(id, "fail", what, machine, text, next))
    if bad or not found:
        return bad
    first = min(found, key=lambda one: one.days)
    return [Finding(id, "ok", what, machine, f"{len(found)}; {first.name} ends first, in {first.days} days")]


def _secret(kind: str, machine: str) -> str:
    return "pki/ca" if kind == "root" else f"pki/issuer/{machine}"


def public_certificate(name: str, days: float | None, error: str) -> Finding:
    """days: until the certificate that `name` shows ends; None with `error` when it showed no good one."""
    id, what = "tls.public", "TLS"
    next = "see what the proxy wrote: deploy logs proxy (ports 80 and 443 must be open to the world for ACME)"
    if days is None:
        return Finding(id, "fail", what, name, error, next)
    text = f"good for {days:.0f} days"
    if days >= TLS_WARN:
        return Finding(id, "ok", what, name, text)
    return Finding(id, "warn" if days >= TLS_FAIL else "fail", what, name, f"{text}: it is not renewed", next)


def vendors(machine: str, kind: str, answers: Mapping[str, tuple[bool, str]]) -> list[Finding]:
    """kind: "smarthost" or "carrier"; answers: name -> whether it let us in, and its words."""
    id = "mail.smarthost" if kind == "smarthost" else "sms.carrier"
    found = []
    for name, (ok, detail) in answers.items():
        if ok:
            found.append(Finding(id, "ok", f"{kind} {name}", machine, detail or "lets us in"))
            continue
        # One of several that is away is passed by; the last one is what everything waits for.
        alone = not any(other for other, _ in answers.values())
        next = f"see its account, host and password under {kind}s: in the inventory; add another vendor beside it"
        found.append(
            Finding(id, "fail" if alone else "warn", f"{kind} {name}", machine, detail or "no answer", next)
        )
    return found
