"""`deploy backup create|verify`: ask the machines' programs, and gather what they say.

list and points are in holdings.py; prune, which does not run on machines of the stack, in pruning.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployer.components.backups import actions
from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.machine import Machine
from deployer.core.model import Repository
from deployer.flow import provision
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session

# Seconds that a full backup may take, reading it back for `verify`, and a look.
LONGEST, LOOK = 24 * 3600, 120
# Seconds from one look at how far a backup is to the next.
WATCH = 5
# How a recovery point is written.
POINT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Scene:
    """An opened, connected deployment that makes backups. database: the machine that has it, "" for none."""

    session: Session
    machines: Mapping[str, Machine]
    live: generation.Generation
    database: str

    @property
    def repositories(self) -> tuple[Repository, ...]:
        return self.session.project.inventory.repositories

    def chosen(self, name: str | None) -> tuple[Repository, ...]:
        """The repository of that name; all without one. Raises InputError."""
        return choose(self.repositories, name)

    def ask(self, machine: str, what: str, command: str, timeout: float = LOOK) -> Any:
        """One program's answer. what: as a clause, for an error. Raises DeployError."""
        answer = self.session.engine.run(machine, command, timeout=timeout)
        return actions.answer(what, machine, *answer)


def choose(repositories: Sequence[Repository], name: str | None) -> tuple[Repository, ...]:
    """Raises InputError for a name that none of them has."""
    found = tuple(one for one in repositories if name in (None, one.name))
    if not found:
        raise InputError(
            "choosing a repository",
            f'the inventory names none "{name}"',
            f"known: {', '.join(one.name for one in repositories)}",
        )
    return found


def here(repositories: Sequence[Repository]) -> list[Repository]:
    """Those that this computer can reach: a folder may be on the machines only, and then has no catalogue."""
    return [one for one in repositories if one.kind != "path" or Path(one.path).is_dir()]


def needed(session: Session) -> tuple[Repository, ...]:
    """The inventory's repositories. Raises InputError when there are none."""
    inventory = session.project.inventory
    if not inventory.repositories:
        raise InputError(
            "looking for backups",
            f"the inventory {inventory.name} names no repositories, so none are made",
            "add `repositories:` to it (docs/backups.md), and run deploy up",
        )
    return inventory.repositories


@contextmanager
def opened(request: Request, sink: Sink, *, vendors: bool = False) -> Iterator[Scene]:
    """vendors: the repositories' keys are needed on this computer too. Raises InputError where no backups are made."""
    with Session.open(request, sink, make_secrets=False, vendors=vendors) as session:
        try:
            needed(session)
            deployment = str(session.project.deployment)
            live = generation.held(session.secrets, deployment)
            if live is None:
                newest = generation.current(session.secrets)
                why = f"{newest.deployment} is" if newest else "no generation was ever claimed"
                raise InputError(
                    "looking for backups",
                    f"{deployment} is not the live deployment ({why}), so it makes none",
                    "run it for the live one; the first deploy up with repositories claims a generation",
                )
            machines = _running(session)
            session.connected(session.connect(machines, SSH), SSH)
            names = provision.roles(session.project).get("database", ())
            database = next((name for name in names if name in machines), "")
            yield Scene(session, machines, live, database)
        except DeployError as error:
            session.mask.error(error)
            raise


def _running(session: Session) -> dict[str, Machine]:
    try:
        return session.running()
    except DeployError as error:
        # Its machines are gone, or were never made; their programs are who knows of backups.
        where = session.project.inventory.name
        error.next = f"bring it back from a repository: deploy restore --provider {where} (or another inventory's name)"
        raise


# --- create ---


def create(request: Request, sink: Sink, repository: str | None, type: str) -> dict[str, Any]:
    """One point on all machines, the database into each repository, the catalogue.

    repository: only this one gets the database's backup. type: "full", "diff" or "auto".
    ok, point, files, database, catalogue, failed (in words). One repository that fails stops no other.
    """
    from deployer.flow import catalogue

    with opened(request, sink, vendors=True) as scene:
        chosen = scene.chosen(repository)
        failed: list[str] = []
        point = datetime.now(UTC).strftime(POINT)
        files = all_machines(
            scene,
            f"files, point {point}",
            lambda name: scene.ask(name, "backing up files", actions.create_files(point), LONGEST),
            failed,
            making=True,
        )
        failed += [f"files of {one.machine} to {one.name}: {one.error}" for one in files if one.error]
        database = []
        for one in chosen if scene.database else ():
            with _step(scene, f"database to {one.name}", failed):
                body = _copied(scene, one.name, type)
                database.append({"repository": one.name, **body})
        written: list[dict[str, object]] = []
        with _step(scene, "catalogue", failed):
            written = catalogue.write(scene.session, here(scene.repositories))
            failed += [f"catalogue to {one['repository']}: {one['error']}" for one in written if one["error"]]
        return {
            "deployment": str(scene.session.project.deployment),
            "generation": scene.live.number,
            "ok": not failed,
            "point": point,
            "files": [vars(one) for one in files],
            "database": database,
            "catalogue": written,
            "failed": failed,
        }


def _copied(scene: Scene, repository: str, type: str) -> Any:
    """The database into a repository; tells how far it is while it lasts."""
    machine, sink = scene.database, scene.session.sink
    text, told = f"database to {repository}", ""
    with ThreadPoolExecutor(1) as pool:
        what = f"backing up the {text}"
        work = pool.submit(scene.ask, machine, what, actions.create_database(repository, type), LONGEST)
        while not wait([work], WATCH).done:
            try:
                answer = scene.session.engine.run(machine, actions.database_progress(repository), timeout=20)
            except DeployError:
                # It slows down or has ended: the work itself says what is so.
                continue
            if (found := actions.progress(answer[1])) and found[1]:
                now = f"{text}: {100 * found[0] // found[1]} % of {found[1] / (1 << 30):.1f} GiB"
                if now != told:
                    sink(Event("step", now, machine=machine, status="start"))
                told = now
        return work.result()


@contextmanager
def _step(scene: Scene, text: str, failed: list[str]) -> Iterator[None]:
    """A stage whose failure is noted and told, and stops nothing."""
    began = time.monotonic()
    sink = scene.session.sink
    sink(Event("stage", text, status="start"))
    try:
        yield
    except DeployError as error:
        scene.session.mask.error(error)
        failed.append(words(text, error))
        sink(Event("stage", text, status="failed", seconds=_since(began)))
        sink(Event("warning", str(error)))
    else:
        sink(Event("stage", text, status="ok", seconds=_since(began)))


def all_machines(
    scene: Scene,
    text: str,
    work: Callable[[str], Sequence[Mapping[str, Any]]],
    failed: list[str],
    *,
    making: bool = False,
) -> list[actions.Snapshots]:
    """Ask for the files' backups side by side on all machines. failed: gets what failed, in words.

    making: they are made, and one that failed is a failure of this run.
    """
    began = time.monotonic()
    sink = scene.session.sink
    sink(Event("stage", text, status="start"))

    def one(name: str) -> tuple[actions.Snapshots, ...] | str:
        started = time.monotonic()
        sink(Event("step", text, machine=name, status="start"))
        try:
            body = work(name)
        except DeployError as error:
            scene.session.mask.error(error)
            sink(Event("step", text, machine=name, status="failed", seconds=_since(started)))
            sink(Event("warning", str(error)))
            return words(text, error)
        sink(Event("step", text, machine=name, status="ok", seconds=_since(started)))
        return actions.snapshots(body, name)

    with ThreadPoolExecutor(len(scene.machines)) as pool:
        answers = list(pool.map(one, scene.machines))
    bad = [answer for answer in answers if isinstance(answer, str)]
    failed += bad
    found = [one for answer in answers if not isinstance(answer, str) for one in answer]
    status = "failed" if bad or (making and any(one.error for one in found)) else "ok"
    sink(Event("stage", text, status=status, seconds=_since(began)))
    return found


def words(text: str, error: DeployError) -> str:
    where = f" on {error.machine}" if error.machine else ""
    return f"{text}{where}: {error.why}"


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)


# --- verify ---


def verify(request: Request, sink: Sink, repository: str | None) -> dict[str, Any]:
    """Read back what the repositories hold. ok, repositories: damaged (part, what, why) of each."""
    from deployer.flow import catalogue

    with opened(request, sink, vendors=True) as scene:
        found = []
        for one in scene.chosen(repository):
            began = time.monotonic()
            damaged = [*_verified(scene, one)]
            for reached in here([one]):
                with _part(scene, one, "catalogue", damaged):
                    wrong = catalogue.verify(scene.session, reached)
                    damaged += [{"part": "catalogue", "what": bad.what, "why": bad.why} for bad in wrong]
            found.append({"repository": one.name, "damaged": damaged, "seconds": _since(began)})
        return {
            "deployment": str(scene.session.project.deployment),
            "ok": not any(one["damaged"] for one in found),
            "repositories": found,
        }


def _verified(scene: Scene, repository: Repository) -> list[dict[str, str]]:
    """What the machines find damaged in it."""
    damaged: list[dict[str, str]] = []
    if scene.database:
        with _part(scene, repository, "database", damaged):
            command = actions.verify_database(repository.name)
            body = scene.ask(scene.database, "verifying the database's backups", command, LONGEST)
            damaged += [{"part": "database", **vars(one)} for one in actions.damaged_database(body)]
    first = scene.database or next(iter(scene.machines))
    for machine in scene.machines if repository.kind == "path" else [first]:
        with _part(scene, repository, "files", damaged):
            command = actions.verify_files(repository.name)
            body = scene.ask(machine, "verifying the files' backups", command, LONGEST)
            damaged += [{"part": "files", **vars(one)} for one in actions.damaged_files(body)]
    return damaged


@contextmanager
def _part(scene: Scene, repository: Repository, part: str, damaged: list[dict[str, str]]) -> Iterator[None]:
    """What cannot be read counts as damaged."""
    began, text = time.monotonic(), f"verify {part} in {repository.name}"
    sink, before = scene.session.sink, len(damaged)
    sink(Event("stage", text, status="start"))
    try:
        yield
    except DeployError as error:
        scene.session.mask.error(error)
        damaged.append({"part": part, "what": error.what, "why": error.why})
    status = "ok" if len(damaged) == before else "failed"
    sink(Event("stage", text, status=status, seconds=_since(began)))
