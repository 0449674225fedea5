"""What a restore does on machines that are prepared: the data, the app as it was built, and whether the files hold what
the database names. `deploy restore` and `deploy drill` use it.

The programs on the machines do the work (components/backups/service/); this starts them and follows them.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployer.components.app.layout import Layout
from deployer.components.backups import restoring, spec
from deployer.components.backups.restoring import Progress, Target
from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.machine import Machine
from deployer.core.model import Repository
from deployer.flow.look import View
from deployer.flow.session import SSH, Session

if TYPE_CHECKING:
    from deployer.state.restoring import Order

# Seconds that bringing back the data may take: some terabytes over a slow line.
LONGEST = 48 * 3600
# Seconds between two looks at it, and for one look.
EVERY, LOOK = 2.0, 60
# Seconds that fetching the app, or comparing database and files, may take.
RELEASE = 1800
# Seconds without an answer from a machine after which the run ends; the work on the machine goes on.
SILENT = 600


class RepositoryError(DeployError):
    """What a repository holds could not be restored; another one may have it. What is on the machines is untouched."""


@dataclass(frozen=True)
class Restored:
    """parts: by "MACHINE database" or "MACHINE files"."""

    parts: Mapping[str, Progress]

    @property
    def recovered_to(self) -> str:
        """The last moment that the database holds."""
        return next((one.recovered_to for name, one in self.parts.items() if name.endswith("database")), "")


# --- the data ---


def parts(session: Session) -> list[tuple[str, str]]:
    """(machine, part) of all that a restore brings back."""
    from deployer.flow import provision

    roles = provision.roles(session.project)
    names = [entry.name for entry in session.project.inventory.machines if entry.roles]
    return [*((name, "database") for name in roles["database"][:1]), *((name, "files") for name in names)]


def bring_back(
    session: Session,
    view: View,
    order: Order,
    *,
    hold_queues: bool,
    amcheck: bool = False,
    placing: Callable[[], None] = lambda: None,
) -> Restored:
    """Restore the data on all machines, side by side: first beside their places, and in them when all were checked.

    placing: called between the two. Raises DeployError in the words of the part that failed; RepositoryError where
    another repository may help.
    """
    listed = parts(session)
    repository = next(one for one in session.project.inventory.repositories if one.name == order.repository)
    target = Target(order.time, order.point)
    marked = [(machine, "files") for machine in _players(session, "app")]

    def start(final: bool) -> None:
        for machine, part in listed:
            request = restoring.request(
                order.id,
                _described(session, repository, order.generation),
                target,
                [item for one in view.specs[machine] for item in one.data],
                hold_queues=hold_queues,
                amcheck=amcheck,
                final=final,
                instead=order.instead,
                mark=_layout(session).restored if (machine, part) in marked else "",
            )
            code, out, err = session.engine.run(machine, restoring.start(part), stdin=request, timeout=60)
            if code:
                from deployer.components.backups.actions import answer

                answer(f"starting to restore the {part}", machine, code, out, err)

    if not order.placing:
        start(final=False)
        _wait(session, view.machines, listed, ("checked", "done"))
        placing()
    start(final=True)
    return Restored(_wait(session, view.machines, listed, ("done",)))


def _described(session: Session, repository: Repository, number: int) -> dict[str, object]:
    return spec.repository(session.project.stack.name, repository, number, session.secrets)


def ask_all(session: Session, listed: Sequence[tuple[str, str]]) -> dict[str, Progress]:
    return {f"{machine} {part}": _ask(session, machine, part) for machine, part in listed}


def _ask(session: Session, machine: str, part: str) -> Progress:
    from deployer.components.backups.actions import answer

    code, out, err = session.engine.run(machine, restoring.status(part), timeout=LOOK)
    try:
        # A restore that failed is an answer too.
        body = json.loads(out)
        if "state" in body:
            return restoring.progress(body)
    except ValueError:
        pass
    return restoring.progress(answer(f"asking how far the {part} is", machine, code, out, err))


def _wait(
    session: Session,
    machines: Mapping[str, Machine],
    listed: Sequence[tuple[str, str]],
    until: Collection[str],
) -> dict[str, Progress]:
    """Follow the work until all of it is in one of the states, telling each phase. A machine that was started anew is
    connected to again."""
    ended: dict[str, Progress] = {}
    told: dict[str, str] = {}
    damaged: set[str] = set()
    began = heard = time.monotonic()
    while len(ended) < len(listed):
        for machine, part in listed:
            name = f"{machine} {part}"
            if name in ended:
                continue
            try:
                progress = _ask(session, machine, part)
                heard = time.monotonic()
            except DeployError:
                if time.monotonic() - heard > SILENT:
                    raise
                with contextlib.suppress(DeployError):
                    session.connected(session.connect({machine: machines[machine]}, SSH), SSH)
                continue
            for text in progress.damaged:
                if text not in damaged:
                    damaged.add(text)
                    session.sink(Event("warning", f"{text}; the backup before it is tried", machine=machine))
            if progress.state == "failed":
                raise _failure(machine, part, progress)
            if progress.state in until:
                ended[name] = progress
            words = _words(part, progress)
            if told.get(name) != words:
                told[name] = words
                status = "ok" if progress.state in until else "start"
                session.sink(Event("step", words, machine=machine, status=status, data=_data(progress)))
        if time.monotonic() - began > LONGEST:
            raise DeployError(
                "bringing back the data",
                f"it has not ended after {LONGEST // 3600} h; the machine goes on",
                "run the same command again to follow it",
            )
        if len(ended) < len(listed):
            time.sleep(EVERY)
    return ended


def _words(part: str, progress: Progress) -> str:
    if progress.state == "done":
        reached = f", as of {progress.recovered_to}" if progress.recovered_to else ""
        return f"{part} restored{reached}"
    if progress.state == "checked":
        return f"{part} fetched and checked"
    share = (
        f", {100 * progress.done // progress.total} % of {_size(progress.total)}" if progress.total else ""
    )
    return f"{part}: {progress.phase or 'beginning'}{share}"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def _data(progress: Progress) -> dict[str, Any]:
    return {"phase": progress.phase, "done": progress.done, "total": progress.total}


def _failure(machine: str, part: str, progress: Progress) -> DeployError:
    error = progress.error
    kind = RepositoryError if progress.elsewhere else DeployError
    return kind(
        error.get("what") or f"restoring the {part}",
        error.get("why") or "it failed, and did not say why",
        error.get("next") or "run the same command again; what was there before is untouched",
        machine=machine,
        detail=error.get("detail", ""),
    )


def fetch_release(session: Session, order: Order, *, elsewhere: bool = False) -> list[str]:
    """The app as it was built, from the repository: nothing is asked of a registry of packages. Where it is not, that is
    told, and the app is built as `up` builds it. Returns the releases that the repository lacks.

    elsewhere: another repository may have it.
    """
    from deployer.components.backups.actions import answer

    project = session.project
    layout = _layout(session)
    where = f"{layout.home}/releases/{layout.release()}"
    # The same release lies in all of them.
    repositories = sorted(project.inventory.repositories, key=lambda one: one.name != order.repository)
    lacks: list[str] = []
    for machine in _players(session, "app"):
        for repository in repositories if elsewhere else repositories[:1]:
            try:
                request = restoring.release_request(_described(session, repository, order.generation), where)
                code, out, err = session.engine.run(
                    machine, restoring.release(), stdin=request, timeout=RELEASE
                )
                body = answer("fetching the app as it was built", machine, code, out, err)
            except KeyError:
                # One that was added later has no password of that generation.
                continue
            except DeployError as error:
                if not elsewhere:
                    raise
                text = f"{repository.name}: {error.what}: {error.why}"
                session.sink(Event("warning", text, machine=machine))
                continue
            if body["found"]:
                session.sink(Event("notice", f"the release {body['release']} is there", machine=machine))
                break
            lacks.append(str(body["release"]))
        else:
            text = f"the release {layout.release()} is not in {order.repository}, so it is built anew"
            session.sink(Event("warning", text, machine=machine))
    return lacks


@dataclass(frozen=True)
class Lacking:
    """What the restored database names and the files lack, in words. newer: of it what was named after the files' point,
    so that no backup of that time could have it."""

    lost: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()


def lacking(session: Session, restored: Restored) -> Lacking:
    """Where the app's manifest says how to ask."""
    from deployer.components.backups.actions import answer

    lost: list[str] = []
    newer: list[str] = []
    for entry in session.project.app.data:
        if not entry.references:
            continue
        [database, *_], [app, *_] = _players(session, "database"), _players(session, "app")
        code, out, err = session.engine.run(database, restoring.named(entry.name), timeout=RELEASE)
        if code:
            answer(f"asking the database for its {entry.name}", database, code, out, err)
        part = restored.parts.get(f"{app} files")
        asked = restoring.missing(entry.name, part.recovered_to if part else "")
        code, told, err = session.engine.run(app, asked, stdin=out, timeout=RELEASE)
        body = answer(f"looking for the {entry.name} that the database names", app, code, told, err)
        for found, paths, count in ((lost, "paths", "missing"), (newer, "newer_paths", "newer")):
            found += [f"{entry.name}: {path}" for path in body[paths]]
            if body[count] > len(body[paths]):
                found.append(f"{entry.name}: {body[count] - len(body[paths])} more")
    return Lacking(tuple(lost), tuple(newer))


def _layout(session: Session) -> Layout:
    return Layout(session.project.app, session.project.stack.domain)


def _players(session: Session, role: str) -> tuple[str, ...]:
    from deployer.flow import provision

    return provision.roles(session.project)[role]
