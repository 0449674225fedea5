"""What a restore does on machines that are there: all but what serves, the data, the app as it was built, and whether the
files hold what the database names. `deploy restore` and `deploy drill` use it.

The programs on the machines do the work (components/backups/service/); this starts them and follows them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployer.components.app.layout import Layout
from deployer.components.backups import restoring, spec
from deployer.components.backups.restoring import Progress, Target
from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.model import Repository
from deployer.flow import apply, registry
from deployer.flow import up as bringing
from deployer.flow.leasing import Lease
from deployer.flow.look import View, look
from deployer.flow.session import SSH, SSH_NEW, Session

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


@dataclass(frozen=True)
class Restored:
    """parts: by "MACHINE database" or "MACHINE files"."""

    parts: Mapping[str, Progress]

    @property
    def recovered_to(self) -> str:
        """The last moment that the database holds."""
        return next((one.recovered_to for name, one in self.parts.items() if name.endswith("database")), "")


# --- the machines, without what serves ---


def ready(session: Session, run: bringing.Run) -> View:
    """Packages, users and files, and nothing that serves; services that run are stopped."""
    machines, new = run.machines, bool(run.new)
    timeout = SSH_NEW if new else SSH
    with Lease(session, machines, run.held) as lease:
        view = look(
            session,
            machines,
            session.connect(machines, timeout),
            timeout=timeout,
            lease=lease.take(),
            probes=False,
        )
        lease.renew_from_now_on()
        stopping = {name: machine for name, machine in machines.items() if name not in run.new}
        if stopping:
            from deployer.flow.down import stop_services

            stop_services(session, stopping)
        work = {name: (view.wanted[name], view.found[name], view.of(name)) for name in machines}
        bringing.carry_out(session, _before_services(work))
        lease.release()
    return view


def _before_services(work: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The phases that start nothing. The app is not built: its release comes from the backup."""
    listed = []
    for phase in apply.phases(work, registry.component_names()):
        if phase["name"].startswith("start "):
            break
        listed.append({key: value for key, value in phase.items() if key != "beside"})
    return listed


# --- the data ---


def parts(session: Session) -> list[tuple[str, str]]:
    """(machine, part) of all that a restore brings back."""
    from deployer.flow import provision

    roles = provision.roles(session.project)
    names = [entry.name for entry in session.project.inventory.machines if entry.roles]
    return [*((name, "database") for name in roles["database"][:1]), *((name, "files") for name in names)]


def bring_back(
    session: Session, view: View, order: Order, *, hold_queues: bool, amcheck: bool = False
) -> Restored:
    """Restore the data on all machines, side by side. Raises DeployError in the words of the part that failed."""
    listed = parts(session)
    repository = next(one for one in session.project.inventory.repositories if one.name == order.repository)
    target = Target(order.time, order.point)
    for machine, part in listed:
        request = restoring.request(
            order.id,
            _described(session, repository, order.generation),
            target,
            [item for one in view.specs[machine] for item in one.data],
            hold_queues=hold_queues,
            amcheck=amcheck,
            mark=_layout(session).restored if part == "files" and machine in _players(session, "app") else "",
        )
        code, out, err = session.engine.run(machine, restoring.start(part), stdin=request, timeout=60)
        if code:
            from deployer.components.backups.actions import answer

            answer(f"starting to restore the {part}", machine, code, out, err)
    return Restored(_wait(session, listed))


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


def _wait(session: Session, listed: Sequence[tuple[str, str]]) -> dict[str, Progress]:
    """Follow the work until all of it has ended, telling each phase."""
    ended: dict[str, Progress] = {}
    told: dict[str, str] = {}
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
                continue
            if progress.state == "failed":
                raise _failure(machine, part, progress)
            if progress.state == "done":
                ended[name] = progress
            words = _words(part, progress)
            if told.get(name) != words:
                told[name] = words
                status = "ok" if progress.state == "done" else "start"
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
    return DeployError(
        error.get("what") or f"restoring the {part}",
        error.get("why") or "it failed, and did not say why",
        error.get("next") or "run the same command again; what was there before is untouched",
        machine=machine,
        detail=error.get("detail", ""),
    )


def fetch_release(session: Session, order: Order) -> list[str]:
    """The app as it was built, from the repository: nothing is asked of a registry of packages. A repository that has
    another release, or none, is told, and the app is built as `up` builds it. Returns the releases that it lacks."""
    from deployer.components.backups.actions import answer

    project = session.project
    layout = _layout(session)
    where = f"{layout.home}/releases/{layout.release()}"
    repository = next(one for one in project.inventory.repositories if one.name == order.repository)
    request = restoring.release_request(_described(session, repository, order.generation), where)
    lacks: list[str] = []
    for machine in _players(session, "app"):
        code, out, err = session.engine.run(machine, restoring.release(), stdin=request, timeout=RELEASE)
        body = answer("fetching the app as it was built", machine, code, out, err)
        words = "is there" if body["found"] else f"is not in {repository.name}, so it is built anew"
        kind = "notice" if body["found"] else "warning"
        session.sink(Event(kind, f"the release {body['release']} {words}", machine=machine))
        lacks += [] if body["found"] else [str(body["release"])]
    return lacks


def lacking(session: Session) -> list[str]:
    """What the restored database names and the files lack, where the app's manifest says how to ask."""
    from deployer.components.backups.actions import answer

    found: list[str] = []
    for entry in session.project.app.data:
        if not entry.references:
            continue
        [database, *_], [app, *_] = _players(session, "database"), _players(session, "app")
        code, out, err = session.engine.run(database, restoring.named(entry.name), timeout=RELEASE)
        if code:
            answer(f"asking the database for its {entry.name}", database, code, out, err)
        code, told, err = session.engine.run(app, restoring.missing(entry.name), stdin=out, timeout=RELEASE)
        body = answer(f"looking for the {entry.name} that the database names", app, code, told, err)
        found += [f"{entry.name}: {path}" for path in body["paths"]]
        if body["missing"] > len(body["paths"]):
            found.append(f"{entry.name}: {body['missing'] - len(body['paths'])} more")
    return found


def _layout(session: Session) -> Layout:
    return Layout(session.project.app, session.project.stack.domain)


def _players(session: Session, role: str) -> tuple[str, ...]:
    from deployer.flow import provision

    return provision.roles(session.project)[role]
