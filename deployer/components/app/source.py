"""What a release is made from: app.yaml, lock files and templates, as they were put together on the operator's computer.

It goes to the machine with the release, so that a rollback from any computer writes the same files again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import PurePosixPath

from deployer.components.app.layout import Layout
from deployer.core.errors import DeployError
from deployer.core.manifest import Manifest


def collect(app: Manifest) -> dict[str, bytes]:
    """Every file of the app by its name in the folder, those of the project before the shipped ones."""
    found: dict[str, bytes] = {}
    for base in app.folders or (app.folder,):
        for path in sorted(base.rglob("*")):
            name = str(path.relative_to(base))
            hidden = any(part.startswith((".", "__pycache__")) for part in PurePosixPath(name).parts)
            if path.is_file() and not hidden:
                found.setdefault(name, path.read_bytes())
    return found


def pack(layout: Layout) -> str:
    """The files as JSON, with the release's name."""
    files = {name: base64.b64encode(data).decode() for name, data in collect(layout.app).items()}
    return json.dumps({"release": layout.release(), "files": files}) + "\n"


def unpack(source: Mapping[str, object], machine: str) -> dict[str, bytes]:
    """The files of what `pack` made. Raises DeployError for what it does not make: nothing, paths that lead out."""
    listed = source.get("files")
    if not isinstance(listed, dict) or "app.yaml" not in listed:
        raise DeployError(
            "reading what the release was made from", "it is not kept there", "", machine=machine
        )
    for name in listed:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise DeployError(
                "reading what the release was made from",
                f"{name!r} is no file of an app",
                "",
                machine=machine,
            )
    return {name: base64.b64decode(text) for name, text in listed.items()}
