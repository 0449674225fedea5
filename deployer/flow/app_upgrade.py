"""`deploy app upgrade`: another release, with a recovery point before what cannot be undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deployer.components.app.layout import Layout
from deployer.components.app.source import collect
from deployer.components.app.standing import Standing
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.model import Project
from deployer.flow import app_change, app_files, app_state
from deployer.flow.app_change import Change
from deployer.flow.request import Request
from deployer.flow.session import Session


@dataclass(frozen=True)
class Wish:
    """version: "" for what the project's files say. locks: FILE, or RUNTIME=FILE. backup: make a recovery point where one
    is due."""

    version: str = ""
    locks: Sequence[str] = ()
    backup: bool = True


def upgrade(request: Request, sink: Sink, wish: Wish) -> dict[str, Any]:
    """The summary of an `up`, with `release` (from, to, migrations, recovery_point, pause_seconds) and `files`.

    `changed_release` is False when that release serves already. Raises DeployError saying which release serves.
    """
    from deployer.state.lock import lock

    locks = read_locks(wish.locks)
    with Session.open(request, sink, make_secrets=False) as session:
        try:
            with lock(session.project.state_dir, "app upgrade") as held:
                app_change.no_restore(session)
                state = app_state.ask(session)
                change = plan(session.project, state, wish.version, locks)
                if not _todo(change, state):
                    return _nothing(session, change)
                repositories = [one.name for one in session.project.inventory.repositories]
                _confirm(session, change, repositories, wish)
                # Of the first session only its lock is needed from here on.
                session.engine.close()
                if final(change) and wish.backup and repositories:
                    point = _recovery_point(request, sink)
                    change = replace(change, facts={"recovery_point": point})
                body = app_change.carry_out(app_change.agreed(request), sink, change, held)
                return {**body, "changed_release": True}
        except DeployError as error:
            session.mask.error(error)
            raise


def read_locks(locks: Sequence[str]) -> dict[str, bytes]:
    """Content by runtime or file name. Raises InputError."""
    found = {}
    for text in locks:
        name, _, path = text.rpartition("=")
        file = Path(path).expanduser()
        try:
            found[name or file.name] = file.read_bytes()
        except OSError as error:
            raise InputError(
                "reading --lock", f"{file}: {error.strerror}", "name a file that you can read"
            ) from None
    return found


def plan(project: Project, state: Standing, version: str, locks: Mapping[str, bytes]) -> Change:
    """What the upgrade changes, with every file checked. Raises InputError."""
    app, domain = project.app, project.stack.domain
    former = collect(app)
    files = app_files.changed(app, former, version or app.version, locks)
    with app_files.staged(app.name, files) as wanted:
        target = Layout(wanted, domain).release()
        migrations = app_state.pending(wanted, target, state)
        version = wanted.version
    said = app_state.release_of(project)
    return Change("upgrade", app.name, state.good, target, said, version, files, former, tuple(migrations))


def final(change: Change) -> list[str]:
    """The migrations that cannot be undone."""
    return [one["name"] for one in change.migrations if not one["reversible"]]


def _todo(change: Change, state: Standing) -> bool:
    return state.serves != change.target or change.files != change.former


def _nothing(session: Session, change: Change) -> dict[str, Any]:
    return {
        "deployment": str(session.project.deployment),
        "changed_release": False,
        "release": {"app": change.app, "from": change.target, "to": change.target, "migrations": []},
        "files": [],
    }


def sentences(change: Change, repositories: Sequence[str], backup: bool) -> list[str]:
    """What will happen, for the operator."""
    lines = [f"{change.app}: {change.source or 'nothing'} serves, {change.target} shall"]
    if change.said not in (change.source, change.target):
        lines.append(f"the project's files say {change.said}, which does not serve")
    undone = final(change)
    for one in change.migrations:
        can = "can be undone" if one["reversible"] else "cannot be undone"
        lines.append(f"the migration {one['name']} runs, which {can}")
    if undone and repositories and backup:
        lines.append(f"a recovery point is made first, in {', '.join(repositories)}")
    elif undone:
        why = "the inventory names no repositories" if not repositories else "you said --no-backup"
        lines.append(f"no recovery point is made ({why}): once it has begun there is no way back")
    lines.append("the release is built beside the one that serves; requests wait during the change")
    return lines


def _confirm(session: Session, change: Change, repositories: Sequence[str], wish: Wish) -> None:
    lines = sentences(change, repositories, wish.backup)
    for line in lines:
        session.sink(Event("notice", line))
    if not session.request.confirm(f"{change.source or 'nothing'} -> {change.target}. Go on?"):
        raise InputError(
            "app upgrade", "stopped before anything was changed", "run it again and say yes, or use --yes"
        )


def _recovery_point(request: Request, sink: Sink) -> str:
    """Its id, when one repository at least has all parts of it. Raises DeployError."""
    from deployer.flow import backups

    result = backups.create(request, sink, None, "auto")
    whole = complete(result)
    if not whole:
        raise DeployError(
            "making a recovery point before the upgrade",
            "no repository has all of it: " + "; ".join(result["failed"]),
            "deploy backup list shows their state; deploy app upgrade --no-backup goes on without",
        )
    sink(Event("notice", f"recovery point {result['point']} in {', '.join(whole)}"))
    return str(result["point"])


def complete(result: Mapping[str, Any]) -> list[str]:
    """The repositories that took the files of every machine, the database and the catalogue."""
    bad = {one["name"] for one in result["files"] if one["error"]}
    bad |= {one["repository"] for one in result["catalogue"] if one["error"]}
    # A machine that did not answer is in no row.
    silent = any(text.startswith("files, point") for text in result["failed"])
    found = {one["repository"] for one in result["database"]} or {one["name"] for one in result["files"]}
    return [] if silent else sorted(found - bad)
