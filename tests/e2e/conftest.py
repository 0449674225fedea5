"""Deployments that the end-to-end tests share. One cold installation a run; what comes later starts from its layer."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.doors import Doors
from tests.e2e.operator import Operator
from tests.rig.world import World, world


@pytest.fixture(scope="session")
def rig() -> Iterator[World]:
    with world() as made:
        yield made


@dataclass
class Deployed:
    """A deployment that is up. summary: what `up` returned; doors: its public side."""

    operator: Operator
    domain: str
    summary: dict[str, object]

    @property
    def folder(self) -> Path:
        return self.operator.folder

    def address(self, role: str) -> str:
        machines = self.summary["machines"]
        assert isinstance(machines, list)
        return str(next(one["address"] for one in machines if role in one["roles"]))

    @property
    def doors(self) -> Doors:
        ca = (self.folder / ".deploy" / self.operator.inventory / "ca.crt").read_text(encoding="utf-8")
        return Doors(self.address("app"), ca)


def project(folder: Path, domain: str, inventory: str, text: str, home: Path, name: str) -> Operator:
    """A project folder for the Matrix app with one inventory."""
    (folder / "inventories").mkdir(parents=True)
    (folder / "stack.yaml").write_text(f"name: {name}\ndomain: {domain}\napp: matrix\n", encoding="utf-8")
    (folder / "inventories" / f"{inventory}.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    home.mkdir(exist_ok=True)
    return Operator(folder, inventory, home)


def local_section(rig: World, layer: Path | None = None) -> str:
    lines = [f"  {key}: {value}" for key, value in rig.options.items()]
    lines.append(f"  nameservers: [{rig.internet.address}]")
    lines += [f"  layer: [{layer}]"] if layer else []
    return "local:\n" + "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def demo(rig: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The newcomer's demo: everything on one machine, mail and SMS caught. The run's cold installation."""
    folder = tmp_path_factory.mktemp("demo")
    text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(rig)
    operator = project(folder / "project", "demo.social.test", "local", text, folder / "home", "demo")
    summary = operator.good("up", "--yes").result
    yield Deployed(operator, "demo.social.test", summary)
    operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)
