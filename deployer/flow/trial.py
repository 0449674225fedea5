"""`deploy migrate --rehearse`: the whole move into machines that are thrown away, with a copy of the data.

The public notices nothing: the old side is never held, nothing is claimed, no name changes, and the copy's ways out are
closed before its app starts. What is measured is what the new side takes; stopping the old one adds a few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from deployer.core import generation, moving
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.machine import ROLES, Machine
from deployer.core.model import Acme, MachineEntry, Project
from deployer.core.moving import REHEARSING, Move
from deployer.flow import apply, moves, preflight, provision, readying
from deployer.flow import up as bringing
from deployer.flow.leasing import Lease
from deployer.flow.look import look
from deployer.flow.moves import Sides
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session

# Seconds that the trial on the machine may take; what stopping the old side takes, about, with what is in flight.
LONGEST, STOPPING = 2400, 3.0
# Nothing leaves the machine any more but answers, and what it asks the old side's machines through the channel.
_CLOSE = """
set -e
nft -f - <<'RULES'
table inet deploy_rehearsal
delete table inet deploy_rehearsal
table inet deploy_rehearsal {
    chain output {
        type filter hook output priority -10; policy drop;
        oif lo accept
        ct state established,related accept
        fib daddr type local accept
        meta l4proto ipv6-icmp accept
        %s
    }
}
RULES
"""


def rehearse(request: Request, sink: Sink, old: str, new: str) -> dict[str, Any]:
    """Try the move; what it measured. Raises InputError and DeployError as `migrate` does; the copy goes either way."""
    from deployer.state import receipts
    from deployer.state.lock import lock

    began, started = time.monotonic(), datetime.now(UTC)
    with (
        Session.open(
            replace(request, provider=new),
            moves.told(sink, new),
            make_secrets=False,
            draft=True,
            change=disguised,
        ) as fresh,
        Session.open(replace(request, provider=old), moves.told(sink, old), make_secrets=False) as former,
    ):
        _check(former, fresh)
        before = dict(former.secrets)
        sides = Sides(former, fresh, Move("", "", "", 0, ""), draft=True)
        with (
            lock(fresh.project.state_dir, "rehearsal") as held,
            lock(former.project.state_dir, "rehearsal") as ours,
        ):
            _clear(fresh)
            times: dict[str, float] = {}
            try:
                body = _try(sides, held, ours, started, began, times)
            except DeployError as error:
                fresh.mask.error(error)
                raise
            finally:
                # Before its target was made, nothing was asked of the old side.
                if "target" in times:
                    _undo(sides, ours, before)
                _clear(fresh)
    receipts.write(request.root, "rehearsal", former.project.deployment, body, started)
    return {"rehearsal": body, "notes": _notes(body)}


def disguised(project: Project) -> Project:
    """The new side as a copy that nobody sees: one machine, everything caught, nothing named to the world."""
    inventory = project.inventory
    entry = MachineEntry(f"{project.stack.name}-rehearsal-all-1", ROLES, inventory.machines[0].options)
    return replace(
        project,
        inventory=replace(
            inventory,
            name=f"{inventory.name}-rehearsal",
            machines=(entry,),
            catch=True,
            acme=Acme(),
            smarthosts=(),
            carriers=(),
            dns=(),
            drill=True,
        ),
    )


def _check(old: Session, new: Session) -> None:
    if new.project.inventory.provider == "ssh":
        raise InputError(
            "rehearsing a move",
            f"the machines of {new.request.provider} are your own, and cannot be made and thrown away",
            "rehearse with an inventory of a vendor, or of the provider local",
        )
    live = generation.held(old.secrets, str(old.project.deployment))
    if live is None or moving.newest(old.secrets):
        raise InputError(
            "rehearsing a move",
            f"{old.project.deployment} is not the live deployment, or a move is under way",
            "name the live one with --from; end the move first (deploy migrate --resume, deploy retire)",
        )


def _try(
    sides: Sides, held: Any, ours: Any, started: datetime, began: float, times: dict[str, float]
) -> dict[str, Any]:
    """times: seconds of each part that ended."""
    from deployer.pki import keys

    def lap(name: str) -> None:
        times[name] = round(time.monotonic() - began - sum(times.values()), 2)

    old = sides.old.project.deployment
    live = generation.held(sides.old.secrets, str(old))
    assert live
    move = Move(
        started.strftime("%Y%m%dT%H%M%S-rehearsal"),
        str(old),
        str(sides.new.project.deployment),
        live.number + 1,
        started.isoformat(timespec="seconds"),
        REHEARSING,
    )
    secrets = {
        move.password.name: keys.password(),
        move.key("old").name: keys.ssh(),
        move.key("new").name: keys.ssh(),
    }
    sides.keep(move, secrets)
    run = bringing.make_machines(sides.new, held, started, began)
    sides.machines["new"] = run.machines
    readying.old_machines(sides)
    moves.placed(sides)
    lap("machines")
    view = readying.target(sides, run, follows=False)
    lap("target")
    readying.channel(sides, ours)
    said = preflight.compare(sides, view)
    lap("channel")
    readying.copy(sides)
    lap("copy")
    _close(sides, run.machines)
    tried = sides.ask("new", sides.lead("new"), "trial", timeout=LONGEST)
    lap("trial")
    seconds: Mapping[str, float] = tried["seconds"]
    expected = STOPPING + sum(seconds.values())
    return {
        "verb": "migrate --rehearse",
        "from": str(old),
        "to": move.new,
        "phases": [{"name": name, "seconds": value} for name, value in times.items()],
        "new_side_seconds": dict(seconds),
        "expected_pause_seconds": round(expected, 1),
        "verified": said,
        "total_seconds": round(time.monotonic() - began, 1),
    }


def _close(sides: Sides, machines: Mapping[str, Machine]) -> None:
    rules = []
    for place in sides.move.of("old"):
        for address in place.addresses:
            family = "ip6" if ":" in address else "ip"
            rules.append(f"{family} daddr {address} tcp dport {place.port} accept")
    for name in machines:
        code, out, err = sides.new.engine.run(name, _CLOSE % "\n        ".join(rules), timeout=30)
        if code:
            raise DeployError("closing the copy's ways out", (err or out).strip()[-500:], machine=name)


def _undo(sides: Sides, held: Any, before: Mapping[str, str]) -> None:
    """The old side forgets the rehearsal: its slot first, which would hold WAL. Tells what it could not do."""
    session, machines = sides.old, sides.machines.get("old")
    if not machines:
        return
    try:
        if sides.move.places:
            for name in machines:
                sides.ask("old", name, "end")
        session.secrets = before
        with Lease(session, machines, held) as lease:
            view = look(session, machines, None, timeout=SSH, lease=lease.take(), probes=False)
            lease.renew_from_now_on()
            work = {name: (view.wanted[name], view.found[name], view.of(name)) for name in machines}
            bringing.carry_out(session, apply.part(work, "moving"))
            lease.release()
    except DeployError as error:
        text = (
            f"what the rehearsal left on {sides.move.old} is still there ({error.why}): deploy up removes it"
        )
        session.sink(Event("warning", text))


def _clear(session: Session) -> None:
    from deployer.state.journal import Journal

    ours = {name: machine for name, machine in session.existing().items() if machine.ours}
    if ours:
        provision.delete(session.provider, ours, Journal(session.project.state_dir), session.sink)


def _notes(body: Mapping[str, Any]) -> list[str]:
    parts = ", ".join(f"{name} {value:g} s" for name, value in body["new_side_seconds"].items())
    return [
        f"expect a pause of about {body['expected_pause_seconds']:g} s: the new side took {parts}; stopping the old one "
        f"takes about {STOPPING:g} s",
        "the copy is deleted, and nobody noticed it",
    ]
