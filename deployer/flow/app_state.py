"""`deploy app status`: the release that serves, the one before it, those kept, and what the files would bring."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from deployer.components.app import standing
from deployer.components.app.layout import Layout
from deployer.components.app.standing import Standing
from deployer.core.errors import DeployError
from deployer.core.events import Sink
from deployer.core.manifest import Manifest
from deployer.core.model import Project
from deployer.flow import provision
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session, single
from deployer.project import manifest

# Seconds for a look, which counts the bytes of every release.
BOUND = 60


def machine_name(session: Session) -> str:
    """The app's machine. Raises DeployError when it does not exist."""
    return single(session.running(), "app", provision.roles(session.project)).name


def ask(session: Session) -> Standing:
    """What the app's machine says. Raises DeployError."""
    name = machine_name(session)
    machines = session.running()
    session.connected(session.connect({name: machines[name]}, SSH), SSH)
    text, stdin = standing.command(session.project.app.name)
    answered = session.engine.run(name, text, stdin=stdin, timeout=BOUND)
    return standing.parse(standing.answer(name, *answered))


def source(session: Session, release: str) -> dict[str, bytes]:
    """The files that a kept release was made from; for a session that has asked already. Raises DeployError."""
    from deployer.components.app.source import unpack

    name = machine_name(session)
    text, stdin = standing.command(session.project.app.name, release)
    answered = session.engine.run(name, text, stdin=stdin, timeout=BOUND)
    return unpack(standing.answer(name, *answered), name)


def release_of(project: Project) -> str:
    """The release that the project's files say."""
    return Layout(project.app, project.stack.domain).release()


def moment(seconds: float) -> str:
    """As `deploy restore --at` takes it, not after the moment; "" for 0."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z" if seconds else ""


def pending(app: Manifest, release: str, state: Standing) -> list[dict[str, Any]]:
    """Migrations that run before `release` serves: name, reversible."""
    done = {one.name for one in state.migrations if one.release == release and one.done}
    return [
        {"name": step.name, "reversible": step.reversible} for step in app.migrations if step.name not in done
    ]


def status(request: Request, sink: Sink) -> dict[str, Any]:
    """release, previous, kept, next (None when the files say what serves), ok, notes."""
    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        try:
            state = ask(session)
        except DeployError as error:
            session.mask.error(error)
            raise
        project = session.project
        files = release_of(project)
        kept = [_kept(one, state) for one in sorted(state.releases, key=lambda one: one.at, reverse=True)]
        coming = None
        if files != state.good:
            coming = {
                "release": files,
                "version": project.app.version,
                "migrations": pending(project.app, files, state),
                "built": state.release(files) is not None,
            }
        return {
            "deployment": str(project.deployment),
            "app": project.app.name,
            "ok": bool(state.serves),
            "release": state.serves,
            "current": state.current,
            "previous": state.previous,
            "kept": kept,
            "bytes": sum(one.bytes for one in state.releases),
            "next": coming,
            "way_back": _way_back(state),
            "notes": _notes(project, state),
        }


def _kept(one: standing.Release, state: Standing) -> dict[str, Any]:
    marks = [mark for mark in state.migrations if mark.release == one.release]
    return {
        "release": one.release,
        "version": one.version,
        "in_service_since": moment(one.at) if one.release == state.good else "",
        "last_put_in_service": moment(one.at),
        "pause_seconds": one.pause,
        "bytes": one.bytes,
        "state": _word(one, state),
        "migrations": [
            {"name": mark.name, "at": moment(mark.begun), "reversible": mark.reversible} for mark in marks
        ],
    }


def _word(one: standing.Release, state: Standing) -> str:
    if one.release == state.serves:
        return "in service"
    if one.release == state.current:
        return "does not serve"
    return "the one before" if one.release == state.previous else "kept"


def _way_back(state: Standing) -> dict[str, Any] | None:
    """Where `rollback` would lead, and what stands against it."""
    if not state.previous or state.release(state.previous) is None:
        return None
    final = [mark.name for mark in state.final_since(state.previous)]
    return {"release": state.previous, "migrations": final}


def _notes(project: Project, state: Standing) -> list[str]:
    notes = []
    app = project.app
    if state.current and state.current != state.good:
        notes.append(
            f"{state.current} was begun and never answered; {state.good or 'nothing'} served before it"
        )
    elif not state.active:
        notes.append("its processes do not all run: deploy status, deploy logs app")
    shipped = manifest.shipped_apps() / app.name / "app.yaml"
    if app.folder != shipped.parent and shipped.is_file():
        version = _version(shipped.read_text(encoding="utf-8"))
        if version and version != app.version:
            notes.append(
                f"your {app.folder / 'app.yaml'} says {app.version} and goes before the shipped one, which is {version}"
            )
    return notes


def _version(text: str) -> str:
    import yaml

    try:
        return str(yaml.load(text, yaml.BaseLoader).get("version", ""))
    except (yaml.YAMLError, AttributeError):
        return ""
