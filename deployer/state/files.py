"""Writing files so that a kill at any moment leaves the old text or the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def make_private(folder: Path) -> None:
    """The folder, for its owner only; parents as the umask says."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def sync_folder(folder: Path) -> None:
    """Make a new or renamed name in `folder` outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, text: str, mode: int = 0o600, *, replace: bool = True) -> None:
    """Write `text` to `path` through a temporary file beside it.

    replace: False raises FileExistsError when `path` is there already, also when two write at once.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    sync_folder(path.parent)
