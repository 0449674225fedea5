from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.components.backups.programs import load

guard = load("guard")


def config(generation: int = 2, *folders: Path) -> dict[str, Any]:
    repositories = [
        {
            "name": path.name,
            "kind": "path",
            "path": str(path),
            "prefix": "",
            "claims_key": "demo/generations/",
        }
        for path in folders
    ]
    return {"generation": generation, "deployment": "demo@here", "repositories": repositories}


def answer(name: str, claim: int = 0, deployment: str = "demo@here", error: str = "") -> Any:
    return guard.Answer(name, claim, deployment, error)


@pytest.mark.parametrize(
    ("generation", "answers", "verdict"),
    [
        pytest.param(2, [answer("a", 2), answer("b", 2)], "serve", id="ours is the newest"),
        pytest.param(2, [answer("a", 2), answer("b", error="refused")], "serve", id="one is enough"),
        pytest.param(2, [answer("a", 2), answer("b", 3, "demo@there")], "superseded", id="any newer one"),
        pytest.param(2, [answer("a", 2, "demo@there")], "superseded", id="our number, another's"),
        pytest.param(2, [answer("a", error="refused"), answer("b", error="x")], "blind", id="none answers"),
        pytest.param(2, [answer("a", 0)], "blind", id="a history that is gone proves nothing"),
        pytest.param(0, [answer("a", 0)], "serve", id="before the first generation"),
        pytest.param(0, [answer("a", 1, "demo@there")], "superseded", id="holds none, another does"),
        pytest.param(0, [answer("a", error="refused")], "blind", id="holds none and sees none"),
    ],
)
def test_who_may_serve(generation: int, answers: list[Any], verdict: str) -> None:
    assert guard.judge(config(generation), answers)[0] == verdict


def test_it_says_who_is_live() -> None:
    _, why = guard.judge(config(1), [answer("west", 4, "demo@aws")])
    assert why == "demo@aws holds generation 4 (claim in west); this machine is of generation 1"


def test_claims_in_a_folder_are_read_and_a_missing_folder_is_no_answer(tmp_path: Path) -> None:
    there, gone = tmp_path / "there", tmp_path / "gone"
    claims = there / "demo" / "generations"
    claims.mkdir(parents=True)
    for number in (1, 2):
        body = {"generation": number, "deployment": "demo@here", "at": "", "by": ""}
        (claims / f"{number:06d}.json").write_text(json.dumps(body))
    (claims / "notes.txt").write_text("")
    first, second = guard.ask_all(config(2, there, gone)["repositories"])
    assert (first.claim, first.deployment, first.error) == (2, "demo@here", "")
    assert "is not there" in second.error


def test_one_that_hangs_delays_the_others_by_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(repository: dict[str, Any]) -> Any:
        time.sleep(30 if repository["name"] == "slow" else 0)
        return answer(repository["name"], 2)

    monkeypatch.setattr(guard, "ask", ask)
    monkeypatch.setattr(guard, "GRACE", 0.3)
    began = time.monotonic()
    found = guard.ask_all([{"name": "quick"}, {"name": "slow"}])
    assert time.monotonic() - began < 2
    assert [one.error for one in found] == ["", "no answer in time"]


def test_a_half_written_claim_of_a_newer_generation_is_heeded(tmp_path: Path) -> None:
    claims = tmp_path / "demo" / "generations"
    claims.mkdir(parents=True)
    (claims / "000003.json").write_text("{")
    answers = guard.ask_all(config(2, tmp_path)["repositories"])
    assert guard.judge(config(2), answers)[0] == "superseded"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(guard, "CLAIMED", tmp_path / "guard-claimed.json")
    return tmp_path


def test_a_folder_gets_our_claim_once_and_an_unmounted_one_proves_nothing(state: Path) -> None:
    share = state / "share"
    share.mkdir()
    mine = {**config(2, share), "machine": "demo-all-1"}
    answers = guard.ask_all(mine["repositories"])
    assert guard.judge(mine, answers)[0] == "serve"
    guard.claim(mine, answers)
    [again] = guard.ask_all(mine["repositories"])
    assert (again.claim, again.deployment) == (2, "demo@here")
    share.rename(state / "elsewhere")
    share.mkdir()
    answers = guard.ask_all(mine["repositories"])
    assert guard.judge(mine, answers)[0] == "blind"
    guard.claim(mine, answers)
    assert not list(share.iterdir())


def test_a_new_generation_claims_its_folder_anew(state: Path) -> None:
    share = state / "share"
    share.mkdir()
    for number in (2, 3):
        mine = {**config(number, share), "machine": "demo-all-1"}
        answers = guard.ask_all(mine["repositories"])
        assert guard.judge(mine, answers)[0] == "serve"
        guard.claim(mine, answers)
    [answer] = guard.ask_all(mine["repositories"])
    assert answer.claim == 3
