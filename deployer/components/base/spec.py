"""What every machine is: named, on time, patched, closed but for declared ports, reached by key only."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.components.base import firewall, volume
from deployer.components.base.steps import FIREWALL_CHECK, PKI, host_name, steps, trust_path
from deployer.core.component import ComponentSpec, Context, Directory, File, Probe, Secret, Unit
from deployer.core.keytext import public_ssh, split_pem
from deployer.core.model import Project
from deployer.core.resources import service_file

PACKAGES = (
    "ca-certificates",
    "curl",
    "logrotate",
    "needrestart",
    "nftables",
    "openssl",
    "python3",
    "python3-cryptography",
    "systemd-timesyncd",
    "tzdata",
    "unattended-upgrades",
)


def secrets(project: Project) -> tuple[Secret, ...]:
    """None of its own: the CA, the issuers and the SSH keys belong to the deployment as a whole."""
    return ()


def spec(ctx: Context, peers: Sequence[ComponentSpec]) -> ComponentSpec:
    """peers: what the other components want on this machine; their ports are opened, their certificates made."""
    mounts = volume.mounts(ctx, peers)
    files = (
        *_system(ctx),
        *_packages(ctx),
        *_access(ctx, peers),
        *_pki(ctx),
        *volume.files(mounts, peers),
    )
    return ComponentSpec(
        name="base",
        packages=PACKAGES,
        directories=(
            Directory("/etc/deploy"),
            Directory(PKI),
            Directory(f"{PKI}/leaves.d"),
            Directory(f"{PKI}/leaves"),
            Directory("/etc/nftables.d"),
            Directory("/root/.ssh", 0o700),
            Directory("/usr/local/lib/deploy"),
            Directory("/var/lib/deploy"),
            Directory("/var/lib/deploy/applied"),
            Directory("/var/lib/deploy/certs"),
            Directory("/var/lib/deploy/steps"),
        ),
        files=files,
        units=(
            Unit("nftables.service", reload=True),
            Unit("ssh.service", reload=True),
            Unit("apt-daily.timer"),
            Unit("apt-daily-upgrade.timer"),
            Unit("logrotate.timer"),
            Unit("deploy-certs.timer"),
            *volume.units(mounts),
        ),
        mounts=mounts,
        steps=(*steps(ctx, peers, files), *volume.steps(mounts)),
        probes=_probes(),
    )


def host_table(ctx: Context) -> str:
    """Our lines of /etc/hosts, between marks. The machine's own name leads to itself whatever its addresses are."""
    lines = ["# deploy: begin (managed; lines outside of the marks are yours)"]
    lines.append(f"127.0.1.1 {ctx.fqdn(ctx.machine)} {ctx.machine.name}")
    for name, machine in sorted(ctx.machines.items()):
        if name != ctx.machine.name and firewall.is_address(machine.internal):
            lines.append(f"{machine.internal} {ctx.fqdn(machine)} {name}")
    return "\n".join([*lines, "# deploy: end", ""])


def authorized_keys(ctx: Context) -> str:
    """Who may log in as root: deploy itself and the stack's operators, nobody else."""
    ours = public_ssh(ctx.secret("ssh/deploy"), f"deploy@{ctx.project.stack.name}")
    operators = sorted({one.ssh_key.strip() for one in ctx.project.stack.operators if one.ssh_key.strip()})
    return "\n".join(["# Managed by deploy: `operators` in stack.yaml.", ours, *operators, ""])


def _system(ctx: Context) -> tuple[File, ...]:
    return (
        File("/etc/hostname", content=f"{host_name(ctx)}\n", on_change="none"),
        File("/etc/deploy/hosts", content=host_table(ctx), on_change="none"),
        File("/etc/locale.conf", content="LANG=C.UTF-8\n", on_change="none"),
        File("/etc/cloud/cloud.cfg.d/99-deploy.cfg", "base/cloud.cfg.j2", on_change="none"),
        File("/etc/systemd/journald.conf.d/deploy.conf", "base/journald.conf.j2", on_change="none"),
        File("/etc/sysctl.d/60-deploy.conf", "base/sysctl.conf.j2", on_change="none"),
        File("/etc/security/limits.d/60-deploy.conf", "base/limits.conf.j2", on_change="none"),
    )


def _packages(ctx: Context) -> tuple[File, ...]:
    hour, minute = (int(part) for part in ctx.project.stack.upgrade_window.split(":"))
    window, before = f"{hour:02}:{minute:02}", f"{(hour - 1) % 24:02}:{minute:02}"
    fetch = {"why": "fetch the lists before the window opens", "time": before, "delay": "30m"}
    upgrade = {"why": "the window in which upgrades may restart services", "time": window, "delay": "5m"}
    units = "/etc/systemd/system"
    return (
        File("/etc/apt/apt.conf.d/90deploy", "base/apt.conf.j2", early=True, on_change="none"),
        File("/usr/sbin/policy-rc.d", "base/policy-rc.d.j2", mode=0o755, early=True, on_change="none"),
        File("/etc/apt/apt.conf.d/91deploy-upgrades", "base/upgrades.conf.j2", on_change="none"),
        File("/etc/needrestart/conf.d/deploy.conf", "base/needrestart.conf.j2", on_change="none"),
        File(f"{units}/apt-daily.timer.d/deploy.conf", "base/timer.conf.j2", fetch, on_change="reload"),
        File(
            f"{units}/apt-daily-upgrade.timer.d/deploy.conf",
            "base/timer.conf.j2",
            upgrade,
            on_change="reload",
        ),
        File(
            f"{units}/apt-daily-upgrade.service.d/deploy.conf",
            "base/upgrade.service.conf.j2",
            on_change="reload",
        ),
    )


def _access(ctx: Context, peers: Sequence[ComponentSpec]) -> tuple[File, ...]:
    rules = firewall.values(firewall.rules(ctx, peers))
    exempt = {"exempt": firewall.addresses(ctx.machines.values())}
    units = "/etc/systemd/system"
    # Nothing here restarts: rules are replaced in one transaction, and sshd checks its file before it reads it again.
    return (
        File("/etc/nftables.conf", "base/nftables.conf.j2", rules, mode=0o644, on_change="reload"),
        File(f"{units}/nftables.service.d/deploy.conf", "base/nftables.service.conf.j2", on_change="reload"),
        File("/etc/ssh/sshd_config.d/10-deploy.conf", "base/sshd.conf.j2", exempt, on_change="reload"),
        File("/etc/deploy/ssh/authorized_keys", content=authorized_keys(ctx), on_change="none"),
        *(_own_keys(ctx) if ctx.machine.ours else ()),
    )


def _own_keys(ctx: Context) -> tuple[File, ...]:
    """On a machine that we made: nobody gets in by a key of the first boot once it is revoked, and a rotated host key
    arrives. A machine of the operator's own keeps what it had, also one that is only named by its address now."""
    host = ctx.secret(f"ssh/host/{ctx.machine.name}")
    return (
        File(
            "/root/.ssh/authorized_keys",
            content=authorized_keys(ctx),
            mode=0o600,
            keep=True,
            on_change="none",
        ),
        File(
            "/etc/ssh/ssh_host_ed25519_key",
            content=host,
            mode=0o600,
            secret=True,
            keep=True,
            on_change="reload",
        ),
    )


def _pki(ctx: Context) -> tuple[File, ...]:
    # The CA's key stays with the operators.
    _, trust = split_pem(ctx.secret("pki/ca"))
    key, issuer = split_pem(ctx.secret(f"pki/issuer/{ctx.machine.name}"))
    units = "/etc/systemd/system"
    program = service_file("base", "certificates.py")
    return (
        File(f"{PKI}/root.crt", content=trust, on_change="none"),
        File(trust_path(ctx), content=trust, on_change="none"),
        File(f"{PKI}/issuer.crt", content=issuer, on_change="none"),
        File(f"{PKI}/issuer.key", content=key, mode=0o600, secret=True, on_change="none"),
        File("/usr/local/lib/deploy/deploy-certs", content=program, mode=0o755, on_change="none"),
        File(f"{units}/deploy-certs.service", "base/deploy-certs.service.j2", on_change="none"),
        File(f"{units}/deploy-certs.timer", "base/deploy-certs.timer.j2", on_change="reload"),
    )


def _probes() -> tuple[Probe, ...]:
    return (
        Probe("firewall", "script", {"script": FIREWALL_CHECK}, unit="nftables.service"),
        # Units of others too: what our own components need has probes of its own.
        Probe("no failed unit", "script", {"script": _FAILED_UNITS}, degrades=True),
        Probe("clock", "script", {"script": _CLOCK}, degrades=True, unit="systemd-timesyncd.service"),
    )


_FAILED_UNITS = """
failed=$(systemctl list-units --state=failed --plain --no-legend --no-pager | cut -d' ' -f1 | paste -sd' ' -)
[ -z "$failed" ] || { echo "failed: $failed"; exit 1; }
"""

# A container has its host's clock. timesyncd touches the file with the first answer of a server.
_CLOCK = """
systemd-detect-virt -cq && exit 0
[ -e /run/systemd/timesync/synchronized ] || { echo "not synchronised yet (UDP 123 out?)"; exit 1; }
"""
