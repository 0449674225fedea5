"""The two sides of a move before anything is held: the new one has all that serves and serves nothing; the old one has
the channel to it. Neither changes anything for the public.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.components.moving.actions import Files, Standby
from deployer.core.amounts import clock
from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.machine import Machine
from deployer.flow import apply, moves, names, registry
from deployer.flow import up as bringing
from deployer.flow.leasing import Lease
from deployer.flow.look import View, look
from deployer.flow.moves import Sides
from deployer.flow.recovery import fetch_release
from deployer.flow.session import SSH, SSH_NEW


def old_machines(sides: Sides) -> None:
    """Connect to the old side. Raises DeployError when a machine of it is missing or cannot be reached."""
    session = sides.old
    machines = session.running()
    lacking = [name for name in sides.names("old") if name not in machines]
    if lacking:
        raise DeployError(
            f"looking for {session.project.deployment}",
            f"it lacks {', '.join(lacking)}",
            f"deploy up --provider {session.project.inventory.name}, or deploy restore --provider "
            f"{sides.new.project.inventory.name} when it is gone for good",
        )
    session.connected(session.connect(machines, SSH), SSH)
    sides.machines["old"] = machines


def channel(sides: Sides, held: Any) -> View:
    """The old side gets what the move needs there: programs, keys, marks. Nothing restarts.

    Raises DeployError when it is not as the project says: a move is no time for other changes.
    """
    session, machines = sides.old, sides.machines["old"]
    with Lease(session, machines, held) as lease:
        view = look(session, machines, None, timeout=SSH, lease=lease.take(), probes=False)
        lease.renew_from_now_on()
        if other := [change for change in view.changes if change.component != "moving"]:
            name = session.project.inventory.name
            raise DeployError(
                f"looking at {session.project.deployment}",
                f"it is not as the project says: {len(other)} difference(s), the first: {other[0].component}: {other[0]}",
                f"deploy plan --provider {name} shows them, deploy up --provider {name} mends them; then migrate",
            )
        bringing.carry_out(session, apply.part(_work(view), "moving"))
        for name in machines:
            sides.ask("old", name, "prepare")
        lease.release()
    if names.managed(session) and not sides.draft:
        # Mail of both sides is ours from now on.
        names.apply(session, machines)
    return view


def target(sides: Sides, run: bringing.Run, *, follows: bool) -> View:
    """The new side: packages, files, the app as it was built, units enabled and none of them started.

    follows: it is the standby of the old one already (the way back): what runs there goes on.
    """
    session, machines = sides.new, run.machines
    timeout = SSH_NEW if run.new else SSH
    with Lease(session, machines, run.held) as lease:
        connection = session.connect(machines, timeout)
        view = look(session, machines, connection, timeout=timeout, lease=lease.take(), probes=False)
        lease.renew_from_now_on()
        older = {name: machine for name, machine in machines.items() if name not in run.new}
        if older and not follows:
            _quiet(sides, older)
        apart = ("proxy",) if follows else ()
        before, after = apply.standing_by(_work(view), registry.component_names(), apart)
        bringing.carry_out(session, before)
        for name in machines:
            sides.ask("new", name, "prepare")
        bringing.carry_out(session, after)
        lease.release()
    _release(sides, view)
    return view


def _quiet(sides: Sides, machines: Mapping[str, Machine]) -> None:
    """Machines that had another life: nothing of it may run, and the database of a standby that we made goes on."""
    from deployer.flow.down import stop_services

    for name in list(machines):
        code, _, _ = sides.new.engine.run(name, "test -e /var/lib/deploy/moving/fenced", timeout=moves.ASK)
        if code:
            stop_services(sides.new, {name: machines[name]})


def _release(sides: Sides, view: View) -> None:
    """The app as it was built, from a repository; where none has it, it is built anew. No registry can stop a move."""
    from deployer.flow import generations
    from deployer.state.restoring import Order

    work = _work(view)
    app = [name for name in view.machines if "app" in _roles(sides, name)]
    if all(view.found[name].part("steps").get("app.release", {}).get("ok") for name in app):
        return
    live = _live(sides)
    held, _ = generations.repositories_with(sides.new.project, live)
    order = Order("move", held[0] if held else "", live, "", "", sides.move.began)
    fetch_release(sides.new, order, elsewhere=True)
    # Done already where it was fetched.
    bringing.carry_out(sides.new, apply.building(work))


def _live(sides: Sides) -> int:
    from deployer.core import generation

    live = generation.held(sides.new.secrets, sides.move.old)
    if live is None:
        raise DeployError(
            f"moving {sides.move.old}", "it is not the live deployment any more", "see deploy status"
        )
    return live.number


def _roles(sides: Sides, machine: str) -> tuple[str, ...]:
    entries = {entry.name: entry.roles for entry in sides.new.project.inventory.machines}
    return entries.get(machine, ())


def _work(view: View) -> dict[str, Any]:
    return {name: (view.wanted[name], view.found[name], view.of(name)) for name in view.machines}


# --- the data, while the service runs ---

# Seconds between two looks; until the standby has caught up and the files were compared; that nobody may answer.
EVERY, LONGEST, SILENT = 2.0, 48 * 3600, 600
# Bytes that the standby may be behind, and seconds that the last pass over the files took, when it is near enough.
NEAR, QUICK = 16 << 20, 30.0


def copy(sides: Sides) -> None:
    """Have the new side copy database and files while the old one serves, until what is left is small. Raises DeployError
    in the words of what failed; the machines go on when this ends."""
    lead = sides.lead("new")
    sides.ask("new", lead, "standby")
    for name in sides.names("new"):
        sides.ask("new", name, "files")
    began = heard = time.monotonic()
    told, first = "", None
    while True:
        try:
            found = {name: sides.status("new", name) for name in sides.names("new")}
            heard = time.monotonic()
        except DeployError:
            if time.monotonic() - heard > SILENT:
                raise
            time.sleep(EVERY)
            continue
        _stop_if_failed(found, lead)
        standby = found[lead].standby
        files = [one.files for one in found.values()]
        if first is None and standby.done:
            first = (time.monotonic(), standby.done)
        words = _words(standby, files, first)
        ready = (
            standby.state == "streaming"
            and standby.lag is not None
            and standby.lag <= NEAR
            and all(one.passes and one.last_seconds <= QUICK for one in files)
        )
        if words != told:
            told = words
            data = {"done": standby.done, "total": standby.total, "lag": standby.lag}
            sides.new.sink(Event("step", words, machine=lead, status="ok" if ready else "start", data=data))
        if ready:
            return
        if time.monotonic() - began > LONGEST:
            raise DeployError(
                "copying database and files",
                f"the new side has not caught up after {LONGEST // 3600} h; it goes on",
                "run the same command again to follow it",
            )
        time.sleep(EVERY)


def _stop_if_failed(found: Mapping[str, Any], lead: str) -> None:
    for name, one in found.items():
        for what, part in (("database", one.standby), ("files", one.files)):
            if part.state == "failed" and (what != "database" or name == lead):
                error = part.error
                raise DeployError(
                    error.get("what") or f"copying the {what}",
                    error.get("why") or "it failed, and did not say why",
                    error.get("next") or "run the same command again; the old side serves as before",
                    machine=name,
                )


def _words(standby: Standby, files: Sequence[Files], first: tuple[float, int] | None) -> str:
    """first: when the first bytes were seen, and how many."""
    if standby.state == "streaming":
        behind = "" if standby.lag is None else f", {standby.lag >> 10} KiB behind"
        text = f"database streams{behind if standby.lag and standby.lag > NEAR else ''}"
    elif standby.total:
        text = f"database: {100 * standby.done // standby.total} % of {standby.total >> 20} MiB{_left(standby, first)}"
    else:
        text = f"database: {standby.phase or 'beginning'}"
    passes = min((one.passes for one in files), default=0)
    return f"{text}; files: {'compared' if passes else 'first pass'}"


def _left(standby: Standby, first: tuple[float, int] | None) -> str:
    """How long the copy will take from now on, when that can be told."""
    if first is None or (seconds := time.monotonic() - first[0]) < 5 or standby.done <= first[1]:
        return ""
    left = (standby.total - standby.done) * seconds / (standby.done - first[1])
    return f", about {clock(max(left, 1))} left"
