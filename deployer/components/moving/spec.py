"""What machines need while the service moves from one deployment to another: a channel to the other side, the programs
that copy, hold and hand over, and the marks that keep a side from serving. Only while a move is open; see docs/adr/0015.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from deployer.components.database import scram
from deployer.components.database import spec as database
from deployer.components.sms_gateway import layout as sms
from deployer.core import moving
from deployer.core.component import ComponentSpec, Context, Directory, File, Secret, Unit
from deployer.core.keytext import public_ssh
from deployer.core.model import Project
from deployer.core.moving import Move, Place
from deployer.core.resources import service_files

FOLDER = "/etc/deploy/moving"
PROGRAMS = "/usr/local/lib/deploy/moving"
STATE = "/var/lib/deploy/moving"
PROXY_UNIT = "caddy.service"
_SYSTEMD = "/etc/systemd/system"
# Those that a reboot must not end; the others are started by a verb.
KEPT = ("fence", "conduct", "database", "forward")
WORK = ("standby", "files")
# Components whose data are no part of a move, or that are dealt with by themselves.
_APART = ("base", "moving", "backups", "database")
# They are slow to stop, so they are stopped before anything is held: the gateway keeps what it accepts meanwhile.
SMS_FIRST = ("kannel-smsbox.service", "kannel-bearerbox.service")


def secrets(project: Project) -> tuple[Secret, ...]:
    """None that follow from the project: those of a move are made when it is opened."""
    return ()


def spec(ctx: Context, peers: Sequence[ComponentSpec], roles: Mapping[str, str]) -> ComponentSpec:
    """peers: what the other components want on this machine. roles: component -> the role whose machine has it."""
    move = moving.concerning(ctx.secrets, ctx.project.deployment)
    if move is None:
        return ComponentSpec("moving")
    side = move.side(ctx.project.deployment)
    return ComponentSpec(
        name="moving",
        packages=("openssh-client", "rsync", "python3"),
        directories=(
            Directory("/etc/deploy"),
            Directory(FOLDER, 0o755),
            Directory(PROGRAMS),
            Directory(STATE, 0o755),
        ),
        files=(
            *_access(ctx, move, side),
            File(
                f"{FOLDER}/settings.json",
                content=json.dumps(settings(ctx, peers, roles, move), indent=1, sort_keys=True) + "\n",
                mode=0o600,
                secret=True,
                on_change="none",
            ),
            *(
                File(f"{PROGRAMS}/{name}", content=text, mode=0o755, on_change="none")
                for name, text in service_files("moving").items()
            ),
            *(
                File(
                    f"{_SYSTEMD}/deploy-moving-{name}.service",
                    f"moving/deploy-moving-{name}.service.j2",
                    {"programs": PROGRAMS},
                    on_change="none",
                )
                for name in (*KEPT, *WORK)
            ),
            *_marks(ctx, peers),
        ),
        units=tuple(Unit(f"deploy-moving-{name}.service", resident=False) for name in (*KEPT, *WORK)),
    )


# --- the channel ---


def _access(ctx: Context, move: Move, side: str) -> Iterator[File]:
    own = ctx.secret(move.key(side).name)
    yield File(f"{FOLDER}/key", content=own, mode=0o600, secret=True, on_change="none")
    yield File(f"{FOLDER}/known_hosts", content=known_hosts(move, side), on_change="none")
    yield File(f"{FOLDER}/authorized_keys", content=authorized_keys(ctx, move), on_change="none")
    if not ctx.plays("database"):
        return
    password = ctx.secret(move.password.name)
    yield File(
        f"{FOLDER}/pgpass",
        content=f"127.0.0.1:{moving.PORT}:*:{moving.ROLE}:{password}\n",
        mode=0o600,
        owner="postgres",
        group="postgres",
        secret=True,
        on_change="none",
    )
    yield File(
        f"{FOLDER}/pg_hba.conf",
        content="# Managed by deploy. The other side's standby, through the channel.\n"
        f"host replication {moving.ROLE} 127.0.0.1/32 scram-sha-256\n"
        f"host replication {moving.ROLE} ::1/128 scram-sha-256\n",
        mode=0o640,
        group="postgres",
        on_change="none",
    )


def known_hosts(move: Move, side: str) -> str:
    """The host key of every machine, by the address at which this side reaches it."""
    lines = []
    for place in move.places:
        address = _address(place, side)
        name = address if place.port == 22 else f"[{address}]:{place.port}"
        lines.append(f"{name} {place.host_key}")
    return "\n".join([*dict.fromkeys(lines), ""])


def _address(place: Place, side: str) -> str:
    return place.internal if place.side == side else place.address


def authorized_keys(ctx: Context, move: Move) -> str:
    """Who may ask this machine's agent: the machines of both sides, from their addresses, and nothing but that."""
    ports = [database.PORT, *(entry["port"] for entry in _forwards(ctx, move))]
    opens = ",".join(f'permitopen="127.0.0.1:{port}"' for port in dict.fromkeys(ports))
    lines = ["# Managed by deploy: the machines of a move."]
    for side in ("old", "new"):
        sources = [address for place in move.of(side) for address in place.addresses]
        if not sources:
            continue
        options = f'restrict,port-forwarding,{opens},from="{",".join(dict.fromkeys(sources))}"'
        command = f'command="{PROGRAMS}/move.py serve"'
        key = public_ssh(ctx.secret(move.key(side).name), f"deploy-move-{side}")
        lines.append(f"{options},{command} {key}")
    return "\n".join([*lines, ""])


# --- what the programs read ---


def settings(
    ctx: Context, peers: Sequence[ComponentSpec], roles: Mapping[str, str], move: Move
) -> dict[str, object]:
    """Everything that the programs on this machine know of the move."""
    side = move.side(ctx.project.deployment)
    other = "new" if side == "old" else "old"
    units, timers = _units(peers)
    found: dict[str, object] = {
        "id": move.id,
        "stack": ctx.project.stack.name,
        "deployment": str(ctx.project.deployment),
        "other": move.new if side == "old" else move.old,
        "side": side,
        "generation": move.number,
        "rehearsal": ctx.project.inventory.drill,
        "machine": f"{side}/{ctx.machine.name}",
        "lead": ctx.plays("database"),
        "machines": [
            {
                "name": place.label,
                "address": _address(place, side),
                "port": place.port,
                "lead": place.lead,
            }
            for place in move.places
        ],
        "copies": _copies(ctx, peers, roles, move, other),
        "units": units,
        "timers": timers,
        "database_unit": database.UNIT if ctx.plays("database") else "",
        "proxy_unit": PROXY_UNIT if ctx.plays("app") else "",
        "app": ctx.project.app.name if ctx.plays("app") else "",
        "forwards": _forwards(ctx, move) if side == "old" else [],
        "hold_upstreams": _upstreams(ctx),
        "sms_first": list(SMS_FIRST) if ctx.plays("sms") else [],
    }
    if ctx.plays("database") and (peer := move.player(other, "database")):
        found["replication"] = {
            "slot": moving.SLOT,
            "peer": peer.label,
            "port": moving.PORT,
            "role": moving.ROLE,
            "password_verifier": scram.verifier(moving.ROLE, ctx.secret(move.password.name)),
        }
    return found


def _units(peers: Sequence[ComponentSpec]) -> tuple[list[dict[str, object]], list[str]]:
    """The units that serve, by component in the order of starting; and what works beside them."""
    serving: list[dict[str, object]] = []
    beside: list[str] = []
    for spec in peers:
        if spec.name in ("base", "moving"):
            continue
        units = [unit for unit in spec.units if unit.wanted and unit.name not in (database.UNIT, PROXY_UNIT)]
        beside += [unit.name for unit in units if unit.name.endswith(".timer") and _stops(unit.name)]
        resident = [unit.name for unit in units if unit.resident and unit.name.endswith(".service")]
        if spec.name == "backups":
            beside += [name for name in resident if _stops(name)]
        elif resident and spec.name != "database":
            serving.append({"component": spec.name, "units": resident})
    return serving, beside


def _stops(unit: str) -> bool:
    """The guard goes on: it is what tells a machine that it is not live any more."""
    return not unit.startswith("deploy-guard")


def _copies(
    ctx: Context, peers: Sequence[ComponentSpec], roles: Mapping[str, str], move: Move, other: str
) -> list[dict[str, str]]:
    found = []
    for spec in peers:
        peer = move.player(other, roles.get(spec.name) or "")
        if spec.name in _APART or peer is None:
            continue
        entries: list[tuple[str, str, str, str]] = [
            (item.name, item.kind, item.where, item.within) for item in spec.data if item.kind != "postgres"
        ]
        if spec.name == "app":
            # Which migrations have run, and whether the admin is there.
            entries.append(("app's marks", "marks", f"/var/lib/deploy/app/{ctx.project.app.name}", ""))
        found += [
            {
                "name": name,
                "component": spec.name,
                "kind": kind,
                "where": where,
                "within": within,
                "peer": peer.label,
            }
            for name, kind, where, within in entries
        ]
    return found


def _forwards(ctx: Context, move: Move) -> list[dict[str, object]]:
    """Loopback ports of what serves here, and whose port of the same number takes their place after the move."""
    side = move.side(ctx.project.deployment)
    other = "new" if side == "old" else "old"
    found: list[dict[str, object]] = []
    if ctx.plays("app") and (peer := move.player(other, "app")):
        ports = [process.port for process in ctx.project.app.processes if process.port]
        found += [{"port": port, "listen": "127.0.0.1", "peer": peer.label} for port in ports]
    if ctx.plays("sms") and (peer := move.player(other, "sms")):
        found.append({"port": sms.PORT, "listen": "127.0.0.1", "peer": peer.label})
        if sms.remote_apps(ctx):
            # The proxy on another machine comes to this one; both sides' certificates name the same machine.
            found.append({"port": sms.TLS_PORT, "listen": ctx.machine.internal, "peer": peer.label})
    return found


def _upstreams(ctx: Context) -> list[str]:
    if not ctx.plays("app"):
        return []
    return [f"127.0.0.1:{process.port}" for process in ctx.project.app.processes if process.port]


# --- the marks that keep a side from serving ---


def _marks(ctx: Context, peers: Sequence[ComponentSpec]) -> Iterator[File]:
    units, timers = _units(peers)
    for name in [*(str(one) for entry in units for one in _names(entry)), *timers]:
        yield File(f"{_SYSTEMD}/{name}.d/deploy-moving.conf", "moving/closed.conf.j2", on_change="none")
    if ctx.plays("database"):
        yield File(
            f"{_SYSTEMD}/{database.UNIT}.d/deploy-moving.conf", "moving/fenced.conf.j2", on_change="none"
        )


def _names(entry: Mapping[str, object]) -> list[str]:
    names = entry["units"]
    assert isinstance(names, list)
    return names
