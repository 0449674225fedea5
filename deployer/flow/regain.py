"""`deploy adopt --from`: everything back from one repository, on a computer that has an age identity and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.flow import entries
from deployer.flow.request import Request

# The secret key of the repository, where nobody is there to be asked.
VARIABLE = "DEPLOY_REPOSITORY_SECRET"
_NAME = re.compile(rb"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def regain(request: Request, sink: Sink, url: str, secret: str = "") -> dict[str, Any]:
    """Write stack, inventories, templates and the secrets bundle into the folder request.root, from the newest good
    entry of the catalogue.

    url: storage.FORM; secret: of its key. stack, deployment, generation, entry, at, versions, written, there (files that
    were the same already), damaged, inventories, variables (that the inventories name), notes.
    Raises InputError when a file is there with other content or no identity opens them; then nothing was written.
    """
    from deployer.storage import open_store, parse, stack_of

    repository = parse(url, secret)
    # Not the address: it may be long, and errors name the repository.
    store = open_store(repository)
    found = entries.stacks(store)
    stack = stack_of(url) or (found[0] if len(found) == 1 else "")
    if not found or (stack and stack not in found):
        raise DeployError(
            f"looking for a stack in {store.name}",
            f'it holds no backups of "{stack}"' if found else "it holds no backups of any",
            f"it has: {', '.join(found)}"
            if found
            else "see that bucket and prefix are those of the inventory",
        )
    if not stack:
        raise InputError(
            f"looking for a stack in {store.name}",
            f"it has several: {', '.join(found)}",
            "name one: add ?stack=NAME to the address",
        )
    sink(Event("step", f"reading the catalogue of {stack} in {store.name}", status="start"))
    entry, damaged = entries.latest(store, stack)
    for one in damaged:
        sink(Event("warning", f"{one.what}: {one.why}; an older entry is used"))
    files = entries.opened(entry, request.identity, store.name)
    newest = generation.claimed(store.list(f"{stack}/generations/"))
    written = entries.place(files, request.root)
    return {
        "stack": stack,
        "deployment": str(entry.manifest.get("deployment", "")),
        "generation": entry.generation,
        "entry": entry.id,
        "at": str(entry.manifest.get("at", "")),
        "versions": dict(entry.manifest.get("versions", {})),
        "written": written,
        "there": sorted(files.keys() - set(written)),
        "damaged": [{"what": one.what, "why": one.why} for one in damaged],
        "inventories": _inventories(files),
        "variables": _variables(files),
        "notes": _notes(entry, newest, files),
    }


def needs_secret(url: str) -> bool:
    """The address is one whose key has a secret. Raises InputError for one that cannot be read."""
    from deployer.storage import parse

    return parse(url).kind == "s3"


def _inventories(files: Mapping[str, bytes]) -> list[str]:
    names = (name.removeprefix("inventories/") for name in files if name.startswith("inventories/"))
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _variables(files: Mapping[str, bytes]) -> list[str]:
    texts = (
        data for name, data in files.items() if name.endswith(".yaml") and not name.startswith("templates/")
    )
    return sorted({match.decode() for text in texts for match in _NAME.findall(text)})


def _notes(entry: entries.Entry, newest: int, files: Mapping[str, bytes]) -> list[str]:
    from deployer import __version__

    notes = []
    if newest > entry.generation:
        notes.append(
            f"generation {newest} was claimed there after this entry was written (by a restore that may not have ended, "
            "or whose catalogue is lost): look for it before you restore"
        )
    if variables := _variables(files):
        notes.append(f"the inventories want these variables set: {', '.join(variables)}")
    version = str(entry.manifest.get("versions", {}).get("toolkit", ""))
    if version and version != __version__:
        key = entry.manifest.get("toolkit", {}).get("key", "")
        notes.append(f"toolkit {version} wrote this, and this is {__version__}; that one lies there as {key}")
    choice = "|".join(_inventories(files))
    notes.append(f"nothing runs yet: deploy restore --provider {choice or 'NAME'} brings the service back")
    return notes
