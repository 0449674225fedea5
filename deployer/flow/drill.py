"""`deploy drill`: prove a backup by restoring it where nobody sees it, and throw it away.

Everything comes from the repository: the secrets and the project's files by the catalogue, the app as it was built,
the data. The machine is closed before the service starts: what works then needs nobody.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.machine import ROLES, Machine
from deployer.core.model import Acme, MachineEntry, Project, Repository
from deployer.core.resources import find_template
from deployer.flow import up as bringing
from deployer.flow.recovery import bring_back, fetch_release, lacking, ready
from deployer.flow.request import Request
from deployer.flow.restore import moment
from deployer.flow.session import Session

# Seconds that the app's own exercise may take.
EXERCISE = 300
# A moment by chance lies this long before the newest, so that it is in the repository.
SETTLED = timedelta(seconds=90)
# Nothing leaves the machine any more but answers to us; what runs on it reaches itself.
_CLOSE = """
set -e
nft -f - <<'RULES'
table inet deploy_drill
delete table inet deploy_drill
table inet deploy_drill {
    chain output {
        type filter hook output priority -10; policy drop;
        oif lo accept
        ct state established,related accept
        fib daddr type local accept
        meta l4proto ipv6-icmp accept
    }
}
RULES
"""


@dataclass(frozen=True)
class Exercise:
    """source: a repository's name, "" for the one with the newest data; each: all of them. at: a time, "random", or ""
    for the newest. on: inventory whose provider makes the machine. keep: leave the machine of one that failed."""

    source: str = ""
    each: bool = False
    at: str = ""
    on: str = "drill"
    keep: bool = False


def drill(request: Request, sink: Sink, exercise: Exercise) -> dict[str, Any]:
    """ok, drills: for each repository what a receipt says. Raises InputError for a wish that cannot be; a repository
    that cannot be restored is a result, not an error."""
    from deployer.flow import generations, registry
    from deployer.flow.secrets import open_bundle
    from deployer.project import load
    from deployer.state import receipts

    project = load(request.root, request.provider, request.inventory_file, options=registry.provider_options)
    repositories = {one.name: one for one in project.inventory.repositories}
    if not repositories or (exercise.source and exercise.source not in repositories):
        raise InputError(
            f"drilling {project.deployment}",
            f'there is no repository "{exercise.source}"'
            if repositories
            else "the inventory names no repositories",
            f"it has: {', '.join(repositories)}" if repositories else "name some there (docs/backups.md)",
        )
    secrets, _ = open_bundle(project, request, make=False)
    source = generation.current(secrets)
    if source is None:
        raise InputError(
            f"drilling {project.deployment}",
            "nothing of it was ever backed up",
            "deploy up makes the first backup",
        )
    if exercise.each:
        chosen = list(repositories.values())
    else:
        name = exercise.source or generations.newest_repository(project, source)
        chosen = [repositories[name]]
    results = []
    for repository in chosen:
        sink(Event("stage", f"drill from {repository.name}", status="start"))
        began, started = time.monotonic(), datetime.now(UTC)
        body: dict[str, Any] = {"repository": repository.name, "generation": source.number}
        try:
            body |= {"ok": True, **_one(request, sink, exercise, project, repository, source)}
        except DeployError as error:
            body |= {"ok": False, "why": str(error), "error": error.to_json()}
            sink(Event("warning", f"drill from {repository.name}: {error.what}: {error.why}"))
        body["total_seconds"] = round(time.monotonic() - began, 1)
        receipts.write(request.root, "drill", project.deployment, body, started)
        status = "ok" if body["ok"] else "failed"
        sink(Event("stage", f"drill from {repository.name}", status=status, seconds=body["total_seconds"]))
        results.append(body)
    return {
        "deployment": str(project.deployment),
        "ok": all(one["ok"] for one in results),
        "drills": results,
    }


def _one(
    request: Request,
    sink: Sink,
    exercise: Exercise,
    project: Project,
    repository: Repository,
    source: generation.Generation,
) -> dict[str, Any]:
    """One repository. Raises DeployError where it cannot be restored, or what was restored does not work."""
    from deployer.flow import catalogue
    from deployer.storage import open_store

    store = open_store(repository)
    with tempfile.TemporaryDirectory(prefix="deploy-drill-") as name:
        folder = Path(name)
        # As on a computer that has nothing else.
        entry = catalogue.fetch(store, project.stack.name, source.number, request.identity, folder)
        target = _target(exercise.at, store.list(generation.database_key(project.stack.name, source.number)))
        fresh = replace(request, root=folder, provider=exercise.on, inventory_file=None, as_name="")
        if not (folder / "inventories" / f"{exercise.on}.yaml").exists():
            own = request.root / "inventories" / f"{exercise.on}.yaml"
            if own.exists():
                (folder / "inventories").mkdir(exist_ok=True)
                (folder / "inventories" / own.name).write_bytes(own.read_bytes())
        with Session.open(
            fresh,
            sink,
            make_secrets=False,
            draft=True,
            change=lambda read: disguised(read, project.inventory.repositories),
        ) as session:
            try:
                _whole(
                    session,
                    repository,
                    catalogue.differing(catalogue.prints(entry, request.identity), session.secrets),
                )
                body = _rehearse(session, repository, source, target, exercise.keep)
            except DeployError as error:
                session.mask.error(error)
                raise
        return {"catalogue": entry.id, "asked_for": target or "newest", **body}


def _whole(session: Session, repository: Repository, differing: Sequence[str]) -> None:
    """The catalogue is as it was written, and its bundle holds every secret that the data were written with."""
    from deployer.flow import catalogue

    wrong = [f"{one.what}: {one.why}" for one in catalogue.verify(session, repository)]
    wrong += [f"secrets.age: {name} is missing, or another one" for name in differing]
    if wrong:
        raise DeployError(
            f"reading the catalogue in {repository.name}",
            _and_more(wrong),
            "deploy backup create writes a new entry",
            detail="\n".join(wrong[1:12]),
        )


def _and_more(texts: Sequence[str]) -> str:
    return texts[0] + (f" (and {len(texts) - 1} more)" if texts[1:] else "")


def _as_built(repository: Repository, lacking: Sequence[str]) -> None:
    """A restore may build the app anew; a drill proves that it need not."""
    if lacking:
        raise DeployError(
            f"fetching the app as it was built from {repository.name}",
            f"it does not hold the release {lacking[0]}",
            "deploy backup create puts it there again",
        )


def _target(at: str, listed: Mapping[str, int]) -> str:
    """The moment to restore, ISO 8601; "" for the newest. listed: keys of the database's part of the repository."""
    if at != "random":
        return moment(at) if at else ""
    # pgBackRest names a full backup by its beginning, in the machine's time, which is UTC.
    labels = {part for key in listed for part in key.split("/") if part.endswith("F") and part[8:9] == "-"}
    fulls = sorted(datetime.strptime(label, "%Y%m%d-%H%M%SF").replace(tzinfo=UTC) for label in labels)
    end = datetime.now(UTC) - SETTLED
    # Not before it was complete.
    first = next((one + SETTLED for one in fulls if one + SETTLED < end), None)
    if first is None:
        raise InputError(
            "choosing a moment by chance",
            "the oldest full backup is younger than three minutes",
            "try again soon, or leave --at out",
        )
    chosen = first + (end - first) * random.random()
    return chosen.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def disguised(project: Project, repositories: tuple[Repository, ...]) -> Project:
    """The project as a drill: one machine, everything caught, nothing named to the world."""
    stack = project.stack.name
    inventory = replace(
        project.inventory,
        name="drill",
        machines=(MachineEntry(f"{stack}-drill-all-1", ROLES, project.inventory.machines[0].options),),
        catch=True,
        acme=Acme(),
        smarthosts=(),
        carriers=(),
        dns=(),
        repositories=repositories,
        drill=True,
    )
    return replace(project, inventory=inventory)


def _rehearse(
    session: Session, repository: Repository, source: generation.Generation, target: str, keep: bool
) -> dict[str, Any]:
    from deployer.state.lock import lock
    from deployer.state.restoring import Order, new_id

    began, started = time.monotonic(), datetime.now(UTC)
    times: dict[str, float] = {}

    def lap(name: str) -> None:
        times[name] = round(time.monotonic() - began - sum(times.values()), 1)

    good = False
    with lock(session.project.state_dir, "drill") as held:
        # A drill that was killed left a machine whose keys nobody knows.
        _clear(session)
        try:
            run = bringing.make_machines(session, held, started, began)
            lap("machines")
            view = ready(session, run)
            lap("packages and files")
            order = Order(new_id(), repository.name, source.number, target, "", started.isoformat())
            restored = bring_back(session, view, order, hold_queues=True, amcheck=True)
            _as_built(repository, fetch_release(session, order))
            lap("data")
            _close(session, run.machines)
            body = bringing.converge(session, replace(run, record=False))
            lap("services")
            checks = [text for one in restored.parts.values() for text in one.checks]
            checks.append(f"{len(body['probes'])} probes green")
            if session.project.app.drill:
                said = _exercise(session, run.machines)
                checks.append(said)
            lap("exercise")
            _complete([*(text for one in restored.parts.values() for text in one.lacks), *lacking(session)])
            good = True
        finally:
            if good or not keep:
                _clear(session)
    return {"recovered_to": restored.recovered_to, "seconds": times, "checks": checks}


def _clear(session: Session) -> None:
    from deployer.flow import provision
    from deployer.state.journal import Journal

    ours = {name: machine for name, machine in session.existing().items() if machine.ours}
    if ours:
        provision.delete(session.provider, ours, Journal(session.project.state_dir), session.sink)


def _close(session: Session, machines: Mapping[str, Machine]) -> None:
    for name in machines:
        code, out, err = session.engine.run(name, _CLOSE, timeout=30)
        if code:
            raise DeployError("closing the machine's ways out", (err or out).strip()[-500:], machine=name)


def _exercise(session: Session, machines: Mapping[str, Machine]) -> str:
    """The app's own test: a person who uses the service; its last line. Raises DeployError with its last lines."""
    app = session.project.app
    name = next(iter(machines))
    script = find_template(f"apps/{app.name}/{app.drill}", session.project.root).read_text(encoding="utf-8")
    domain = session.project.stack.domain
    code, out, err = session.engine.run(name, f"python3 - {domain}", stdin=script, timeout=EXERCISE)
    if code:
        lines = (out + err).strip().splitlines()
        raise DeployError(
            f"using the restored {app.name} as a person would",
            lines[-1] if lines else f"it ended with {code}",
            "the backup restores, and what runs from it does not work: see the lines above",
            machine=name,
            detail=session.mask.text("\n".join(lines[-12:-1])),
        )
    return out.strip().splitlines()[-1] if out.strip() else "used as a person would"


def _complete(lacks: Sequence[str]) -> None:
    if lacks:
        raise DeployError(
            "comparing the files with what the database names",
            "missing: " + _and_more(lacks),
            "deploy backup verify says what is damaged",
            detail="\n".join(lacks[1:12]),
        )
