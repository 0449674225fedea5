"""Where backups lie: object storage of any vendor, or a folder. Keys are relative to the repository's prefix."""

from __future__ import annotations

from deployer.core.errors import InputError
from deployer.core.model import Repository
from deployer.storage.address import parse, stack_of
from deployer.storage.objects import ExistsError, MissingError, OfflineError, Store

__all__ = ["ExistsError", "MissingError", "OfflineError", "Store", "open_store", "parse", "stack_of"]


def open_store(repository: Repository, *, prune: bool = False) -> Store:
    """The repository's objects; nothing is asked yet. prune: with the keys that may delete.

    Raises InputError for prune without such keys.
    """
    if repository.kind == "path":
        from deployer.storage.folder import FolderStore

        return FolderStore(repository)
    from deployer.storage.s3 import S3Store

    if prune and not repository.prune_key:
        raise InputError(
            f"opening the repository {repository.name} to delete in it",
            "it has no prune_key and prune_secret; the machines' key shall not be able to delete",
            "make a key at the vendor that may delete, and name it in the inventory (docs/backups.md)",
        )
    return S3Store(repository, prune=prune)
