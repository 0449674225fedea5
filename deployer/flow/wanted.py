"""What one machine shall look like: the components' specs with their templates rendered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.core.component import ComponentSpec, Directory, File
from deployer.core.errors import DeployError
from deployer.core.resources import find_template, shipped

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class Rendered:
    """A managed file with its final bytes."""

    file: File
    component: str
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def found_as(self) -> list[object]:
        """The form in which remote/observe.py reports a file that is as wanted."""
        return [self.file.mode, self.file.owner, self.file.group, self.sha256]


@dataclass(frozen=True)
class Wanted:
    """Everything for one machine."""

    machine: str
    specs: Sequence[ComponentSpec]
    files: Mapping[str, Rendered]
    directories: Mapping[str, tuple[Directory, str]]

    def digests(self, spec: ComponentSpec) -> dict[str, str]:
        """The two digests of a component: another "restart" digest restarts it, another "reload" reloads it."""
        own = [item for item in self.files.values() if item.component == spec.name]
        restart = [
            sorted(
                [item.file.path, *map(str, item.found_as)] for item in own if item.file.on_change == "restart"
            ),
            sorted(spec.packages),
            sorted(spec.fingerprints.items()),
            sorted(unit.name for unit in spec.units if unit.wanted),
        ]
        reload = sorted(
            [item.file.path, *map(str, item.found_as)] for item in own if item.file.on_change == "reload"
        )
        return {"restart": digest(restart), "reload": digest(reload)}


def digest(value: Any) -> str:
    """A stable digest of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


@cache
def environment(root: Path) -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(root / "templates"), str(shipped("templates"))]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(file: File, root: Path) -> bytes:
    """A file's bytes. Raises DeployError naming the template and what is missing in it."""
    if not file.template:
        return file.content.encode()
    import jinja2

    try:
        find_template(file.template, root)
        return environment(root).get_template(file.template).render(**file.values).encode()
    except FileNotFoundError as error:
        raise DeployError("rendering a template", str(error), "restore the file") from None
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f"{file.template}:{line}" if line else file.template
        raise DeployError(
            f"rendering {file.path}", f"{where}: {error.message}", "mend the template"
        ) from None


def build(machine: str, specs: Sequence[ComponentSpec], root: Path) -> Wanted:
    """Render everything. Raises DeployError when two components want the same path."""
    files: dict[str, Rendered] = {}
    directories: dict[str, tuple[Directory, str]] = {}
    for spec in specs:
        for directory in spec.directories:
            directories.setdefault(directory.path, (directory, spec.name))
        for file in spec.files:
            if file.path in files:
                other = files[file.path].component
                raise DeployError("planning files", f"{file.path} is wanted by {other} and by {spec.name}")
            files[file.path] = Rendered(file, spec.name, render(file, root))
    return Wanted(machine, tuple(specs), files, directories)
