"""Reading the catalogue of a repository: whole entries, and what is wrong with those that are not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.core.model import Repository

if TYPE_CHECKING:
    from deployer.flow.session import Session
    from deployer.storage import Store

FORMAT = 1
OBJECTS = ("secrets.age", "project.age", "fingerprints.age")
# How many of the newest entries `verify` reads whole.
READ_WHOLE = 3


@dataclass(frozen=True)
class Damage:
    """An object that is not as it was written. what: its key."""

    what: str
    why: str


@dataclass(frozen=True)
class Entry:
    """One entry, complete and as it was written. objects: by name, of OBJECTS."""

    stack: str
    generation: int
    id: str
    manifest: Mapping[str, Any]
    objects: Mapping[str, bytes] = field(repr=False)


def stacks(store: Store) -> list[str]:
    """The stacks that have backups in the repository."""
    return [name for name in store.folders() if generation.claimed(store.list(f"{name}/generations/"))]


def latest(store: Store, stack: str, only: int = 0) -> tuple[Entry, list[Damage]]:
    """The newest entry that is complete and undamaged, of the newest generation that has one, and what is wrong with
    those that are newer. only: of this generation. Raises DeployError when there is none."""
    damaged: list[Damage] = []
    for number, name in _names(store, stack):
        if only and number != only:
            continue
        entry, wrong = read(store, stack, number, name)
        damaged += wrong
        if entry:
            return entry, damaged
    first = f"{damaged[0].what}: {damaged[0].why}" if damaged else ""
    raise DeployError(
        f"reading the catalogue of {stack} in {store.name}",
        f"no entry in it is complete and undamaged: {first}" if damaged else "it holds none",
        "try another repository",
        detail="\n".join(f"{one.what}: {one.why}" for one in damaged),
    )


def read(store: Store, stack: str, number: int, name: str) -> tuple[Entry | None, list[Damage]]:
    """One entry, and what is wrong with it. Raises DeployError when the repository cannot be asked."""
    from deployer.storage import MissingError

    top = f"{generation.catalogue_key(stack, number)}/{name}"
    try:
        manifest = json.loads(store.get(f"{top}/manifest.json"))
        whole = manifest.pop("digest") == digest(manifest)
    except MissingError:
        return None, [Damage(f"{top}/manifest.json", "it is missing")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, [Damage(f"{top}/manifest.json", "it does not hold what we write")]
    if not whole:
        return None, [Damage(f"{top}/manifest.json", "its content was changed")]
    if manifest["format"] != FORMAT:
        return None, [Damage(f"{top}/manifest.json", "a newer version of this tool wrote it")]
    listed = manifest["objects"]
    objects, damaged = {}, []
    for part in OBJECTS:
        try:
            objects[part] = store.get(f"{top}/{part}")
        except MissingError:
            damaged.append(Damage(f"{top}/{part}", "it is missing"))
            continue
        if why := _wrong(objects[part], listed[part]):
            damaged.append(Damage(f"{top}/{part}", why))
    return (None, damaged) if damaged else (Entry(stack, number, name, manifest, objects), [])


def digest(manifest: Mapping[str, Any]) -> str:
    """What a manifest says of itself, so that damage to it shows too."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def verify(session: Session, repository: Repository) -> list[Damage]:
    """What is wrong in the catalogue of the present generation: the newest entries and the toolkit are read whole, of
    older ones it is seen that all objects are there. Raises DeployError when the repository cannot be asked."""
    from deployer.storage import MissingError, open_store

    store, stack = open_store(repository), session.project.stack.name
    live = generation.current(session.secrets)
    names = [(number, name) for number, name in _names(store, stack) if live and number == live.number]
    if not names:
        number = live.number if live else 0
        return [Damage(generation.catalogue_key(stack, number), "it holds no entry")]
    damaged: list[Damage] = []
    wheels: dict[str, Any] = {}
    for number, name in names[:READ_WHOLE]:
        entry, wrong = read(store, stack, number, name)
        damaged += wrong
        if entry:
            wheels[entry.manifest["toolkit"]["key"]] = entry.manifest["toolkit"]
    for key, listed in wheels.items():
        try:
            if why := _wrong(store.get(key), listed):
                damaged.append(Damage(key, why))
        except MissingError:
            damaged.append(Damage(key, "it is missing"))
    there = store.list(f"{generation.catalogue_key(stack, names[0][0])}/")
    for number, name in names[READ_WHOLE:]:
        for part in (*OBJECTS, "manifest.json"):
            key = f"{generation.catalogue_key(stack, number)}/{name}/{part}"
            if not there.get(key):
                damaged.append(Damage(key, "it is missing" if key not in there else "it is empty"))
    return damaged


def _names(store: Store, stack: str) -> Iterator[tuple[int, str]]:
    """(generation, ID), the newest first."""
    numbers = sorted((name for name in store.folders(f"{stack}/") if name.isdigit()), reverse=True)
    for number in numbers:
        top = generation.catalogue_key(stack, int(number))
        for name in sorted(store.folders(f"{top}/"), reverse=True):
            yield int(number), name


def _wrong(data: bytes, listed: Mapping[str, Any]) -> str:
    if len(data) != listed["size"]:
        return f"it has {len(data)} bytes instead of {listed['size']}"
    return "" if hashlib.sha256(data).hexdigest() == listed["sha256"] else "its content was changed"


def opened(entry: Entry, identity: Path | None, where: str) -> dict[str, bytes]:
    """The project's files and secrets.age, by name. where: the repository's name, for errors.

    Raises InputError when no identity of this computer opens them, DeployError when they are damaged.
    """
    from deployer.flow import belongings
    from deployer.project.sealed import unseal

    # Nothing is kept of the bundle's text: that it opens is what has to be known.
    unseal(entry.objects["secrets.age"], identity, f"secrets.age of {where}")
    files = belongings.unpack(unseal(entry.objects["project.age"], identity, f"project.age of {where}"))
    return {**files, "secrets.age": entry.objects["secrets.age"]}


def prints(entry: Entry, identity: Path | None) -> dict[str, str]:
    """The fingerprints of an entry, for `catalogue.differing`. Raises InputError, DeployError."""
    from deployer.project.sealed import unseal

    body: dict[str, str] = json.loads(unseal(entry.objects["fingerprints.age"], identity, "fingerprints.age"))
    return body


def place(files: Mapping[str, bytes], folder: Path) -> list[str]:
    """Write the files that are not there; their names. Raises InputError, before anything is written, for those that
    are there with other content."""
    from deployer.project.vault import write_whole

    there = {name: folder / name for name in files}
    different = [
        name
        for name, path in there.items()
        if path.exists() and (path.is_dir() or path.read_bytes() != files[name])
    ]
    if different:
        raise InputError(
            f"writing into {folder}",
            f"{', '.join(sorted(different))} is there with other content, and nothing is overwritten",
            "use an empty folder, or move these away; nothing was written",
        )
    written = []
    for name in sorted(files):
        if not there[name].exists():
            there[name].parent.mkdir(parents=True, exist_ok=True)
            write_whole(there[name], files[name])
            if name != "secrets.age":
                there[name].chmod(0o644)
            written.append(name)
    return written


def fetch(store: Store, stack: str, number: int, identity: Path | None, folder: Path) -> Entry:
    """Write what the newest good entry of a generation holds into a folder, as on a computer that has nothing else."""
    entry, _ = latest(store, stack, number)
    place(opened(entry, identity, store.name), folder)
    return entry
