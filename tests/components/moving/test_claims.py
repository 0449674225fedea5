"""The claim that the new side makes: never over another's, and one repository is enough."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.components.moving.programs import load
from tests.rig.objects import Objects

claims = load("claims")
Failure = load("ground").Failure


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {"generation": 3, "deployment": "demo@new", "machine": "m", "repositories": []}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found["repositories"].append(
            {
                "name": name,
                "kind": "path",
                "path": str(tmp_path / name),
                "prefix": "",
                "claims_key": "demo/generations/",
            }
        )
    monkeypatch.setattr(claims, "read", lambda path, default=None: found)
    return found


def claim(folder: Path, generation: int, deployment: str) -> None:
    path = folder / "demo" / "generations" / f"{generation:06d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"generation": generation, "deployment": deployment}))


def test_into_every_repository_and_again(settings: dict[str, Any], tmp_path: Path) -> None:
    for _ in range(2):
        assert [one["good"] for one in claims.put(3, True)] == [True, True]
    text = (tmp_path / "two/demo/generations/000003.json").read_text()
    assert json.loads(text)["deployment"] == "demo@new"


def test_one_is_enough_and_none_is_told(settings: dict[str, Any]) -> None:
    settings["repositories"][0]["path"] = "/nonexistent"
    assert [one["good"] for one in claims.put(3, True)] == [False, True]
    settings["repositories"][1]["path"] = "/nonexistent"
    assert not any(one["good"] for one in claims.put(3, False))
    with pytest.raises(Failure, match="is not there"):
        claims.put(3, True)


def test_never_over_anothers(settings: dict[str, Any], tmp_path: Path) -> None:
    claim(tmp_path / "one", 3, "demo@elsewhere")
    assert claims.look(3) == ["demo@elsewhere holds generation 3 in one"]
    told = claims.put(3, False)
    assert not told[0]["good"] and "another's" in told[0]["text"]
    assert "elsewhere" in (tmp_path / "one/demo/generations/000003.json").read_text()
    claim(tmp_path / "two", 4, "demo@later")
    assert len(claims.look(3)) == 2


def test_settings_of_another_generation(settings: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="of generation 3"):
        claims.put(4, True)


def test_at_a_vendor_of_object_storage(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Objects(tmp_path / "vendor") as vendor:
        (tmp_path / "ca").write_text(vendor.ca)
        one = vendor.repository()
        settings["repositories"][0] = {
            "name": "one", "kind": "s3", "endpoint": f"https://localhost:{vendor.port}", "region": one.region or "auto",
            "bucket": one.bucket, "prefix": "a b", "key": one.key, "secret": one.secret, "claims_key": "demo/generations/",
            "ca_file": str(tmp_path / "ca"),
        }  # fmt: skip
        for _ in range(2):
            assert [told["good"] for told in claims.put(3, True)] == [True, True], claims.put(3, True)
        path = vendor.store / one.bucket / "a b/demo/generations/000003.json"
        assert json.loads(path.read_text())["deployment"] == "demo@new"
        path.write_text(json.dumps({"generation": 3, "deployment": "demo@elsewhere"}))
        time.sleep(0.5)
        assert not claims.put(3, False)[0]["good"]
        assert "elsewhere" in path.read_text()
