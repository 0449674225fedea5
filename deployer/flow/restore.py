"""`deploy restore`: the service from a repository, on machines of any provider.

The order of things: machines and packages; the data beside where they belong, checked, and only then in their place;
the new generation, which ends the right of any older copy to serve; the services, the names, the probes. Until all
was checked an old service stays as it is. Killed anywhere, the same command goes on. A repository that is damaged gives
way to another one, when none was named.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.flow import summary
from deployer.flow import up as bringing
from deployer.flow.groundwork import ready
from deployer.flow.look import View
from deployer.flow.recovery import (
    Lacking,
    RepositoryError,
    Restored,
    ask_all,
    bring_back,
    fetch_release,
    lacking,
    parts,
)
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session

if TYPE_CHECKING:
    from deployer.state.restoring import Order


@dataclass(frozen=True)
class Wish:
    """What the operator asked for. repository: a name, "" for the one with the newest data. time: ISO 8601; point: a
    recovery point; both "" for the newest moment. old_is_dead: whoever is live now is said to be gone for good.
    """

    repository: str = ""
    time: str = ""
    point: str = ""
    old_is_dead: bool = False


def restore(request: Request, sink: Sink, wish: Wish) -> dict[str, Any]:
    """Bring the service back; the summary of the `up` that ends it, with a section "restore".

    Raises InputError for a wish that cannot be, DeployError saying where it stopped; what exists is then as it was,
    or the next run goes on from there.
    """
    from deployer.state.lock import lock

    began, started = time.monotonic(), datetime.now(UTC)
    with Session.open(request, sink, make_secrets=True) as session:
        try:
            _check_wish(session, wish)
            with lock(session.project.state_dir, "restore") as held:
                order = decide(session, wish, started)
                run = bringing.make_machines(session, held, started, began)
                return _restore(session, run, order, wish, began)
        except DeployError as error:
            session.mask.error(error)
            raise


def _restore(session: Session, run: bringing.Run, order: Order, wish: Wish, began: float) -> dict[str, Any]:
    from deployer.flow import generations
    from deployer.state import receipts
    from deployer.state import restoring as state

    times = {"machines": time.monotonic() - began}
    project = session.project
    if not order.claimed:
        view = ready(session, run)
        times["packages and files"] = time.monotonic() - began - sum(times.values())
        restored, order = _data(session, view, order, named=bool(wish.repository))
        fetch_release(session, order, elsewhere=True)
        times["data"] = time.monotonic() - began - sum(times.values())
        raised = generations.raise_generation(session, order.id)
        order = replace(order, claimed=raised.number, placing=True)
        state.save(project.state_dir, order)
    else:
        session.connected(session.connect(run.machines, SSH), SSH)
        restored = Restored(ask_all(session, parts(session)))
        session.sink(Event("notice", f"the data are in their place; generation {order.claimed} is this one"))
    body = bringing.converge(session, replace(run, record=False))
    times["services"] = time.monotonic() - began - sum(times.values())
    body["restore"] = _record(order, restored, lacking(session, restored), times, time.monotonic() - began)
    body["notes"] += _notes(body["restore"])
    receipts.write(project.root, "restore", project.deployment, summary.receipt(body), run.started)
    state.forget(project.state_dir)
    return body


def _data(session: Session, view: View, order: Order, *, named: bool) -> tuple[Restored, Order]:
    """The data in their place, and the order as it was carried out: from another repository than it began with, where
    that one is damaged. named: the operator named it, so no other one is taken."""
    from deployer.flow import generations
    from deployer.state import restoring as state

    folder, tried = session.project.state_dir, [order.repository]
    while True:

        def placing(now: Order = order) -> None:
            state.save(folder, replace(now, placing=True))

        try:
            hold = not session.project.inventory.catch
            return bring_back(session, view, order, hold_queues=hold, placing=placing), order
        except RepositoryError as error:
            session.mask.error(error)
            held = [] if named else generations.repositories_with(session.project, order.generation)[0]
            if not (left := [name for name in held if name not in tried]):
                if others := tried[:-1]:
                    error.detail = f"{error.detail}\ntried before: {', '.join(others)}".strip()
                raise
            tried.append(left[0])
            text = f"{order.repository}: {error.what}: {error.why}; taking {left[0]} instead"
            session.sink(Event("warning", text, machine=error.machine or ""))
            order = replace(order, id=state.new_id(), repository=left[0], instead=order.id)
            state.save(folder, order)


def _check_wish(session: Session, wish: Wish) -> None:
    if wish.time and wish.point:
        raise InputError("restore", "--at and --point were both given", "give one of them")
    if wish.time:
        moment(wish.time)
    names = [one.name for one in session.project.inventory.repositories]
    if not names:
        raise InputError(
            f"restoring {session.project.deployment}",
            f"inventories/{session.project.inventory.name}.yaml names no repositories",
            "name the one that holds the backups there (docs/backups.md)",
        )
    if wish.repository and wish.repository not in names:
        raise InputError(
            f"restoring {session.project.deployment}",
            f'the inventory has no repository "{wish.repository}"',
            f"it has: {', '.join(names)}",
        )


def moment(text: str) -> str:
    """A time as an operator writes it, as ISO 8601 in UTC. Raises InputError; without a zone it is UTC."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            "reading --at", f'"{text}" is no time', "write it as 2026-11-24T20:45:00Z or '2026-11-24 20:45'"
        ) from None
    given = given if given.tzinfo else given.replace(tzinfo=UTC)
    return given.astimezone(UTC).isoformat().replace("+00:00", "Z")


# --- what shall be restored ---


def decide(session: Session, wish: Wish, now: datetime) -> Order:
    """The decisions of this restore: those of a run that was broken off, or new ones."""
    from deployer.state import restoring as state

    project = session.project
    source = generation.current(session.secrets)
    if before := state.load(project.state_dir):
        asked = (wish.repository or before.repository, moment(wish.time) if wish.time else before.time)
        if asked == (before.repository, before.time) and wish.point in ("", before.point):
            session.sink(
                Event("notice", f"going on with the restore that began {before.began}", data=vars(before))
            )
            if source and not before.claimed:
                _still_right(session, source, before)
            return before
        if before.placing or before.claimed:
            raise InputError(
                f"restoring {project.deployment}",
                f"one from {before.repository} that began {before.began} has not ended, and its data are in place",
                "run it again without --from, --at and --point to end it",
            )
        words = f"the restore from {before.repository} that began {before.began} is given up for another"
        session.sink(Event("notice", words))
    if source is None:
        raise InputError(
            f"restoring {project.deployment}",
            "the secrets bundle knows of no generation: nothing of this stack was ever backed up from this folder",
            "deploy adopt --from URL fetches the newest bundle from a repository",
        )
    _may_replace(session, source, wish)
    # Recovery ends at the newest commit that is not after the moment; the files' point lies at or before it.
    target = moment(wish.time) if wish.time else wish.point
    order = state.Order(
        state.new_id(),
        wish.repository or newest(session, source),
        source.number,
        target,
        wish.point,
        now.isoformat(timespec="seconds"),
        instead=before.id if before else "",
    )
    words = f"from {order.repository}, generation {source.number}, " + (order.time or "the newest moment")
    session.sink(Event("notice", f"restore {words}", data=vars(order)))
    state.save(project.state_dir, order)
    return order


def _may_replace(session: Session, live: generation.Generation, wish: Wish) -> None:
    """Two must never serve. Raises InputError when it is not clear that the live one does not."""
    own = str(session.project.deployment)
    if live.deployment == own:
        # Its own provider says whether its machines are there; they are stopped before their data are replaced.
        if session.existing() and not session.request.confirm(
            f"{own} is live. Stop it, and replace its data by the backup? (what is there is kept aside)"
        ):
            raise InputError("restore", "stopped before anything was changed", "run it again and say yes")
        return
    if not wish.old_is_dead:
        raise InputError(
            f"restoring {own}",
            f"{live.deployment} is live (generation {live.number}), and may still take writes",
            "while it answers, what it takes from now on would be lost: switch it off first, or end it with deploy down. "
            "When it is gone for good, or switched off by you: add --old-is-dead; "
            "it then serves nothing any more, as soon as it sees a repository",
        )
    session.taking = frozenset({live.deployment})


def _still_right(session: Session, live: generation.Generation, order: Order) -> None:
    """An order that was decided before may be carried out only while nobody else became live since."""
    own = str(session.project.deployment)
    if live.deployment == own:
        return
    if live.number != order.generation:
        raise InputError(
            f"going on with the restore of {own}",
            f"{live.deployment} became live since it began (generation {live.number}, and it reads {order.generation})",
            f"see which of the two shall serve; to begin anew remove {session.project.state_dir}/restore.json",
        )
    session.taking = frozenset({live.deployment})


def newest(session: Session, source: generation.Generation) -> str:
    """The repository that holds the newest WAL, of those that answer. Raises DeployError when none does."""
    from deployer.flow.generations import look_for_newest

    return look_for_newest(session, source)


# --- the record ---


def _record(
    order: Order, restored: Restored, lacks: Lacking, times: Mapping[str, float], total: float
) -> dict[str, Any]:
    moved = sum(one.total for one in restored.parts.values())
    reached = restored.recovered_to
    record: dict[str, Any] = {
        "repository": order.repository,
        "from_generation": order.generation,
        "generation": order.claimed,
        "asked_for": order.time or "newest",
        "recovered_to": reached,
        "point": next(
            (one.recovered_to for name, one in restored.parts.items() if name.endswith("files")), ""
        ),
        "seconds": {name: round(value, 1) for name, value in times.items()},
        "parts": {
            name: {"seconds": dict(one.seconds), "bytes": one.total, "checks": list(one.checks)}
            | ({"damaged": list(one.damaged)} if one.damaged else {})
            for name, one in restored.parts.items()
        },
        "lacks": [
            *(text for one in restored.parts.values() for text in one.lacks),
            *lacks.lost,
            *lacks.newer,
        ],
        # Of them: named by the database after the files' point.
        "lacks_newer": len(lacks.newer),
        "bytes": moved,
        "total_seconds": round(total, 1),
    }
    if times.get("data"):
        record["mb_per_second"] = round(moved / 1e6 / times["data"], 1)
    if reached and not order.time:
        # How much was lost, as seen when the restore began.
        age = datetime.fromisoformat(order.began) - datetime.fromisoformat(reached.replace("Z", "+00:00"))
        record["recovery_point_seconds"] = round(age.total_seconds(), 1)
    return record


def _notes(record: Mapping[str, Any]) -> list[str]:
    notes = [f"the database is as of {record['recovered_to'] or 'an unknown moment'}"]
    if record["lacks"]:
        newer = record["lacks_newer"]
        of_them = f" ({newer} of them are newer than the files' point {record['point']})" if newer else ""
        count = len(record["lacks"])
        notes.append(
            f"{count} file(s) that the database names are not in the backup{of_them}; see the receipt"
        )
    notes.append("mail and SMS that waited are held: deploy queue status, deploy queue release")
    return notes
