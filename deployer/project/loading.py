"""Read one project folder for one inventory: YAML in, checked core dataclasses out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from deployer.core.errors import InputError
from deployer.core.model import Inventory, Project, Stack
from deployer.core.resources import shipped
from deployer.project import build, checks, manifest
from deployer.project.document import Document, read
from deployer.project.mistakes import Mark, Mistakes, did_you_mean
from deployer.project.schema import InventoryFile, StackFile
from deployer.project.wording import explain

# The keys that a provider knows in its section and in a machine's entry; InputError for an unknown one.
Options = Callable[[str], tuple[Sequence[str], Sequence[str]]]
# Sections of the stack that an inventory may lay its own keys over.
_OVERRIDES = ("mail", "sms")
_Schema = TypeVar("_Schema", bound=BaseModel)


def load(
    root: Path,
    provider: str | None,
    inventory_file: Path | None,
    app: str | None = None,
    *,
    options: Options | None = None,
    environment: Mapping[str, str] | None = None,
    expand: bool = True,
) -> Project:
    """The project in folder `root`, at `inventories/PROVIDER.yaml` or at `inventory_file`.

    Without either the project's only inventory is meant. app: another app than the stack's.
    options: says what a provider knows; without it its name and options are taken as they stand.
    environment: for ${NAME}; the process's own by default. expand: False leaves ${NAME} as it stands, for verbs
    that bring no vendor's password anywhere (a look at the logs must not fail for one that is not set).
    Raises InputError with every mistake found (file, line and key); touches nothing.
    """
    variables = (os.environ if environment is None else environment) if expand else None
    path = inventory_file or find_inventory(root, provider)
    mistakes = Mistakes()
    stack_document = _read_stack(root, mistakes, variables)
    inventory_document = read(path, _label(path, root), mistakes, variables)
    if stack_document and inventory_document:
        _override(stack_document, inventory_document)
    stack_file = _check(StackFile, stack_document, mistakes) if stack_document else None
    stack: Stack | None = None
    app_manifest = None
    if stack_document:
        chosen = app or _text(stack_document.data.get("app"))
        mark = stack_document.mark(("app",)) if not app else Mark("--app", 0)
        app_manifest = manifest.load(chosen, root, mark, mistakes) if chosen else None
    if stack_document and stack_file:
        stack = build.stack(stack_file, stack_document, app_manifest, app, mistakes)
    inventory: Inventory | None = None
    if inventory_document:
        inventory = _inventory(inventory_document, path, root, stack, options, mistakes)
    mistakes.stop()
    if stack is None or inventory is None or app_manifest is None:
        raise InputError(
            "reading the project", "something is missing that no check named; please report this"
        )
    return Project(root, stack, inventory, app_manifest)


def load_stack(root: Path, *, environment: Mapping[str, str] | None = None) -> Stack:
    """The stack alone, for verbs that need no inventory (the secrets' readers)."""
    mistakes = Mistakes()
    document = _read_stack(root, mistakes, os.environ if environment is None else environment)
    stack_file = _check(StackFile, document, mistakes) if document else None
    mistakes.stop()
    if document is None or stack_file is None:
        raise InputError("reading the project", "stack.yaml holds nothing")
    return build.stack(stack_file, document, None, None, mistakes)


def find_inventory(root: Path, provider: str | None) -> Path:
    """The inventory file that `--provider` names: the project's own goes before the shipped one.

    Raises InputError, which lists the known ones.
    """
    own = {path.stem: path for path in sorted((root / "inventories").glob("*.yaml"))}
    if provider is None:
        if len(own) == 1:
            return next(iter(own.values()))
        names = ", ".join(own) or "none"
        raise InputError(
            "choosing an inventory",
            f"the project has several ({names})" if own else "the project has none",
            "say which with --provider NAME or --inventory FILE",
        )
    known = {**{path.stem: path for path in sorted(shipped("inventories").glob("*.yaml"))}, **own}
    if provider not in known:
        raise InputError(
            "choosing an inventory",
            f'unknown provider "{provider}"' + did_you_mean(provider, known),
            f"known: {', '.join(sorted(known))}; or name a file with --inventory FILE",
        )
    return known[provider]


def _read_stack(root: Path, mistakes: Mistakes, environment: Mapping[str, str] | None) -> Document | None:
    path = root / "stack.yaml"
    if not path.is_file():
        raise InputError(
            "reading the project",
            f"there is no stack.yaml in {root}",
            "change into a project's folder, name it with --project DIR, or make one with: deploy init DIR",
        )
    return read(path, "stack.yaml", mistakes, environment)


def _override(stack: Document, inventory: Document) -> None:
    for key in _OVERRIDES:
        stack.override(key, inventory)
        inventory.data.pop(key, None)


def _inventory(
    document: Document,
    path: Path,
    root: Path,
    stack: Stack | None,
    known: Options | None,
    mistakes: Mistakes,
) -> Inventory | None:
    provider = _text(document.data.get("provider"))
    options: Mapping[str, object] = {}
    section = document.data.pop(provider, None) if provider not in InventoryFile.model_fields else None
    if isinstance(section, dict):
        document.data[provider] = section
        options = document.settle((provider,))
        del document.data[provider]
    elif section is not None:
        mistakes.add(document.mark((provider,)), (provider,), "must be a section of keys")
    names = checks.vendor(document, provider, options, known, mistakes)
    machines = checks.machine_options(document, names, mistakes)
    file = _check(InventoryFile, document, mistakes, also=(*_OVERRIDES, provider))
    if file is None:
        return None
    return build.inventory(file, document, path.stem, root, options, machines, stack, mistakes)


def _check(
    schema: type[_Schema], document: Document, mistakes: Mistakes, also: tuple[str, ...] = ()
) -> _Schema | None:
    try:
        return schema.model_validate(document.data)
    except ValidationError as error:
        explain(error, document, schema, mistakes, also=also)
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _label(path: Path, root: Path) -> str:
    """The path as the operator would write it."""
    for base in (root, Path.cwd()):
        try:
            return str(path.resolve().relative_to(base.resolve()))
        except ValueError:
            continue
    return str(path)
