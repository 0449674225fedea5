"""What is done on every machine besides writing files and starting units, each with its test of "already done"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from deployer.core.component import ComponentSpec, Context, File, Step

PKI = "/etc/deploy/pki"
LEAVES = f"{PKI}/leaves.d/"

FIREWALL_CHECK = """
found=$(nft -s list table inet deploy 2>/dev/null | sha256sum)
[ -s /run/deploy/nftables.sha256 ] || { echo "the rules are not loaded"; exit 1; }
[ "$found" = "$(cat /run/deploy/nftables.sha256)" ] || { echo "the rules were changed by hand"; exit 1; }
"""


def host_name(ctx: Context) -> str:
    """The full name where the kernel takes it (HOST_NAME_MAX is 64), the short one otherwise."""
    name = ctx.fqdn(ctx.machine)
    return name if len(name) <= 64 else ctx.machine.name


def trust_path(ctx: Context) -> str:
    """Where Debian's trust store looks for our CA."""
    return f"/usr/local/share/ca-certificates/deploy-{ctx.project.stack.name}.crt"


def steps(ctx: Context, peers: Sequence[ComponentSpec], files: Sequence[File]) -> tuple[Step, ...]:
    """files: those of base itself; the requests for certificates of all components are among them and the peers'."""
    return (*_configure(ctx, [*files, *(file for peer in peers for file in peer.files)]), *_activate())


def _configure(ctx: Context, files: Sequence[File]) -> tuple[Step, ...]:
    name, zone = host_name(ctx), ctx.project.stack.timezone
    leaves = {file.path: _content(file) for file in files if file.path.startswith(LEAVES)}
    own = {file.path: _digest(_content(file)) for file in files}
    return (
        # Before any unit is restarted: a mistake in these two would shut us out.
        Step(
            "valid access",
            "access_checked",
            check="nft -c -f /etc/nftables.conf && /usr/sbin/sshd -t",
            stage="configure",
        ),
        Step(
            "host name",
            "host_name",
            check=f'[ "$(cat /proc/sys/kernel/hostname)" = {name} ]',
            args={"wanted": name},
            stage="configure",
        ),
        Step(
            "host table",
            "host_table",
            check="sed -n '/^# deploy: begin/,/^# deploy: end/p' /etc/hosts | cmp -s - /etc/deploy/hosts",
            args={"source": "/etc/deploy/hosts", "digest": own["/etc/deploy/hosts"]},
            stage="configure",
        ),
        Step(
            "time zone",
            "time_zone",
            check=f'[ "$(readlink /etc/localtime)" = /usr/share/zoneinfo/{zone} ]',
            args={"zone": zone},
            stage="configure",
        ),
        Step(
            "trusted CA",
            "trust_store",
            check=f"cmp -s /etc/ssl/certs/deploy-{ctx.project.stack.name}.pem {PKI}/root.crt",
            args={"digest": own[trust_path(ctx)]},
            stage="configure",
        ),
        Step(
            "certificates",
            "certificates",
            check=leaves_check(leaves),
            args={"leaves": leaves, "issuer": own[f"{PKI}/issuer.crt"]},
            stage="configure",
        ),
        Step(
            "kernel settings",
            "kernel_settings",
            check='[ "$(cat /etc/sysctl.d/*.conf | sha256sum)" = "$(cat /var/lib/deploy/sysctl.sha256)" ]',
            stage="configure",
        ),
    )


def _activate() -> tuple[Step, ...]:
    return (
        Step(
            "journal",
            "journal",
            check="cmp -s /etc/systemd/journald.conf.d/deploy.conf /var/lib/deploy/journald.applied",
        ),
        # timesyncd does not run in a container, which has its host's clock.
        Step(
            "system services",
            "units_started",
            check="systemctl is-active -q unattended-upgrades.service && "
            "{ systemctl is-active -q systemd-timesyncd.service || systemd-detect-virt -cq; }",
            args={"units": ["unattended-upgrades.service", "systemd-timesyncd.service"]},
        ),
        Step("firewall", "firewall", check=FIREWALL_CHECK),
    )


def leaves_check(leaves: Mapping[str, str]) -> str:
    """Each certificate is there and renewed in time; by age, since reading them all would take longer. That their
    names are right follows from the step's arguments, and the machine's own timer looks into them every day."""
    names = sorted(path.removeprefix(LEAVES).removesuffix(".json") for path in leaves)
    there = [f"[ -s {PKI}/leaves/{name}.{suffix} ]" for name in names for suffix in ("pem", "key", "crt")]
    old = f"[ -z \"$(find {PKI}/leaves -name '*.pem' -mtime +75 -print -quit)\" ]"
    return " && ".join([*there, old])


def _content(file: File) -> str:
    return file.content or json.dumps([file.template, dict(file.values)], sort_keys=True, default=str)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
