"""The project's files as one archive: what a computer that has nothing needs besides the secrets bundle."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from deployer.core.errors import DeployError

# Bytes of all files together; templates and certificates are small, and an archive is held in memory.
LARGEST = 64 << 20


def pack(files: Mapping[str, bytes]) -> bytes:
    """A tar.gz; the same files give the same bytes."""
    content = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=content, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            archive.addfile(entry, io.BytesIO(files[name]))
    return content.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """Name -> content. Raises DeployError for what `pack` does not write: links, paths that lead out, too much."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for entry in archive:
                path = PurePosixPath(entry.name)
                if path.is_absolute() or ".." in path.parts or not entry.isfile():
                    raise DeployError("reading the project's archive", f"{entry.name} is no plain file in it")
                if sum(map(len, found.values())) + entry.size > LARGEST:
                    raise DeployError(
                        "reading the project's archive", f"it holds more than {LARGEST >> 20} MiB"
                    )
                content = archive.extractfile(entry)
                assert content is not None
                found[str(path)] = content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DeployError("reading the project's archive", f"it is damaged: {error}") from None
    return found


def collect(root: Path, inventory_file: Path | None = None) -> dict[str, bytes]:
    """stack.yaml, the inventories and known host keys, the project's own templates, and the PEM files that they name.

    inventory_file: one that lies elsewhere; it comes with the others. Never: secrets, identities, the state folder.
    """
    paths = {"stack.yaml": root / "stack.yaml"}
    for path in sorted((root / "inventories").glob("*")):
        if path.suffix in (".yaml", ".hosts") and path.is_file():
            paths[f"inventories/{path.name}"] = path
    if inventory_file is not None:
        paths.setdefault(f"inventories/{inventory_file.stem}.yaml", inventory_file)
    for path in sorted((root / "templates").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            paths[str(path.relative_to(root))] = path
    found = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    for name in [name for name in found if name.startswith("inventories/") and name.endswith(".yaml")]:
        for file in _certificates(found[name]):
            inside = PurePosixPath(file)
            if not inside.is_absolute() and ".." not in inside.parts and (root / inside).is_file():
                found[str(inside)] = (root / inside).read_bytes()
    return found


def _certificates(text: bytes) -> Iterator[str]:
    """What `trusted_ca:` names anywhere in an inventory."""
    import yaml

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "trusted_ca" and isinstance(item, str) and item:
                    yield item
                else:
                    yield from walk(item)
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)

    try:
        return walk(yaml.safe_load(text))
    except yaml.YAMLError:
        # An inventory that is not in use may be half written.
        return iter(())
