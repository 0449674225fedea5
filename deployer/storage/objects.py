"""What every kind of store offers, and how it fails."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from deployer.core.errors import DeployError
from deployer.core.model import Repository


class MissingError(DeployError):
    """There is no such object."""


class ExistsError(DeployError):
    """An object that was to be new is there already."""


class OfflineError(DeployError):
    """The repository does not answer; another one may."""


class Store(ABC):
    """The objects of one repository. A key is a path of letters with "/", below the repository's prefix.

    Every method raises DeployError naming the repository; no call lasts longer than about a minute for each
    object (docs/backups.md).
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    @property
    def name(self) -> str:
        return self.repository.name

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The whole object. Raises MissingError."""

    @abstractmethod
    def put(self, key: str, data: bytes, *, only_new: bool = False) -> None:
        """Write the whole object. only_new: raise ExistsError when it is there, and leave it.

        Where a vendor knows no conditional write, two that write at the same moment are not kept apart.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Mapping[str, int]:
        """Key -> size of all objects whose key begins with `prefix`, sorted; empty when there is none."""

    @abstractmethod
    def folders(self, prefix: str = "") -> Sequence[str]:
        """The names that follow `prefix` ("" or ending in "/") up to the next "/", sorted; what lies below is not read."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete the object; one that is not there is no error."""
