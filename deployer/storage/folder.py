"""Objects as files: another disk, a mounted share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployer.core.errors import DeployError
from deployer.core.model import Repository
from deployer.storage.objects import ExistsError, MissingError, OfflineError, Store

# Begins the name of a file that is being written.
_DRAFT = ".draft-"


class FolderStore(Store):
    """Files are written beside and moved to their place whole. The folder itself is never made: a share that is not
    mounted must not look like an empty repository."""

    def __init__(self, repository: Repository) -> None:
        super().__init__(repository)
        self._top = Path(repository.path)

    def get(self, key: str) -> bytes:
        what = f"reading {key} from the repository {self.name}"
        path = self._path(key, what)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise MissingError(what, f"there is no {path}", "see what it holds: deploy backup list") from None
        except OSError as error:
            raise self._failed(what, error) from error

    def put(self, key: str, data: bytes, *, only_new: bool = False) -> None:
        what = f"writing {key} to the repository {self.name}"
        path = self._path(key, what)
        draft = path.with_name(f"{_DRAFT}{os.getpid()}-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                if only_new:
                    os.link(draft, path)
                else:
                    draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        except FileExistsError:
            raise ExistsError(what, "it is there already") from None
        except OSError as error:
            raise self._failed(what, error) from error

    def list(self, prefix: str = "") -> Mapping[str, int]:
        what = f"listing the repository {self.name}"
        # Only the folder that the prefix leads to is walked, not all that backups hold.
        start = self._path(prefix.rpartition("/")[0], what)
        found = {}
        try:
            for path in start.rglob("*"):
                key = str(path.relative_to(self._top))
                if path.is_file() and key.startswith(prefix) and not path.name.startswith(_DRAFT):
                    found[key] = path.stat().st_size
        except OSError as error:
            raise self._failed(what, error) from error
        return dict(sorted(found.items()))

    def folders(self, prefix: str = "") -> Sequence[str]:
        what = f"listing the repository {self.name}"
        start = self._path(prefix.rstrip("/"), what)
        try:
            return sorted(path.name for path in start.iterdir() if path.is_dir()) if start.is_dir() else []
        except OSError as error:
            raise self._failed(what, error) from error

    def delete(self, key: str) -> None:
        what = f"deleting {key} in the repository {self.name}"
        try:
            self._path(key, what).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(what, error) from error

    def _path(self, key: str, what: str) -> Path:
        if ".." in key.split("/") or key.startswith("/"):
            raise DeployError(what, "the key leads out of the repository")
        if not self._top.is_dir():
            raise OfflineError(
                what,
                f"{self._top} is no folder on this computer",
                "mount it here, or use a repository that this computer reaches",
            )
        return self._top / key

    def _failed(self, what: str, error: OSError) -> DeployError:
        return DeployError(
            what,
            f"{error.strerror}: {error.filename or self._top}",
            "see to the disk and to the folder's owner",
        )
