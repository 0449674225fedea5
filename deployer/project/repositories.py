"""`repositories:` of an inventory: where backups go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from deployer.core.model import Repository
from deployer.project import checks
from deployer.project.document import Document
from deployer.project.mistakes import Mistakes, Place
from deployer.project.schema import RepositorySection

# What a repository of each kind cannot do without.
_NEEDED = {"s3": ("endpoint", "bucket", "key", "secret"), "path": ("path",)}


def build(
    sections: Sequence[RepositorySection], document: Document, root: Path, mistakes: Mistakes
) -> tuple[Repository, ...]:
    """The repositories, each complete."""
    checks.unique(sections, "name", "repositories", document, mistakes)
    return tuple(_one(index, item, document, root, mistakes) for index, item in enumerate(sections))


def _one(
    index: int, item: RepositorySection, document: Document, root: Path, mistakes: Mistakes
) -> Repository:
    here: Place = ("repositories", index)

    def add(key: str, why: str) -> None:
        mistakes.add(document.mark((*here, key)), (*here, key), why)

    values = {name: getattr(item, name) for name in RepositorySection.model_fields}
    for key in _NEEDED[item.kind]:
        # An unset variable is told by itself.
        if not values[key] and key not in item.model_fields_set:
            add(key, f"is missing; a repository of kind {item.kind} needs it")
    for key in ("path",) if item.kind == "s3" else ("endpoint", "bucket", "prefix", "key", "secret"):
        if values[key]:
            add(key, f"does not belong to a repository of kind {item.kind}")
    if item.path and not PurePosixPath(item.path).is_absolute():
        add("path", f'"{item.path}" must be an absolute path on the machines')
    if bool(item.prune_key) != bool(item.prune_secret):
        add("prune_key" if item.prune_secret else "prune_secret", "is missing; the two go together")
    values["prefix"] = item.prefix.strip("/")
    values["trusted_ca"] = checks.pem(item.trusted_ca, (*here, "trusted_ca"), document, root, mistakes)
    return Repository(**values)
