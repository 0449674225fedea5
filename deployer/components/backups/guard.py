"""The guard: a machine whose generation is not the newest serves nothing. And the alarm, which tells what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence

from deployer.components.backups.parts import Part
from deployer.components.mail_relay import spec as mail_relay
from deployer.components.sms_gateway import spec as sms_gateway
from deployer.core.component import ComponentSpec, Context, File, Step, Unit
from deployer.core.generation import Generation
from deployer.core.moving import standing_by
from deployer.core.resources import service_file

PROGRAMS = "/usr/local/lib/deploy/backups"
UNIT = "deploy-guard.service"
WATCH = "deploy-guard-watch"
ALARM = "deploy-alarm"
ALARM_SETTINGS = "/etc/deploy/backups/alarm.json"
_SYSTEMD = "/etc/systemd/system"
_CA = "/etc/deploy/pki/root.crt"


def part(ctx: Context, peers: Sequence[ComponentSpec], live: Generation | None) -> Part:
    """peers: all components but base, whose units need the guard's word to start, and stop with it."""
    # Nobody but the machine reaches a folder, so it puts the claim there.
    folders = [one.path for one in ctx.project.inventory.repositories if one.path]
    values = {"programs": PROGRAMS, "folders": folders}
    return Part(
        packages=("curl", "python3", "ca-certificates"),
        files=(
            *(program(name) for name in ("ground.py", "guard.py", "alarm.py")),
            File(ALARM_SETTINGS, content=alarm_settings(ctx), mode=0o600, secret=True, on_change="none"),
            # Never restarted by a change: what requires it would restart as well.
            File(f"{_SYSTEMD}/{UNIT}", "backups/deploy-guard.service.j2", values, on_change="none"),
            *(
                File(f"{_SYSTEMD}/{name}.{kind}", f"backups/{name}.{kind}.j2", values, on_change="none")
                for name in (WATCH, ALARM)
                for kind in ("service", "timer")
            ),
            *(
                File(
                    f"{_SYSTEMD}/{name}.d/deploy-guard.conf",
                    "backups/guarded.conf.j2",
                    {"unit": UNIT},
                    on_change="none",
                )
                for name in guarded(peers, standing_by(ctx.secrets, ctx.project.deployment))
            ),
        ),
        units=(
            Unit(UNIT, managed_by_step=True),
            *(Unit(f"{name}.service", resident=False) for name in (WATCH, ALARM)),
            *(Unit(f"{name}.timer") for name in (WATCH, ALARM)),
        ),
        steps=(
            # The first service that starts has started it already.
            Step("guard", "guard_active", check=f"systemctl is-active --quiet {UNIT}", timeout=120),
        ),
    )


def program(name: str) -> File:
    """A program of this component; started anew for each use."""
    return File(f"{PROGRAMS}/{name}", content=service_file("backups", name), mode=0o755, on_change="none")


def guarded(peers: Sequence[ComponentSpec], standby: bool = False) -> tuple[str, ...]:
    """The units that serve. standby: the database follows another one, and the proxy may forward to it."""
    apart = {"database", "proxy"} if standby else set()
    names = [
        unit.name
        for spec in peers
        if spec.name not in {"base", *apart}
        for unit in spec.units
        if unit.wanted and unit.resident and unit.name.endswith(".service")
    ]
    return tuple(dict.fromkeys(names))


def alarm_settings(ctx: Context) -> str:
    """How the alarm reaches the stack's own relay and gateway; nothing where nobody is to be told."""
    policy = ctx.project.stack.backup
    found: dict[str, object] = {"ca": _CA}
    if policy.mail and ctx.roles.get("mail"):
        found["mail"] = mail_relay.connection(ctx)
    if policy.sms and ctx.roles.get("sms"):
        sms = sms_gateway.connection(ctx)
        found["sms"] = {key: sms[key] for key in ("url", "sender", "account_sid", "auth_token")}
    return json.dumps(found, indent=1, sort_keys=True) + "\n"
