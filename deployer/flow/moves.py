"""The move of a stack as the bundle knows it, and the two sides of it with a session each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from deployer.components.moving import actions
from deployer.core import generation, moving
from deployer.core.component import Secret
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.machine import Machine
from deployer.core.moving import ENDED, MOVED, PREPARING, SETTLING, Move
from deployer.flow import claims, generations, provision
from deployer.flow.request import Request
from deployer.flow.session import Session

# Seconds for a verb of the programs on a machine, and for what may copy or wait a little.
ASK, WORK = 60, 180


@dataclass
class Sides:
    """old, new: the sessions of the two deployments. machines: of each side, once they are known."""

    old: Session
    new: Session
    move: Move
    machines: dict[str, Mapping[str, Machine]] = field(default_factory=dict)
    # A rehearsal: nothing of it is written into the bundle.
    draft: bool = False

    def session(self, side: str) -> Session:
        return self.old if side == "old" else self.new

    def lead(self, side: str) -> str:
        """The name of the machine with the database."""
        return provision.roles(self.session(side).project)["database"][0]

    def names(self, side: str) -> list[str]:
        return [entry.name for entry in self.session(side).project.inventory.machines if entry.roles]

    def keep(self, move: Move, more: Mapping[str, str] | None = None) -> None:
        """Write the move, and what else is given by name, into the bundle that both sides read."""
        if self.draft:
            for session in (self.old, self.new):
                session.secrets = {**session.secrets, **(more or {}), move.entry: move.to_json()}
                session.mask.learn(session.secrets.values(), session.project)
            self.move = move
            return

        def change(bundle: Any) -> None:
            for name, value in (more or {}).items():
                bundle.put(Secret(name, "given"), value)
            bundle.put(Secret(move.entry, "given"), move.to_json())

        generations.change_bundle(self.new, change)
        self.old.secrets = self.new.secrets
        self.old.mask.learn(self.new.secrets.values(), self.old.project)
        self.move = move

    # --- what the machines are asked ---

    def ask(self, side: str, machine: str, verb: str, *, stdin: str = "", timeout: float = WORK) -> Any:
        """Have a machine's program do something. Raises DeployError in its own words."""
        from deployer.components.backups.actions import answer

        code, out, err = self.session(side).engine.run(
            machine, actions.command(verb), stdin=stdin, timeout=timeout
        )
        return answer(f"asking for `{verb}`", f"{side} {machine}", code, out, err)

    def status(self, side: str, machine: str = "") -> actions.Status:
        """What a machine says of the move; the lead of the side when none is named."""
        return actions.status(self.ask(side, machine or self.lead(side), "status", timeout=ASK))

    def progress(self) -> actions.Cutover:
        """How far the switchover is, by the new side's word."""
        return actions.status(self.ask("new", self.lead("new"), "progress", timeout=ASK)).cutover


@contextmanager
def opened(request: Request, sink: Sink, old: str, new: str, move: Move | None) -> Iterator[Sides]:
    """Both sessions. old, new: names of inventories. move: the one that goes on; None opens another later."""
    # The new one first: it makes the keys of machines that the bundle does not know.
    with Session.open(replace(request, provider=new), told(sink, new), make_secrets=True) as fresh:
        try:
            with Session.open(replace(request, provider=old), told(sink, old), make_secrets=False) as former:
                placeholder = Move("", str(former.project.deployment), str(fresh.project.deployment), 0, "")
                fresh.taking = frozenset({str(former.project.deployment)})
                yield Sides(former, fresh, move or placeholder)
        except DeployError as error:
            fresh.mask.error(error)
            raise


def told(sink: Sink, name: str) -> Sink:
    """Machines of both sides may be called the same: say which side speaks."""

    def tell(event: Event) -> None:
        sink(replace(event, machine=f"{name}: {event.machine}" if event.machine else name))

    return tell


def known(request: Request) -> Move | None:
    """The move that the bundle knows of. Raises InputError where there is no bundle."""
    from deployer.flow.secrets import existing

    return moving.newest(existing(request).values)


def inventory(deployment: str) -> str:
    """The inventory's name of "stack@inventory"."""
    return deployment.partition("@")[2]


def begin(sides: Sides) -> None:
    """Open the move in the bundle: its keys, and the passwords of the generation to come. A move that could be taken back
    and is now replaced by another one ends."""
    secrets, project = sides.new.secrets, sides.new.project
    live = generation.held(secrets, str(sides.old.project.deployment))
    assert live
    seen = claims.look(project, project.inventory.repositories)
    number = max([live.number, *(one.highest.number for one in seen if one.highest)]) + 1
    began = datetime.now(UTC)
    move = Move(
        began.strftime("%Y%m%dT%H%M%S"),
        str(sides.old.project.deployment),
        str(project.deployment),
        number,
        began.isoformat(timespec="seconds"),
    )
    from deployer.pki import keys

    more = {
        move.password.name: keys.password(),
        move.key("old").name: keys.ssh(),
        move.key("new").name: keys.ssh(),
    }
    for repository in project.inventory.repositories:
        for secret in generation.ciphers(number, repository.name):
            if secret.name not in secrets:
                more[secret.name] = keys.password()
    if (before := moving.newest(secrets)) and before.id != move.id:
        more[before.entry] = replace(before, phase=ENDED).to_json()
    sides.keep(move, more)


def placed(sides: Sides) -> None:
    """Write down where the machines of both sides are."""
    places = [
        moving.place(side, machine, _roles(sides.session(side), name))
        for side, machines in sides.machines.items()
        for name, machine in machines.items()
    ]
    if tuple(places) != sides.move.places:
        sides.keep(sides.move.at(places))


def _roles(session: Session, machine: str) -> tuple[str, ...]:
    entries = {entry.name: entry.roles for entry in session.project.inventory.machines}
    return entries.get(machine, ())


def moved(sides: Sides) -> None:
    """The new side is live: its generation stands in the bundle, and its claim in every repository that answers."""
    move, project = sides.move, sides.new.project
    live = generation.Generation(move.number, move.new, _now(), move.id)
    held = generation.current(sides.new.secrets)
    more = {} if held and held.number >= live.number else {live.entry: live.to_json()}
    sides.keep(replace(move, phase=SETTLING), more)
    generations.claim(sides.new, generations.Standing(None, project.inventory.repositories))


def settled(sides: Sides) -> None:
    """All that follows from it is done; the old side is the new one's standby."""
    sides.keep(replace(sides.move, phase=MOVED))


def ended(sides: Sides) -> None:
    sides.keep(replace(sides.move, phase=ENDED))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def refuse(move: Move | None, old: str, new: str) -> None:
    """Raise InputError for a wish that does not fit to what is under way. old, new: names of inventories."""
    if move is None or move.phase not in (PREPARING, SETTLING):
        return
    if (inventory(move.old), inventory(move.new)) != (old, new):
        raise InputError(
            f"moving from {old} to {new}",
            f"a move from {move.old} to {move.new} has begun ({move.began}) and has not ended",
            f"go on with it: deploy migrate --from {inventory(move.old)} --to {inventory(move.new)}; or give it up: "
            "deploy migrate --give-up",
        )
