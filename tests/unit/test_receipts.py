"""`deploy receipts`: which receipt is meant, what each verb's tells, and what a damaged one still does."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployer.cli import output
from deployer.cli.main import main
from deployer.core.errors import InputError
from deployer.core.machine import Deployment
from deployer.flow import receipts as flow
from deployer.flow.story import tell
from deployer.state import receipts as state

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HERE, THERE = Deployment("agora", "hetzner"), Deployment("agora", "aws")
GREEN = {
    "machine": "agora-all-1",
    "component": "cache",
    "name": "reads",
    "ok": True,
    "detail": "",
    "degrades": False,
}
UP: dict[str, Any] = {
    "machines": [{"name": "agora-all-1", "address": "192.0.2.1", "roles": ["app"]}],
    "changed": 2,
    "changes": [
        {"action": "create", "kind": "file", "name": "/etc/a"},
        {"action": "start", "kind": "unit", "name": "b"},
    ],
    "probes": [GREEN],
    "degraded": [],
    "seconds": 139.0,
}
RESTORE = {
    **UP,
    "seconds": 31.0,
    "restore": {
        "repository": "east",
        "from_generation": 1,
        "generation": 2,
        "recovered_to": "2026-11-24T11:59:52Z",
        "point": "2026-11-24T11:55:00Z",
        "recovery_point_seconds": 7.2,
        "seconds": {"machines": 1.3, "data": 11.0, "services": 31.0},
        "parts": {
            "agora-all-1 database": {"seconds": {"copy": 3.0}, "bytes": 30 << 20, "checks": ["heartbeat"]}
        },
        "lacks": [],
        "bytes": 30 << 20,
        "total_seconds": 54.0,
        "mb_per_second": 5.1,
    },
}
DRILL = {
    "repository": "west",
    "generation": 1,
    "ok": False,
    "why": "it is missing\nnext: backup",
    "total_seconds": 2.1,
}
HELD = NOON.timestamp() + 60
WATCH: dict[str, Any] = {
    "started": NOON.timestamp(),
    "ended": NOON.timestamp() + 120,
    "requests": 1200,
    "failed": 0,
    "open": 0,
    "skipped": 12,
    "late": 0,
    "pause": 6.3,
    "pause_at": HELD,
    "longest_wait": 6.2,
    "longest_wait_at": HELD,
    "waits": {"50": 0.03, "95": 0.1, "99": 5.9},
    "failures": [],
    "timeline": [[number / 10, 6.3 - (number - 600) / 10 if 600 <= number < 640 else 0.03, True] for number in range(1200)],
    "others": {
        "smtp": {
            "requests": 24, "failed": 1, "pause": 11.0,
            "failures": [{"at": HELD, "name": "mail", "why": "Connection refused"}],
        },
    },
}  # fmt: skip
MIGRATE: dict[str, Any] = {
    "verb": "migrate",
    "from": "agora@hetzner",
    "to": "agora@aws",
    "generation": 2,
    "phases": [
        {"name": "target made", "seconds": 60.0, "bytes": 0},
        {"name": "database standby", "seconds": 40.0, "bytes": 30 << 20},
        {"name": "cutover", "seconds": 6.1},
    ],
    "cutover": {"hold": 0.3, "app": 4.0},
    "pause_seconds": 6.1,
    "app_start_seconds": 4.0,
    "held_at": HELD,
    "served_at": HELD + 6.1,
    "watch": WATCH,
    "verified": ["positions: 0/5000060 on both sides"],
    "bytes": 31 << 20,
    "total_seconds": 120.0,
    "way_back": "deploy migrate --back",
    "probes": [GREEN],
    "notes": ["deploy retire ends it"],
}


def write_all(root: Path) -> list[str]:
    """One of each verb, one after the other; their ids."""
    bodies = [("up", UP), ("restore", RESTORE), ("drill", DRILL), ("migrate", MIGRATE)]
    paths = [
        state.write(root, kind, THERE if kind == "migrate" else HERE, body, NOON + timedelta(hours=number))
        for number, (kind, body) in enumerate(bodies)
    ]
    return [path.stem for path in paths]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stack.yaml").write_text("name: agora\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["receipts", *words])
        assert not output.Reader.gone
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


# --- the list ---


def test_all_are_listed_with_what_matters(tmp_path: Path) -> None:
    ids = write_all(tmp_path)
    (tmp_path / "receipts" / "notes.json").write_text("[1]")
    found = flow.list_(tmp_path)
    assert found["unreadable"] == ["notes.json"]
    rows = found["receipts"]
    assert [row["id"] for row in rows] == ids
    assert [(row["verb"], row["state"], row["seconds"]) for row in rows] == [
        ("up", "good", 139.0),
        ("restore", "good", 54.0),
        ("drill", "bad", 2.1),
        ("migrate", "good", 120.0),
    ]
    assert rows[0]["matters"] == ["2 changes"]
    assert rows[1]["matters"] == ["from east", "as of 2026-11-24T11:59:52", "lost at most 7.2 s"]
    assert rows[2]["matters"] == ["from west", "it is missing (and 1 more)"]
    assert rows[3]["matters"] == ["agora@hetzner to agora@aws", "pause 6.3 s", "0 failed requests"]
    assert rows[3]["figures"]["pause_on_machines"] == 6.1
    assert rows[3]["figures"]["longest_wait"] == 6.2
    json.dumps(found)


def test_failed_requests_and_red_probes_are_no_good_result() -> None:
    def state_of(**change: Any) -> str:
        return tell("x", "migrate", "agora@aws", NOON, {**MIGRATE, **change}).state

    red = {**GREEN, "ok": False, "detail": "refused"}
    assert state_of() == "good"
    assert state_of(watch={**WATCH, "failed": 3}) == "degraded"
    assert state_of(probes=[red]) == "bad"
    assert state_of(probes=[{**red, "degrades": True}], degraded=["cache/reads: refused"]) == "degraded"
    assert state_of(error={"what": "promoting", "why": "no permit", "next": "again"}) == "bad"


def test_a_migrate_within_the_summary_of_its_up_tells_the_same() -> None:
    own = {key: value for key, value in MIGRATE.items() if key != "probes"}
    whole = tell("x", "migrate", "agora@aws", NOON, {**UP, "migrate": own})
    alone = tell("x", "migrate", "agora@aws", NOON, MIGRATE)
    assert (whole.matters, whole.outside, whole.phases, whole.seconds, whole.notes, whole.span) == (
        alone.matters,
        alone.outside,
        alone.phases,
        alone.seconds,
        alone.notes,
        alone.span,
    )


def test_the_table_for_a_person(project: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    write_all(project)
    code, out, _ = run()
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["when", "verb", "deployment", "took", "result", "what", "matters"]
    assert lines[1].split()[:4] == ["2026-11-24", "12:00", "up", "agora@hetzner"]
    assert "BAD" in lines[3] and lines[4].endswith("pause 6.3 s, 0 failed requests")
    assert lines[-1].startswith("Times are UTC.")
    code, out, _ = run("--json")
    assert len(json.loads(out)["data"]["receipts"]) == 4


def test_without_receipts(project: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    assert run() == (0, "", "No receipts: the first deploy up writes one.\n")
    code, _, err = run("show", "last")
    assert code == 2 and "there is none in" in err


# --- one ---


def test_which_one_is_meant(tmp_path: Path) -> None:
    ids = write_all(tmp_path)
    assert flow.find(tmp_path, "last").kind == "migrate"
    assert flow.find(tmp_path, ids[0]).kind == "up"
    assert flow.find(tmp_path, f"receipts/{ids[1]}.json").kind == "restore"
    assert flow.find(tmp_path, "T140000").kind == "drill"
    assert flow.find(tmp_path, "2026-11-24 14:00").kind == "drill"
    with pytest.raises(InputError, match="may be 3 of them: up-agora"):
        flow.find(tmp_path, "hetzner")
    with pytest.raises(InputError, match='there is no "june"; the newest are up-agora'):
        flow.find(tmp_path, "june")
    state.write(tmp_path, "up", HERE, UP, NOON)
    assert flow.find(tmp_path, ids[0]).path.stem == ids[0], "its own name, though another one begins with it"
    assert list(flow.ids(tmp_path))[:2] == ["last", ids[3]]


def test_one_in_words(project: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    ids = write_all(project)
    code, out, _ = run("show", "last")
    assert code == 0
    for line in (
        "From agora@hetzner to agora@aws",
        "  pause          6.1 s, of it 4.0 s the app's own start",
        "  requests held  12:01:00.0 to 12:01:06.1 UTC",
        "  cutover        hold 0.3 s, app 4.0 s",
        "  database standby  40 s   30.0 MiB",
        "  HTTPS requests                 1200, 0 of them failed",
        "  longest time without an answer  6.3 s, from 12:01:00.0 UTC",
        "  waits                           50 % within 0.03 s, 95 % within 0.10 s, 99 % within 5.90 s",
        "  SMTP dialogues                  24, 1 of them failed; longest without one 11.0 s",
        "  12:01:00.0  mail  Connection refused",
        "  positions: 0/5000060 on both sides",
        "Probes  1 of 1 green",
        "The way back: deploy migrate --back",
        "note: deploy retire ends it",
        "Good.",
    ):
        assert " ".join(line.split()) in " ".join(out.split()), line
    code, out, _ = run("show", ids[3], "--json")
    data = json.loads(out)["data"]
    assert (data["id"], data["receipt"]["from"], data["receipt"]["kind"]) == (
        ids[3],
        "agora@hetzner",
        "migrate",
    )
    code, out, _ = run("show", ids[1])
    assert "lost at most" in out and "heartbeat" in out and "30.0 MiB" in out
    code, out, _ = run("show", ids[2])
    assert "problem: it is missing" in out and "It failed" in out


@pytest.mark.parametrize("verb", ["up", "restore", "drill", "migrate", "somethingnew"])
def test_nothing_that_is_missing_or_odd_is_an_error(verb: str) -> None:
    told = tell("x", verb, "agora@aws", NOON, {})
    assert (told.state, told.seconds, told.phases, told.matters) == ("good", None, (), ())
    for odd in (None, 7, "text", [], [None, 3], {"a": None}, {"a": {"b": []}}, float("nan"), True):
        keys = (set(MIGRATE) | set(RESTORE) | set(DRILL)) - {"verb"}
        tell("x", verb, "agora@aws", NOON, dict.fromkeys(keys, odd))
        tell(
            "x",
            verb,
            "agora@aws",
            NOON,
            {"watch": dict.fromkeys(WATCH, odd), "restore": dict.fromkeys(keys, odd)},
        )


# --- the page, as a file ---


def test_the_page_is_written_where_it_is_wanted(
    project: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    ids = write_all(project)
    assert run("page", "last") == (0, f"wrote {project / 'receipts' / ids[3]}.html\n", "")
    text = (project / "receipts" / f"{ids[3]}.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert run("page", "last", "-o", "move.html") == (0, "wrote move.html\n", "")
    assert (project / "move.html").read_text() == text
    assert run("page", "last", "-o", "-") == (0, text, "")
    code, _, err = run("page", "last", "-o", "receipts")
    assert code == 2 and "it is a folder" in err
    code, _, err = run("page", "last", "-o", "nowhere/move.html")
    assert code == 1 and "No such file" in err and "next: name another file" in err
    assert len(flow.list_(project)["receipts"]) == 4, "a page is no receipt"
