"""Who is live: the bundle, the claims in the repositories, and what `up`, `restore` and `down` do about them.

See core/generation.py. Everything here is bounded by the stores' own limits; repositories are asked side by side.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deployer.core import generation, moving
from deployer.core.component import Secret
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event
from deployer.core.generation import Generation
from deployer.core.machine import Machine
from deployer.core.model import Project, Repository
from deployer.core.moving import MOVED, Move
from deployer.core.provider import Listing
from deployer.flow import claims

if TYPE_CHECKING:
    from deployer.flow.session import Session


@dataclass(frozen=True)
class Standing:
    """take: the generation that is to be claimed, None when the deployment holds one. missing: repositories that may
    lack its claim."""

    take: Generation | None = None
    missing: tuple[Repository, ...] = ()


def completed(project: Project, secrets: Mapping[str, str], *, draft: bool) -> Mapping[str, str]:
    """The secrets with what the next `up` will make for the backups, in memory only: for verbs that change nothing.

    draft: with a generation too, where there was none yet.
    """
    repositories, deployment = project.inventory.repositories, str(project.deployment)
    if not repositories:
        return secrets
    found = dict(secrets)
    if draft and generation.current(found) is None:
        first = _new(1, deployment)
        found[first.entry] = first.to_json()
    if live := generation.held(found, deployment):
        for secret in _lacking(found, live.number, repositories):
            found[secret.name] = "draft" * 8
    return found


def check(session: Session) -> Standing:
    """What `up` has to claim. Asks the repositories only where something is new; `claim` does the rest.

    Makes the passwords of repositories that were added to the inventory. Raises DeployError when another deployment
    is live, when the repositories know a newer generation than the bundle, or when none answers a first claim; asks
    (InputError for a no) before a generation that was taken down is followed by another.
    """
    project, secrets = session.project, session.secrets
    repositories, us = project.inventory.repositories, str(project.deployment)
    if not repositories:
        return Standing()
    newest = generation.current(secrets)
    gone = newest is not None and newest.released in secrets
    if newest and newest.deployment != us and not gone:
        raise _elsewhere(newest, project, moving.newest(secrets))
    if newest and not gone:
        if _lacking(secrets, newest.number, repositories):
            _keep(session, (), newest.number)
        known = claims.remembered(project, newest.number)
        missing = tuple(one for one in repositories if known.get(one.name) != claims.place(one))
        if missing:
            _refuse_newer(session, claims.look(project, missing), newest)
        return Standing(None, missing)
    seen = claims.look(project, repositories)
    _refuse_newer(session, seen, newest)
    _one_must_answer(seen)
    if newest:
        question = (
            f"{newest.deployment}, which was live as generation {newest.number}, was taken down. Begin generation "
            f"{newest.number + 1} at {us} with what its machines and volumes still hold, if anything? (deploy restore "
            "brings the backed up data back)"
        )
        if not session.request.confirm(question):
            raise InputError(
                "claiming a generation",
                "stopped before anything was changed",
                f"deploy restore --provider {project.inventory.name} brings the data back; deploy up --yes begins without",
            )
    return Standing(_new(newest.number + 1 if newest else 1, us), repositories)


def claim(session: Session, standing: Standing) -> Generation | None:
    """Hold the generation: in the bundle first, then in every repository that answers. The one that is held now.

    A repository that does not answer gets its claim from a later `up`; a warning says so. Raises DeployError.
    """
    if standing.take:
        _keep(session, (standing.take,), standing.take.number)
    live = generation.held(session.secrets, str(session.project.deployment))
    if live and standing.missing:
        _write(session, live, standing.missing)
    return live


def raise_generation(session: Session, by: str = "") -> Generation:
    """Make this deployment the live one, by the next generation above all that the bundle and the repositories know.

    by: names the run (a restore's id); the same one again gives the same generation, so that a killed run can continue.
    At least one repository must answer. The caller has made sure that the former deployment is dead. DeployError.
    """
    project = session.project
    repositories = project.inventory.repositories
    newest = generation.current(session.secrets)
    if newest and by and newest.by == by and newest.deployment == str(project.deployment):
        live = newest
        if _lacking(session.secrets, live.number, repositories):
            _keep(session, (), live.number)
    else:
        seen = claims.look(project, repositories)
        _one_must_answer(seen)
        known = [newest.number if newest else 0, *(one.highest.number for one in seen if one.highest)]
        live = _new(max(known) + 1, str(project.deployment), by)
        _keep(session, (live,), live.number)
    _write(session, live, repositories)
    return live


def refuse_empty(session: Session, existing: Mapping[str, Machine]) -> None:
    """Raise DeployError when the live deployment's database machine is gone with its disk, and backups of it exist: a
    new one would be empty, and write where the old one did. For an `up` that is about to make machines."""
    project, provider = session.project, session.provider
    live = generation.held(session.secrets, str(project.deployment))
    names = [entry.name for entry in project.inventory.machines if "database" in entry.roles]
    if not live or not project.inventory.repositories or any(name in existing for name in names):
        return
    if isinstance(provider, Listing) and any(
        one.data and one.deployment == project.deployment for one in provider.resources()
    ):
        # Its data volume was kept, and is attached again.
        return
    for repository in project.inventory.repositories:
        try:
            newest = claims.newest_wal(project, live.number, repository)
        except DeployError:
            # Another one may tell.
            continue
        if newest:
            name = project.inventory.name
            raise DeployError(
                f"making {', '.join(names)}",
                f"{project.deployment} is live, its database is gone, and {repository.name} holds backups of it: deploy up "
                "would begin with an empty one",
                f"deploy restore --provider {name} brings the data back; to begin anew without them: deploy down "
                f"--provider {name}, then deploy up",
            )


def release(session: Session) -> None:
    """Note in the bundle that the live deployment was taken down, so that `up` may begin another. For `down`."""
    live = generation.held(session.secrets, str(session.project.deployment))
    if live and live.released not in session.secrets:
        change_bundle(session, lambda bundle: bundle.put(Secret(live.released, "given"), _now()))


def confirm_newest(session: Session) -> None:
    """Raise DeployError when a repository that answers knows a newer generation than the bundle: somebody else has
    restored, and this folder's secrets are old. For runs that are about to change something."""
    if session.project.inventory.repositories and not session.asked_claims:
        seen = claims.look(session.project, session.project.inventory.repositories)
        _refuse_newer(session, seen, generation.current(session.secrets))


def look_for_newest(session: Session, source: Generation) -> str:
    return newest_repository(session.project, source)


def newest_repository(project: Project, source: Generation) -> str:
    """The name of the repository that holds the newest WAL of a generation, of those that answer. Raises DeployError."""
    found, why = repositories_with(project, source.number)
    if not found:
        raise DeployError(
            f"looking for a backup of generation {source.number}",
            "no repository offers one",
            "mend what the lines above name, or name a repository with --from",
            detail="\n".join(why),
        )
    return found[0]


def repositories_with(project: Project, number: int) -> tuple[list[str], list[str]]:
    """Names of the repositories that hold a backup of a generation, the one with the newest WAL first; and why the
    others do not count."""
    found, why = {}, []
    for repository in project.inventory.repositories:
        try:
            if newest := claims.newest_wal(project, number, repository):
                found[repository.name] = newest
            else:
                why.append(f"{repository.name}: it holds no backup of it")
        except DeployError as error:
            why.append(f"{repository.name}: {error.why}")
    # Of equal ones the first of the inventory.
    return sorted(found, key=lambda name: found[name][8:], reverse=True), why


def _write(session: Session, live: Generation, repositories: Sequence[Repository]) -> None:
    project = session.project
    there = claims.remembered(project, live.number)
    answers = claims.write(project.stack.name, live, repositories)
    for repository, error in zip(repositories, answers, strict=True):
        if error is None:
            there[repository.name] = claims.place(repository)
        elif repository.kind != "path":
            # A folder that only the machines have is no news.
            session.sink(
                Event(
                    "warning",
                    f"{repository.name} has no claim of generation {live.number} yet ({error.why}); the next deploy up "
                    "tries again",
                )
            )
    claims.remember(project, live.number, there)


# --- the bundle ---


def _lacking(secrets: Mapping[str, str], number: int, repositories: Sequence[Repository]) -> list[Secret]:
    wanted = (secret for one in repositories for secret in generation.ciphers(number, one.name))
    return [secret for secret in wanted if secret.name not in secrets]


def _keep(session: Session, claims: Sequence[Generation], number: int) -> None:
    """Write claims and the passwords of a generation into the bundle; what there is stays."""
    from deployer.pki import keys

    repositories = session.project.inventory.repositories

    def change(bundle: Any) -> None:
        for one in claims:
            bundle.put(Secret(one.entry, "given"), one.to_json())
        for secret in _lacking(bundle.values, number, repositories):
            bundle.put(secret, keys.password())

    change_bundle(session, change)


def change_bundle(session: Session, change: Callable[[Any], None]) -> None:
    """Change the bundle on the disk; the session goes on with what is in it then."""
    from deployer.project.bundle import Bundle

    bundle = Bundle(session.project.root, session.project.stack.operators, session.request.identity)
    change(bundle)
    for notice in bundle.save():
        session.sink(Event("notice", notice))
    session.secrets = bundle.values
    session.mask.learn(bundle.values.values(), session.project)


def _new(number: int, deployment: str, by: str = "") -> Generation:
    return Generation(number, deployment, _now(), by or f"{getpass.getuser()}@{socket.gethostname()}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- refusals ---


def _refuse_newer(session: Session, seen: Sequence[claims.Seen], newest: Generation | None) -> None:
    session.asked_claims = True
    ours = newest.number if newest else 0
    for one in seen:
        if one.highest and one.highest.number > ours:
            know = f"know of {ours} only" if ours else "know of none"
            raise DeployError(
                "looking at who is live",
                f"the repository {one.repository.name} shows generation {one.highest.number}, held by "
                f"{one.highest.deployment}; the secrets of this folder {know}",
                "get the newest secrets.age (version control, another operator, or deploy adopt --from into an empty "
                "folder); if it is another stack of the same name, give the repository another prefix",
            )


def _one_must_answer(seen: Sequence[claims.Seen]) -> None:
    """A folder that only the machines have is not looked for here."""
    if all(one.error for one in seen if one.repository.kind != "path") and not any(
        one.error is None for one in seen
    ):
        asked = [one for one in seen if one.repository.kind != "path"]
        if not asked:
            return
        raise DeployError(
            "claiming a generation",
            "no repository answers, so nobody could see who is live",
            "mend what the lines above name, then run this again",
            detail="\n".join(f"{one.repository.name}: {one.error.why}" for one in asked if one.error),
        )


def _elsewhere(newest: Generation, project: Project, move: Move | None) -> InputError:
    name = project.inventory.name
    if move and move.side(project.deployment):
        return InputError(
            "looking at who is live",
            f"{newest.deployment} is the live deployment (generation {newest.number}), and {project.deployment} is its "
            "standby",
            "deploy migrate --back moves the service there, deploy retire ends it"
            if move.phase == MOVED
            else "deploy migrate --resume ends the move",
        )
    return InputError(
        "looking at who is live",
        f"{newest.deployment} is the live deployment of this stack (generation {newest.number}, since {newest.at}), "
        f"and {project.deployment} would write into the same repositories",
        f"deploy migrate --from {newest.deployment.partition('@')[2]} --to {name} moves it here; deploy restore "
        f"--provider {name} brings its data here when it is dead; deploy down ends it",
    )
