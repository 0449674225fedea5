"""A drill is red, and says what is missing, before it makes a machine: what a repository lacks of the catalogue."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyrage
import pytest

from deployer.flow import drill, entries
from deployer.flow.drill import Exercise
from deployer.flow.request import Request
from tests.storage.test_catalogue import TOP, root, store
from tests.unit.test_vendors import Log

__all__ = ["root"]


@pytest.fixture(autouse=True)
def no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the catalogue is another test's; here it is only seen that it was reached."""
    monkeypatch.setattr(drill, "rehearse", lambda *_: {"reached": True})


def red(root: Path) -> Any:
    """The result of a drill from the first repository."""
    body = drill.drill(Request(root, "cloud"), Log(), Exercise(source="east", on="cloud"))
    (one,) = body["drills"]
    assert one["ok"] == body["ok"]
    return one


def folder(root: Path) -> Path:
    (entry,) = store(root).folders(f"{TOP}/")
    return root.parent / "east" / TOP / entry


def without(root: Path, name: str) -> None:
    """An entry that was written with a bundle that lacks a secret."""
    where = folder(root)
    identity = pyrage.x25519.Identity.from_str(_identity())
    bundle = json.loads(pyrage.decrypt((where / "secrets.age").read_bytes(), [identity]))
    del bundle["secrets"][name]
    sealed = pyrage.encrypt(json.dumps(bundle).encode(), [identity.to_public()])
    (where / "secrets.age").write_bytes(sealed)
    manifest = json.loads((where / "manifest.json").read_text())
    manifest["objects"]["secrets.age"] = {"size": len(sealed), "sha256": sha256(sealed).hexdigest()}
    manifest.pop("digest")
    (where / "manifest.json").write_text(json.dumps({**manifest, "digest": entries.digest(manifest)}))


def _identity() -> str:
    lines = (Path(os.environ["HOME"]) / ".config/deploy/identity.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("AGE-SECRET-KEY-"))


def test_a_whole_catalogue_is_good(root: Path) -> None:
    assert red(root)["reached"]


def test_the_toolkits_wheel_is_gone(root: Path) -> None:
    (wheel,) = store(root).list("agora/toolkit/")
    (root.parent / "east" / wheel).unlink()
    assert f"{wheel}: it is missing" in red(root)["error"]["why"]


def test_the_toolkits_wheel_is_another(root: Path) -> None:
    (wheel,) = store(root).list("agora/toolkit/")
    path = root.parent / "east" / wheel
    path.write_bytes(path.read_bytes()[::-1])
    assert f"{wheel}: its content was changed" in red(root)["error"]["why"]


@pytest.mark.parametrize("name", ["app/signing_key", "database/synapse"])
def test_a_secret_is_gone(root: Path, name: str) -> None:
    without(root, name)
    one = red(root)
    assert not one["ok"] and f"secrets.age: {name} is missing" in one["error"]["why"]


@pytest.mark.parametrize("part", ["secrets.age", "project.age", "fingerprints.age"])
def test_a_part_of_the_only_entry_is_gone(root: Path, part: str) -> None:
    (folder(root) / part).unlink()
    one = red(root)
    assert not one["ok"] and f"{part}: it is missing" in one["error"]["why"]
