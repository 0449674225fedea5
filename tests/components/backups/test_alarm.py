from __future__ import annotations

from typing import Any

import pytest

from tests.components.backups.programs import load

alarm = load("alarm")
NOW = 1_800_000_000.0


def config(**policy: Any) -> dict[str, Any]:
    rules = {"late": 15, "mail": [], "sms": [], "pings": [], **policy}
    return {"generation": 1, "database": True, "policy": rules, "stack": "demo", "deployment": "demo@here"}


def files(age: float, error: str = "", failed_for: float = 0) -> dict[str, Any]:
    return {
        "name": "east",
        "last_at": alarm.iso(NOW - age),
        "error": {"why": error} if error else None,
        "failed_since": alarm.iso(NOW - failed_for) if error else "",
    }


def database(**more: Any) -> dict[str, Any]:
    return {"name": "east", "archiving": True, "lag_seconds": 10, "error": None, **more}


@pytest.fixture(autouse=True)
def state(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "STATE", tmp_path)


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        pytest.param(files(60), False, id="a fresh one"),
        pytest.param(files(1000), True, id="late"),
        pytest.param(files(300, "refused", 200), False, id="failing for minutes, not late yet"),
        pytest.param(files(2000, "refused", 1700), True, id="failing and late"),
    ],
)
def test_files_that_are_late(entry: dict[str, Any], wrong: bool) -> None:
    found = alarm.causes(config(), NOW, lambda program: [entry] if program == "files.py" else [database()])
    assert set(found) == ({"files/east"} if wrong else set())


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (database(archiving=False, out_why="no answer"), "east is out of the archiving: no answer"),
        (database(lag_seconds=2000.0), "east lags 2000 s behind the database"),
        (database(error={"why": "refused"}), "the database's backup at east: refused"),
    ],
)
def test_a_database_that_is_not_archived(entry: dict[str, Any], words: str) -> None:
    found = alarm.causes(config(), NOW, lambda program: [files(1)] if program == "files.py" else [entry])
    assert found == {"database/east": words}


def test_once_an_hour_a_cause_and_once_when_well_again() -> None:
    memory, told = {}, []
    for minute in range(130):
        found = {"files/east": "late"} if minute < 125 else {}
        memory, wrong, well = alarm.decide(memory, found, NOW + 60 * minute)
        told += [(minute, "wrong") for _ in wrong] + [(minute, "well") for _ in well]
    assert told == [(0, "wrong"), (60, "wrong"), (120, "wrong"), (125, "well")]


def test_a_message_that_reached_nobody_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "RECORD", alarm.STATE / "alarm.json")
    monkeypatch.setattr(alarm, "causes", lambda *_: {"files/east": "late"})
    sent = []

    def mail(*words: Any) -> None:
        sent.append(words)
        if len(sent) == 1:
            raise OSError("refused")

    monkeypatch.setattr(alarm, "mail", mail)
    how = {"mail": {"host": "127.0.0.1"}}
    for minute in range(4):
        record = alarm.look(config(mail=["op@example.test"]), how, NOW + 60 * minute)
    assert len(sent) == 2
    assert not record["well"]


def test_outside_hears_nothing_while_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "RECORD", alarm.STATE / "alarm.json")
    pinged: list[Any] = []
    monkeypatch.setattr(alarm, "ping", lambda urls: pinged.append(urls) or {})
    for minute, wrong in enumerate([False, True, False]):
        monkeypatch.setattr(alarm, "causes", lambda *_, wrong=wrong: {"guard": "blind"} if wrong else {})
        alarm.look(config(pings=["https://ping.example/1"]), {}, NOW + 60 * minute)
    assert len(pinged) == 2
