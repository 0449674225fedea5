"""What `deploy app upgrade` and `deploy rollback` share: have the project's files say another release, bring it into
service, and have them say the former one again when that one serves again.

The order bears a kill anywhere: a recovery point first, then the files, then the machines. Once the files say the new
release, the same command, or `deploy up`, goes on; before that nothing has happened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from deployer.components.app.standing import Standing
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.flow import app_files, app_state
from deployer.flow.request import Request, agree
from deployer.flow.session import Session


@dataclass(frozen=True)
class Change:
    """From one release to another. verb: of the receipt. files: what the project shall say; former: what it said, with
    the release `said` that this made.

    source, target: the release that serves, and the one that shall. migrations: those that run, by name and whether they
    can be undone. facts: more for the receipt, such as the recovery point.
    """

    verb: str
    app: str
    source: str
    target: str
    said: str
    version: str
    files: Mapping[str, bytes] = field(repr=False)
    former: Mapping[str, bytes] = field(repr=False)
    migrations: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def carry_out(request: Request, sink: Sink, change: Change, held: Any) -> dict[str, Any]:
    """Write the files, bring the release into service; the summary of an `up` with what was changed. Writes a receipt.

    held: the lock of the project's state folder. Raises DeployError, which says which release serves and what the files
    say now.
    """
    started, began = datetime.now(UTC), time.monotonic()
    written = app_files.write(request.root, change.app, change.files)
    for path in written:
        sink(Event("notice", f"written: {path}"))
    try:
        body = _converge(request, sink, held, started, began)
    except DeployError as error:
        _failed(request, sink, change, error)
        _record(request, sink, change, started, {"ok": False, "why": error.why, "seconds": _since(began)})
        raise
    state = _ask(request, sink)
    kept = state.release(change.target)
    fact = {
        "ok": True,
        "app": change.app,
        "from": change.source,
        "to": change.target,
        "migrations": list(change.migrations),
        "pause_seconds": kept.pause if kept else 0.0,
        **change.facts,
    }
    _record(request, sink, change, started, {**fact, "seconds": _since(began), "probes": body["probes"]})
    return {**body, "release": fact, "files": written}


def _converge(request: Request, sink: Sink, held: Any, started: datetime, began: float) -> dict[str, Any]:
    """An `up` without its receipt."""
    from deployer.flow import generations, up

    with Session.open(request, sink, make_secrets=True) as session:
        try:
            standing = generations.check(session)
            run = up.make_machines(session, held, started, began, standing)
            generations.claim(session, standing)
            return up.converge(session, replace(run, record=False))
        except DeployError as error:
            session.mask.error(error)
            raise


def _ask(request: Request, sink: Sink) -> Standing:
    with Session.open(request, sink, make_secrets=False) as session:
        return app_state.ask(session)


def _record(request: Request, sink: Sink, change: Change, started: datetime, body: Mapping[str, Any]) -> None:
    from deployer.project import load
    from deployer.state import receipts

    project = load(request.root, request.provider, request.inventory_file, request.app, expand=False)
    fact = {"app": change.app, "from": change.source, "to": change.target, **change.facts}
    receipts.write(request.root, change.verb, project.deployment, {**fact, **body}, started)


def _failed(request: Request, sink: Sink, change: Change, error: DeployError) -> None:
    """Find out which release serves, have the files say it again where it is the former one, and add both to `error`."""
    try:
        state = _ask(request, sink)
    except DeployError as second:
        error.next = (
            f"the machine could not be asked which release serves ({second.why}); the project's files say "
            f"{change.target}: run the same command again, it goes on there"
        )
        return
    ran = [one for one in state.migrations if one.release == change.target and not one.done]
    if state.serves and state.serves == change.source != change.target:
        if change.said == change.source:
            app_files.write(request.root, change.app, change.former)
            files = f"the project's files say {change.source} again"
        else:
            files = f"the project's files say {change.target} as before"
        error.why += f"; {change.source} serves, and {files}{_data(change, ran)}"
        error.next = "mend what the lines above name, and run the same command again"
        if change.said != change.source:
            where = request.provider or "NAME"
            error.next += (
                f"; deploy rollback --provider {where} --to {change.source} has the files say what serves"
            )
    elif state.serves == change.target:
        error.why += f"; {change.target} is in service"
        error.next = "deploy status and deploy logs app say what is wrong with it; deploy rollback goes back"
    else:
        error.next = _stuck(request, change, state)


def _data(change: Change, ran: Sequence[Any]) -> str:
    """What became of the data, where the old release serves."""
    if ran:
        return f"; of the migrations {_names(ran)} began, which {change.source} bears as its manifest says"
    return "; no migration had begun" if change.migrations else ""


def _stuck(request: Request, change: Change, state: Standing) -> str:
    """Neither of them serves."""
    where = request.provider or "NAME"
    final = state.final_since(change.source) if change.source else []
    if not final:
        return (
            "mend what the lines above name, and run the same command again; deploy logs app has the journal"
        )
    return (
        f"mend what the lines above name, and run the same command again; or give up what was written since: "
        f"{way_to_restore(where, change.source, final[0].begun, str(change.facts.get('recovery_point', '')))}"
    )


def way_to_restore(where: str, release: str, begun: float, point: str) -> str:
    """The commands that bring data and release of before a migration back. begun: when it did."""
    at = f"--at {app_state.moment(begun)}"
    recovery = f" (or --point {point}, the recovery point of the upgrade)" if point else ""
    return (
        f"deploy rollback --provider {where} --to {release} --files-only, then "
        f"deploy restore --provider {where} {at}{recovery}"
    )


def no_restore(session: Session) -> None:
    """Raise InputError while a restore has not ended."""
    from deployer.state import restoring

    if restoring.load(session.project.state_dir):
        raise InputError(
            "changing the release", "a restore has not ended", "run deploy restore again, then this"
        )


def agreed(request: Request) -> Request:
    """For what follows a question that was answered."""
    return replace(request, confirm=agree)


def _names(migrations: Sequence[Any]) -> str:
    return ", ".join(dict.fromkeys(one.name for one in migrations))


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)
