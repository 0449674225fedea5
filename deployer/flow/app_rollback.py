"""`deploy rollback`: a release that served before, from what the machine keeps of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployer.components.app.layout import Layout
from deployer.components.app.source import collect
from deployer.components.app.standing import Migration, Standing
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.flow import app_change, app_files, app_state
from deployer.flow.app_change import Change
from deployer.flow.request import Request
from deployer.flow.session import Session


@dataclass(frozen=True)
class Wish:
    """release: by its name or its version, "" for the one before. despite: also over migrations that cannot be undone.
    files_only: have the project's files say it, and touch no machine: for a restore that follows."""

    release: str = ""
    despite: bool = False
    files_only: bool = False


def rollback(request: Request, sink: Sink, wish: Wish) -> dict[str, Any]:
    """The summary of an `up`, with `release` and `files`; with `files_only` those two alone.

    Raises InputError for a release that is not kept or that serves, DeployError when a migration since then cannot be
    undone, or saying which release serves after a failure.
    """
    from deployer.state.lock import lock

    with Session.open(request, sink, make_secrets=False) as session:
        try:
            with lock(session.project.state_dir, "rollback") as held:
                if not wish.files_only:
                    app_change.no_restore(session)
                state = app_state.ask(session)
                target = choose(state, wish.release)
                if target == state.serves == app_state.release_of(session.project):
                    raise InputError(
                        "going back", f"{target} serves already", "deploy app status lists the others"
                    )
                final = state.final_since(target)
                if final and not (wish.despite or wish.files_only):
                    raise refusal(session, target, final)
                change = _plan(session, state, target)
                _confirm(session, change, final, wish)
                session.engine.close()
                if wish.files_only:
                    return _written(session, change)
                body = app_change.carry_out(app_change.agreed(request), sink, change, held)
                return {**body, "changed_release": True}
        except DeployError as error:
            session.mask.error(error)
            raise


def choose(state: Standing, wanted: str) -> str:
    """The release that is meant. Raises InputError."""
    kept = [one for one in state.releases if one.at]
    known = ", ".join(one.release for one in kept if one.release != state.serves) or "none"
    if not wanted:
        # What was begun and never answered gives way to the last one that did.
        target = state.previous if state.current == state.good else state.good
        if not target or state.release(target) is None:
            raise InputError(
                "choosing a release", "none served before the present one", f"kept besides: {known}"
            )
        return target
    found = [one.release for one in kept if wanted in (one.release, one.version)]
    if len(found) != 1:
        why = "several kept releases are" if found else "no kept release is"
        raise InputError("choosing a release", f'{why} called "{wanted}"', f"kept: {known}")
    return found[0]


def refusal(session: Session, target: str, final: list[Migration]) -> DeployError:
    """Why there is no way back, and which way there is."""
    first = final[0]
    where = session.request.provider or session.project.inventory.name
    point = _point(session, first.release)
    way = app_change.way_to_restore(where, target, first.begun, point)
    repositories = session.project.inventory.repositories
    restore = f"to have the data of before too: {way}; what was written since is lost then"
    return DeployError(
        f"going back to {target}",
        f"the migration {first.name} of {first.release}, which cannot be undone, began at "
        f"{app_state.moment(first.begun)}: {target} may not understand the data, or damage them",
        (f"{restore}. " if repositories else "")
        + "If you know that it bears them: deploy rollback --despite-migrations",
    )


def _point(session: Session, release: str) -> str:
    """The recovery point that the upgrade to a release made, as far as this folder's receipts know."""
    from deployer.state import receipts

    deployment = str(session.project.deployment)
    for one in reversed(receipts.read_all(session.project.root, "upgrade")):
        if one.deployment == deployment and one.body.get("to") == release:
            return str(one.body.get("recovery_point") or "")
    return ""


def _plan(session: Session, state: Standing, target: str) -> Change:
    project = session.project
    app = project.app
    kept = state.release(target)
    if kept is None or not kept.source:
        raise DeployError(
            f"going back to {target}",
            "the machine does not keep what it was made from",
            f"write its version and lock files into {app.folder} and run deploy app upgrade",
        )
    files = app_state.source(session, target)
    with app_files.staged(app.name, files) as wanted:
        found = Layout(wanted, project.stack.domain).release()
        if found != target:
            raise DeployError(
                f"going back to {target}",
                f"this version of the toolkit would make {found} of the same files",
                f"deploy app upgrade --to {wanted.version} builds that one",
            )
        migrations = app_state.pending(wanted, target, state)
        version = wanted.version
    said = app_state.release_of(project)
    return Change(
        "rollback",
        app.name,
        state.serves or state.current,
        target,
        said,
        version,
        files,
        collect(app),
        tuple(migrations),
    )


def _confirm(session: Session, change: Change, final: list[Migration], wish: Wish) -> None:
    say = [f"{change.app}: {change.source or 'nothing'} is in use, {change.target} shall be again"]
    if wish.files_only:
        say = [f"the project's files shall say {change.target}; no machine is touched"]
    elif final:
        names = ", ".join(one.name for one in final)
        say.append(f"{names} began since then and cannot be undone: {change.target} gets data of after it")
    for line in say:
        session.sink(Event("notice", line))
    if not session.request.confirm(f"back to {change.target}. Go on?"):
        raise InputError(
            "rollback", "stopped before anything was changed", "run it again and say yes, or use --yes"
        )


def _written(session: Session, change: Change) -> dict[str, Any]:
    written = app_files.write(session.project.root, change.app, change.files)
    return {
        "deployment": str(session.project.deployment),
        "changed_release": False,
        "release": {"app": change.app, "from": change.source, "to": change.target, "migrations": []},
        "files": written,
    }
