"""What can be seen of a move: by the public while it happens, and in `deploy status` for as long as there is a way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployer.components.moving import actions
from deployer.core import moving
from deployer.core.component import Probe
from deployer.core.errors import DeployError
from deployer.core.machine import Machine
from deployer.core.moving import MOVED
from deployer.flow.look import View, outside
from deployer.flow.moves import ASK, Sides
from deployer.flow.session import SSH, Session
from deployer.flow.watching import Target, Watch

# Bytes behind which the standby is told to be behind.
BEHIND = 256 << 20


def watch(sides: Sides) -> Watch:
    """Ask the public names from now on, as whoever resolves them anew each time; where this computer does not know
    them, at the side that is live."""
    session, machines = sides.old, sides.machines["old"]
    targets = [_target(sides, probe) for probe in outside(session.specs(machines, {}))]
    return Watch(targets, session.sink, session.trusted_ca())


def _target(sides: Sides, probe: Probe) -> Target:
    role = "mail" if probe.kind == "smtp" else "app"

    def address() -> str:
        side = "old" if sides.move.phase == moving.PREPARING else "new"
        place = sides.move.player(side, role)
        return place.address if place else ""

    return Target(probe, address)


def standby(session: Session, machines: Mapping[str, Machine]) -> dict[str, Any] | None:
    """What `status` says of a deployment that is in a move and not live; None for any other. Connects to its machines."""
    move = moving.concerning(session.secrets, session.project.deployment)
    if move is None:
        return None
    side = move.side(session.project.deployment)
    if (move.phase == moving.PREPARING) == (side == "old"):
        return None
    live = move.old if move.phase == moving.PREPARING else move.new
    session.connected(session.connect(machines, SSH), SSH)
    trouble, way = (
        [],
        "migrate --resume" if move.phase != MOVED else "migrate --back leads here, deploy retire ends it",
    )
    if move.phase == MOVED:
        for place in move.of(side):
            if place.lead and place.name in machines and (why := _way_back(session, place.name, side)):
                trouble.append(f"{place.name}: {why}")
    follows = "" if trouble else ", and follows" if move.phase == MOVED else ", and is being prepared"
    return {
        "deployment": str(session.project.deployment),
        "standby_of": live,
        "ok": not trouble,
        "problems": trouble,
        "degraded": [],
        "urls": [],
        "machines": [
            {"name": machine.name, "address": machine.address, "roles": []} for machine in machines.values()
        ],
        "probes": [],
        "disks": [],
        "notes": [
            f"it is the standby of {live}{follows}: it serves nothing but what it forwards. deploy {way}"
        ],
    }


def standing(session: Session, view: View) -> dict[str, Any]:
    """problems, notices: what `status` says of a move that this deployment has a part in. Asks the lead's program."""
    found: dict[str, list[str]] = {"problems": [], "notices": []}
    move = moving.concerning(session.secrets, session.project.deployment)
    if move is None:
        return found
    side = move.side(session.project.deployment)
    if move.phase != MOVED:
        found["notices"].append(
            f"a move from {move.old} to {move.new} is under way since {move.began}: deploy migrate --resume"
        )
        return found
    leads = [place.name for place in move.of(side) if place.lead and place.name in view.machines]
    for name in leads:
        why = _way_back(session, name, side)
        text = f"way back to {move.old}: {why or 'it follows'}; deploy migrate --back leads there, deploy retire ends it"
        found["problems" if why else "notices"].append(text)
    return found


def _way_back(session: Session, machine: str, side: str) -> str:
    """What is wrong with the way back, "" when it is there. On the live side the slot tells; on the other its own word."""
    if side == "new":
        sql = (
            "SELECT coalesce(wal_status, 'lost'), active, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)"
            f" FROM pg_replication_slots WHERE slot_name = '{moving.SLOT}'"
        )
        words = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", "postgres"]
        code, out, err = session.engine.run(machine, " ".join(words), stdin=sql + ";\n", timeout=ASK)
        if code:
            return f"nobody can say: {err.strip()[:200]}"
        return slot_trouble(out.strip().split("|") if out.strip() else ())
    try:
        code, out, err = session.engine.run(machine, actions.command("status"), timeout=ASK)
        from deployer.components.backups.actions import answer

        follow = actions.status(answer("asking for the way back", machine, code, out, err)).follow
    except DeployError as error:
        return error.why
    return "" if follow.state == "streaming" else follow.error.get("why") or f"it is {follow.state}"


def slot_trouble(row: Sequence[str]) -> str:
    """What a row of pg_replication_slots (wal_status, active, bytes held) says against the way back; "" for nothing."""
    if not row:
        return "lost: its slot is gone"
    status, active, held = row[0], row[1], int(float(row[2] or 0))
    if status in ("lost", "unreserved"):
        return "lost: it is so far behind that what it would need was removed"
    if active != "t":
        return f"it does not follow now, {held >> 20} MiB wait for it"
    if held > BEHIND:
        return f"it is {held >> 20} MiB behind"
    return ""
