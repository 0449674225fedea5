"""`deploy app new`: the folder of an app of one's own, with files that explain themselves."""

from __future__ import annotations

import re
from pathlib import Path

from deployer.core.errors import InputError
from deployer.core.resources import shipped


def new(root: Path, name: str) -> dict[str, object]:
    """Write templates/apps/NAME/ into the project's folder: files (below root) and notes (what to do next).

    Raises InputError for a name that cannot be, or that an app has already.
    """
    from deployer.project.manifest import apps, own_apps

    # Its user is app-NAME, and Linux bears 32 characters.
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,26}[a-z0-9]", name):
        raise InputError(
            "making an app",
            f'"{name}" is no name for one',
            "use small letters, digits and dashes, with a letter first; 2 to 28 characters",
        )
    folder = own_apps(root) / name
    if name in apps(root) or (folder.is_dir() and any(folder.iterdir())):
        where = apps(root).get(name, folder)
        raise InputError(
            "making an app", f"there is an app {name} already, in {where}", "choose another name"
        )
    written = []
    # app.yaml last: without it the folder is no app yet.
    sources = sorted(
        (shipped("templates") / "app" / "new").iterdir(), key=lambda path: path.suffix == ".yaml"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            text = source.read_text(encoding="utf-8")
            text = text.replace("@NAME@", name).replace("@DATABASE@", name.replace("-", "_"))
            (folder / source.name).write_text(text, encoding="utf-8")
            written.append(str((folder / source.name).relative_to(root)))
    except OSError as error:
        raise InputError(
            "making an app", f"{error.filename}: {error.strerror}", "choose a folder that you can write to"
        ) from None
    return {
        "app": name,
        "files": written,
        "notes": [
            f"it runs as it stands: deploy app check {name}",
            f"then write app: {name} into stack.yaml, and deploy up --provider local",
        ],
    }
