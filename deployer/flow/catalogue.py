"""The catalogue: beside the backups of a generation lie the secrets bundle, the project's files and a manifest.

Reading is in entries.py.

    STACK/000001/catalogue/ID/manifest.json       sizes and hashes of the others; written last, so it makes them complete
                             /secrets.age         the bundle, as it is
                             /project.age         belongings.py, to the bundle's readers
                             /fingerprints.age    SHA-256 of the secrets that decrypt data, to the same
    STACK/toolkit/DIGEST/deploy_toolkit-*.whl     this program; DIGEST is of the wheel

Hashes show damage, not malice: who can write into a repository can write all of it, but read nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deployer import __version__
from deployer.core import generation
from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.generation import Generation
from deployer.core.model import Project, Repository
from deployer.flow.entries import FORMAT, Damage, Entry, digest, fetch, latest, prints, verify

if TYPE_CHECKING:
    from deployer.flow.session import Session
    from deployer.storage import Store

__all__ = [
    "Damage", "Entry", "differing", "fetch", "fingerprints", "latest", "prints", "verify", "versions", "write",
    "write_changed",
]  # fmt: skip

# What the stack runs on; a restore refuses another major version.
DEBIAN, POSTGRESQL = "13", "17"
# In the state folder: the digest of what each repository holds. A cache.
STATE = "catalogue.json"
_FINGERPRINTED = ("app/", "backups/", "database/")


# --- writing ---


def write(session: Session, repositories: Sequence[Repository] | None = None) -> list[dict[str, object]]:
    """Write an entry of now into every repository (or these): rows of repository, id, bytes, error ("" when written).

    One repository that fails stops no other, and is told as a warning; raises DeployError when none took it, or when
    this deployment is not live.
    """
    project = session.project
    live = generation.held(session.secrets, str(project.deployment))
    if live is None:
        raise DeployError(
            "writing the catalogue", f"{project.deployment} is not the live deployment, so it has none"
        )
    parts, now = _parts(session), _digest(session, live)
    chosen = project.inventory.repositories if repositories is None else repositories
    rows, kept, errors = [], _known(project), []
    for one in chosen:
        row: dict[str, object] = {"repository": one.name, "id": "", "bytes": 0, "error": ""}
        try:
            row["id"], row["bytes"] = _put(one, project, live, parts)
            kept[one.name] = now
        except DeployError as error:
            row["error"] = error.why
            errors.append(error)
            session.sink(Event("warning", f"the catalogue was not written to {one.name}: {error.why}"))
        rows.append(row)
    _remember(project, kept)
    if errors and len(errors) == len(rows):
        raise errors[0]
    return rows


def write_changed(session: Session) -> list[dict[str, object]]:
    """The same, into the repositories that do not hold what is so now. For the end of an `up`: asks nobody when nothing
    has changed, and fails nothing."""
    project = session.project
    live = generation.held(session.secrets, str(project.deployment))
    if live is None or not project.inventory.repositories:
        return []
    now, known = _digest(session, live), _known(project)
    changed = [one for one in project.inventory.repositories if known.get(one.name) != now]
    # A folder that only the machines have gets its entry from another computer, or never.
    here = [one for one in changed if one.kind != "path" or _mounted(one)]
    if not here:
        return []
    try:
        return write(session, here)
    except DeployError:
        # Told already, for each.
        return []


def _mounted(repository: Repository) -> bool:
    from pathlib import Path

    return Path(repository.path).is_dir()


def _parts(session: Session) -> dict[str, bytes]:
    """The objects but the manifest."""
    from deployer.flow import belongings
    from deployer.project.bundle import Bundle
    from deployer.project.sealed import seal

    request, project = session.request, session.project
    bundle = Bundle(project.root, project.stack.operators, request.identity)
    prints = fingerprints(bundle.values)
    packed = belongings.pack(belongings.collect(project.root, request.inventory_file))
    return {
        "secrets.age": bundle.path.read_bytes(),
        "project.age": seal(packed, bundle.recipients),
        "fingerprints.age": seal(json.dumps(prints, indent=1).encode(), bundle.recipients),
    }


def fingerprints(secrets: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 by name of the secrets without which restored data cannot be read."""
    wanted = sorted(name for name in secrets if name.startswith(_FINGERPRINTED))
    return {name: hashlib.sha256(secrets[name].encode()).hexdigest() for name in wanted}


def differing(fingerprinted: Mapping[str, str], secrets: Mapping[str, str]) -> list[str]:
    """Names of secrets that an entry fingerprinted and that are missing or of another value now."""
    ours = fingerprints(secrets)
    return sorted(name for name, value in fingerprinted.items() if ours.get(name) != value)


def _put(
    repository: Repository, project: Project, live: Generation, parts: Mapping[str, bytes]
) -> tuple[str, int]:
    from deployer.storage import open_store

    store = open_store(repository)
    at = datetime.now(UTC)
    # Names sort by time.
    name = f"{at:%Y%m%dT%H%M%SZ-%f}"
    top = f"{generation.catalogue_key(project.stack.name, live.number)}/{name}"
    manifest = {
        "format": FORMAT,
        "id": name,
        "stack": project.stack.name,
        "generation": live.number,
        "deployment": live.deployment,
        "at": at.isoformat(timespec="seconds"),
        "versions": versions(project),
        "objects": {part: _described(data) for part, data in parts.items()},
        "toolkit": _put_toolkit(store, project.stack.name),
    }
    for part, data in parts.items():
        store.put(f"{top}/{part}", data)
    text = json.dumps({**manifest, "digest": digest(manifest)}, indent=1)
    store.put(f"{top}/manifest.json", text.encode())
    return name, sum(map(len, parts.values()))


def versions(project: Project) -> dict[str, str]:
    return {
        "toolkit": __version__,
        "app": f"{project.app.name} {project.app.version}",
        "debian": DEBIAN,
        "postgresql": POSTGRESQL,
    }


def _put_toolkit(store: Store, stack: str) -> dict[str, object]:
    from deployer.flow import toolkit

    wheel = toolkit.build()
    described = _described(wheel)
    key = f"{stack}/toolkit/{str(described['sha256'])[:16]}/{toolkit.FILE}"
    if store.list(key) != {key: len(wheel)}:
        store.put(key, wheel)
    return {"key": key, **described}


def _described(data: bytes) -> dict[str, object]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


# --- what the state folder remembers ---


def _digest(session: Session, live: Generation) -> str:
    """Of all that an entry would say, the time aside."""
    from deployer.flow import belongings

    project = session.project
    files = belongings.collect(project.root, session.request.inventory_file)
    parts = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    bundle = project.root / "secrets.age"
    parts["secrets.age"] = hashlib.sha256(bundle.read_bytes()).hexdigest() if bundle.is_file() else ""
    body = json.dumps([live.number, versions(project), parts], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


def _known(project: Project) -> dict[str, str]:
    try:
        return dict(json.loads((project.state_dir / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _remember(project: Project, digests: Mapping[str, str]) -> None:
    from deployer.state.files import make_private, write_atomically

    make_private(project.state_dir)
    write_atomically(project.state_dir / STATE, json.dumps(dict(digests), indent=1) + "\n")
