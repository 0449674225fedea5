"""The files that say what an app is: changed to another version, looked at before they count, written to the project.

A project's folder holds files that go before the shipped ones of the same name. So to have it say a set of files means
to write those that differ from the shipped ones. app.yaml is written last.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deployer.core.errors import InputError
from deployer.core.manifest import Manifest
from deployer.project import manifest
from deployer.project.mistakes import Mark, Mistakes
from deployer.state.files import sync_folder

MANIFEST = "app.yaml"
_VERSION = re.compile(r"^(version:[ \t]*)[^\s#][^\n#]*?([ \t]*(?:#[^\n]*)?)$", re.MULTILINE)


def changed(
    app: Manifest, files: Mapping[str, bytes], version: str, locks: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The files with another version in app.yaml and other lock files.

    locks: content by the lock file's name, or by the runtime's. Raises InputError.
    """
    found = dict(files)
    names = {runtime.name: runtime.lock for runtime in app.runtimes if runtime.lock}
    for name, data in locks.items():
        lock = names.get(name, name)
        if lock not in names.values():
            known = ", ".join(f"{lock} (of the runtime {runtime})" for runtime, lock in names.items())
            raise InputError(
                f"changing the app {app.name}",
                f'"{name}" is no lock file of it',
                f"give the file the name of one, or write --lock RUNTIME=FILE; it has {known or 'none'}",
            )
        found[lock] = data
    if version != app.version:
        found[MANIFEST] = _versioned(app, files[MANIFEST].decode("utf-8"), version).encode()
    return found


def _versioned(app: Manifest, text: str, version: str) -> str:
    """The manifest's text with another version; every other byte stays."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", version):
        raise InputError(
            f"changing the app {app.name}",
            f'--to: "{version}" is no version',
            "use letters, digits, dots, dashes and plus signs, with a letter or digit first",
        )
    made, count = _VERSION.subn(lambda match: match[1] + json.dumps(version) + match[2], text)
    if count != 1:
        raise InputError(
            f"changing the app {app.name}",
            f"{app.folder / MANIFEST} has no line that begins with version: and holds one",
            "write the new version there yourself, then run deploy app upgrade without --to",
        )
    return made


@contextmanager
def staged(name: str, files: Mapping[str, bytes]) -> Iterator[Manifest]:
    """The manifest that the files make, while they lie in a folder of their own. Raises InputError with every mistake."""
    with tempfile.TemporaryDirectory(prefix="deploy-app-") as folder:
        root = Path(folder)
        for path, data in files.items():
            target = manifest.own_apps(root) / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        mistakes = Mistakes()
        found = manifest.load(name, root, Mark("app.yaml", 0), mistakes)
        mistakes.stop()
        assert found is not None
        yield found


def write(root: Path, name: str, files: Mapping[str, bytes]) -> list[str]:
    """Have the project's folder say `files` of the app. The files that changed, below `root`.

    One that the shipped app has with the same content goes from there; files of other names stay. Killed halfway, the
    same call does the rest.
    """
    own, shipped = manifest.own_apps(root) / name, manifest.shipped_apps() / name
    touched = []
    for path in sorted(files, key=lambda path: (path == MANIFEST, path)):
        target = own / path
        same = _content(shipped / path) == files[path]
        if own != shipped and same and target.is_file():
            target.unlink()
            sync_folder(target.parent)
        elif _content(target) != files[path] and (own == shipped or not same):
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(target, files[path])
        else:
            continue
        touched.append(str(target.relative_to(root)))
    _tidy(own, manifest.own_apps(root))
    return touched


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _put(target: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    sync_folder(target.parent)


def _tidy(folder: Path, top: Path) -> None:
    """An empty folder would look as if the project had an app of its own."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        if not any(top.iterdir()):
            top.rmdir()
