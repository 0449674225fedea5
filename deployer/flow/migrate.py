"""`deploy migrate`: the service to another vendor's machines, with requests that wait for seconds and nothing lost.

    preflight   what could stop it later
    target      machines, packages, files, the app; nothing serves there
    channel     the old side lets the new one in
    copy        database (a standby that streams) and files, while the old side serves
    cutover     the machines hand over by themselves; see flow/handover.py
    settle      bundle, names, probes; the old side becomes the new one's standby

Killed anywhere, the same command goes on. Until the old side has given its permit, it opens again by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployer.components.moving.actions import Cutover
from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.moving import MOVED, PREPARING, SETTLING, Move
from deployer.flow import foresight, generations, handover, moves, moving_view, preflight, readying, summary
from deployer.flow import up as bringing
from deployer.flow.moves import Sides
from deployer.flow.request import Request
from deployer.flow.session import SSH

# Seconds that requests may wait before the old side opens again. The proxy itself answers 503 after 30.
MAX_PAUSE = 25.0


@dataclass(frozen=True)
class Wish:
    """old, new: names of inventories; both "" with back (take the last move back) or resume (the one under way).

    max_pause: seconds. old_is_dead: the old side is said to be gone for good.
    """

    old: str = ""
    new: str = ""
    back: bool = False
    resume: bool = False
    max_pause: float = MAX_PAUSE
    old_is_dead: bool = False


@dataclass
class Times:
    """Seconds of each phase, in order; each is told as it begins."""

    sink: Sink
    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.sink(Event("stage", name, status="start"))
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.phases[name] = round(self.phases.get(name, 0) + seconds, 2)
        self.sink(Event("stage", name, status="ok", seconds=round(seconds, 2)))


def migrate(request: Request, sink: Sink, wish: Wish) -> dict[str, Any]:
    """Move the service; the summary of the `up` that ends it, with a section "migrate".

    Raises InputError for a wish that cannot be, TakenBackError when the old side serves on, DeployError otherwise, saying
    who serves and what leads on.
    """
    from deployer.state.lock import lock

    began, started = time.monotonic(), datetime.now(UTC)
    move = moves.known(request)
    old, new = _ends(wish, move)
    moves.refuse(move, old, new)
    going_on = move if move and _same(move, old, new) else None
    with moves.opened(request, sink, old, new, going_on) as sides, ExitStack() as held:
        preflight.refuse_without_repositories(sides)
        folders = {"old": sides.old.project.state_dir, "new": sides.new.project.state_dir}
        locks = {side: held.enter_context(lock(folder, "migrate")) for side, folder in folders.items()}
        _check_live(sides, going_on)
        follows = bool(move and move.phase == MOVED and move.old == str(sides.new.project.deployment))
        if going_on is None:
            foresight.foresee(sides)
            _ask(sides)
            moves.begin(sides)
        times = Times(sink)
        run = bringing.make_machines(sides.new, locks["new"], started, began)
        sides.machines["new"] = run.machines
        done = _under_way(sides, run, wish)
        with ExitStack() as watching:
            if done is None:
                _approach(sides, run, wish, times, locks["old"], follows)
                watch = watching.enter_context(moving_view.watch(sides)) if not wish.old_is_dead else None
                with times.phase("cutover"):
                    done = handover.cutover(sides, wish.max_pause, old_is_dead=wish.old_is_dead)
            else:
                watch = None
            with times.phase("settle"):
                body = handover.settle(sides, run)
                way_back = _way_back(sides)
                moves.settled(sides)
        body["migrate"] = _record(sides, done, times, way_back, time.monotonic() - began)
        if watch:
            body["migrate"]["watch"] = watch.result().to_json()
        body["notes"] += [*(str(one) for one in done.checks if not one.good), way_back]
        from deployer.state import receipts

        receipts.write(request.root, "migrate", sides.new.project.deployment, summary.receipt(body), started)
        return body


def _approach(
    sides: Sides, run: bringing.Run, wish: Wish, times: Times, held_old: Any, follows: bool
) -> None:
    """All until requests are held."""
    if wish.old_is_dead:
        session = sides.new
        session.connected(session.connect(run.machines, SSH), SSH)
        return
    with times.phase("preflight"):
        readying.old_machines(sides)
        moves.placed(sides)
    with times.phase("target"):
        view = readying.target(sides, run, follows=follows)
    with times.phase("channel"):
        readying.channel(sides, held_old)
        for text in preflight.compare(sides, view):
            sides.new.sink(Event("notice", text))
    with times.phase("copy"):
        readying.copy(sides)


def _ends(wish: Wish, move: Move | None) -> tuple[str, str]:
    """The names of both inventories. Raises InputError."""
    if wish.back:
        if move is None or move.phase != MOVED:
            raise InputError(
                "moving back",
                "no move of this stack could be taken back"
                + (f": the one from {move.old} to {move.new} has not ended" if move else ""),
                "deploy migrate --resume goes on with it"
                if move
                else "deploy migrate --from A --to B moves it anywhere",
            )
        return moves.inventory(move.new), moves.inventory(move.old)
    if wish.resume:
        if move is None or move.phase not in (PREPARING, SETTLING):
            raise InputError("going on with a move", "none is under way", "deploy migrate --from A --to B")
        return moves.inventory(move.old), moves.inventory(move.new)
    if not wish.old or not wish.new:
        raise InputError("moving", "it needs --from and --to", "deploy migrate --from hetzner --to aws")
    if wish.old == wish.new:
        raise InputError(
            "moving",
            f"--from and --to are both {wish.old}",
            "another region or size is another inventory: copy the file, change it, and name it with --to",
        )
    return wish.old, wish.new


def _same(move: Move, old: str, new: str) -> bool:
    ends = (moves.inventory(move.old), moves.inventory(move.new))
    return move.phase in (PREPARING, SETTLING) and ends == (old, new)


def _check_live(sides: Sides, going_on: Move | None) -> None:
    """The old side must be the live one, and no repository may know better. Raises DeployError."""
    if going_on and going_on.phase == SETTLING:
        return
    old = sides.old.project
    held = generation.current(sides.old.secrets)
    if held is None or held.deployment != str(old.deployment) or held.released in sides.old.secrets:
        who = f"{held.deployment} is (generation {held.number})" if held else "no deployment of this stack is"
        raise InputError(
            f"moving {old.deployment}",
            f"it is not the live deployment: {who}",
            "name the live one with --from; deploy status --provider NAME tells",
        )
    if going_on is None:
        # A generation that this move opened itself is no surprise.
        generations.confirm_newest(sides.new)


def _ask(sides: Sides) -> None:
    old, new = sides.old.project.deployment, sides.new.project.deployment
    if not sides.new.request.confirm(f"move the service from {old} to {new}. Go on?"):
        raise InputError(
            "moving", "stopped before anything was changed", "run it again and say yes, or use --yes"
        )


def _under_way(sides: Sides, run: bringing.Run, wish: Wish) -> Cutover | None:
    """A cutover that went on while nobody looked, followed to its end: the machines know. None before there is one."""
    if run.new or not sides.move.places:
        return None
    session = sides.new
    session.connected(session.connect(run.machines, SSH), SSH)
    try:
        found = sides.status("new").cutover
    except DeployError:
        # It has not come so far that its programs are there.
        return None
    if found.id != sides.move.id:
        return None
    if found.state != "running" and found.permit != "given" and found.state != "unknown":
        return None
    _old_if_it_answers(sides)
    if found.state == "done":
        return found
    if found.state == "running":
        return handover.follow(sides, wish.max_pause)
    return handover.cutover(sides, wish.max_pause, old_is_dead=wish.old_is_dead)


def _old_if_it_answers(sides: Sides) -> None:
    """The old side's machines, when they answer; the new one is live without them."""
    try:
        readying.old_machines(sides)
    except DeployError as error:
        sides.old.sink(Event("warning", f"{sides.move.old} does not answer: {error.why}"))


def _way_back(sides: Sides) -> str:
    if "old" not in sides.machines:
        return f"no way back: {sides.move.old} does not answer"
    return handover.keep_way_back(sides)


def _record(sides: Sides, done: Cutover, times: Times, way_back: str, total: float) -> dict[str, Any]:
    phases = [{"name": name, "seconds": seconds} for name, seconds in times.phases.items()]
    return {
        "verb": "migrate",
        "from": sides.move.old,
        "to": sides.move.new,
        "generation": sides.move.number,
        "phases": phases,
        "cutover": dict(done.seconds),
        "pause_seconds": round(done.pause, 2),
        "app_start_seconds": round(done.seconds.get("app", 0.0), 2),
        "held_at": done.held_at,
        "served_at": done.served_at,
        "bytes": sum(done.bytes.values()),
        "parts": {name: {"bytes": count} for name, count in done.bytes.items()},
        "verified": [str(one) for one in done.checks],
        "way_back": way_back,
        "total_seconds": round(total, 1),
    }
