"""`deploy drill`: prove a backup by restoring it where nobody sees it, and throw it away.

Everything comes from the repository: the secrets and the project's files by the catalogue, the app as it was built,
the data. The machine is closed before the service starts: what works then needs nobody.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.machine import ROLES
from deployer.core.model import Acme, MachineEntry, Project, Repository
from deployer.flow.rehearsal import BY_CHANCE, and_more, rehearse
from deployer.flow.request import Request
from deployer.flow.restore import moment
from deployer.flow.session import Session


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
        target = exercise.at if exercise.at in ("", BY_CHANCE) else moment(exercise.at)
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
                body = rehearse(session, repository, source, target, exercise.keep)
            except DeployError as error:
                session.mask.error(error)
                raise
        return {"catalogue": entry.id, **body}


def _whole(session: Session, repository: Repository, differing: Sequence[str]) -> None:
    """The catalogue is as it was written, and its bundle holds every secret that the data were written with."""
    from deployer.flow import catalogue

    wrong = [f"{one.what}: {one.why}" for one in catalogue.verify(session, repository)]
    wrong += [f"secrets.age: {name} is missing, or another one" for name in differing]
    if wrong:
        raise DeployError(
            f"reading the catalogue in {repository.name}",
            and_more(wrong),
            "deploy backup create writes a new entry",
            detail="\n".join(wrong[1:12]),
        )


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
