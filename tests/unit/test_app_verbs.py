"""The verbs of the app on the command line: what is refused before anything is asked, and what a person reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deployer.cli import app_text
from deployer.cli.main import deploy
from deployer.cli.options import Settings
from deployer.core.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yaml").write_text("name: demo\ndomain: demo.test\napp: notes\n")
    return tmp_path


def run(root: Path, *words: str) -> Result:
    return CliRunner().invoke(deploy, ["--project", str(root), *words])


def test_a_new_app_and_its_check(root: Path) -> None:
    made = run(root, "app", "new", "notes", "--json")
    assert json.loads(made.stdout.splitlines()[-1])["data"]["app"] == "notes"
    checked = run(root, "app", "check", "notes")
    assert checked.exit_code == 0 and checked.stdout.endswith("The app notes is in order.\n")
    path = root / "templates/apps/notes/app.yaml"
    path.write_text(path.read_text().replace("port: 9000", "port: 5432"))
    wrong = CliRunner().invoke(
        deploy, ["--project", str(root), "app", "check", "notes"], standalone_mode=False
    )
    assert wrong.return_value == 1
    assert "app.yaml:30: processes[0].port: port 5432 clashes with PostgreSQL" in wrong.stdout
    assert wrong.stdout.endswith("1 thing wrong.\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("exec",), "there is no command"),
        (("exec", "ls", "--", "ls"), "'ls' stands before --"),
    ],
)
def test_exec_needs_a_command(root: Path, words: tuple[str, ...], why: str) -> None:
    done = run(root, "app", "--provider", "local", *words)
    assert done.exit_code == 2 and why in done.output


@pytest.mark.parametrize("words", [("app", "upgrade", "--to", "2"), ("rollback",)])
def test_nobody_is_asked_where_there_is_no_terminal(root: Path, words: tuple[str, ...]) -> None:
    verb, *rest = words
    done = run(root, verb, *rest, "--provider", "local")
    assert isinstance(done.exception, InputError) and "add --yes" in done.exception.next


STATUS: dict[str, Any] = {
    "ok": True,
    "current": "2-b",
    "kept": [
        {
            "release": "2-b",
            "state": "in service",
            "last_put_in_service": "2026-11-28T03:10:00.000Z",
            "pause_seconds": 1.25,
            "bytes": 20 << 20,
            "migrations": [{"name": "merge", "reversible": False}],
        }
    ],
    "next": {"release": "3-c", "migrations": [{"name": "tables", "reversible": True}]},
    "way_back": {"release": "1-a", "migrations": ["merge"]},
    "notes": [],
}


def test_status_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    app_text.status(STATUS, Settings())
    out = capsys.readouterr().out
    assert "2-b      in service  2026-11-28 03:10  1.2 s  20.0 MiB  merge (cannot be undone)" in out
    assert "next: 3-c, with the migrations tables (deploy app upgrade)" in out
    assert "back: 1-a, but merge cannot be undone (deploy rollback says what to do)" in out
    app_text.status({**STATUS, "ok": False, "next": None, "way_back": None}, Settings())
    assert "No release serves; 2-b is in use." in capsys.readouterr().out


def test_a_change_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    release = {"app": "notes", "from": "1-a", "to": "2-b", "pause_seconds": 1.4, "recovery_point": "T"}
    result = {"release": release, "files": ["templates/apps/notes/app.yaml"], "changed_release": True}
    app_text.changed(result, Settings())
    assert capsys.readouterr().out == (
        "written: templates/apps/notes/app.yaml\nnotes: 1-a -> 2-b, 1.4 s without the app; recovery point T\n"
    )
    app_text.changed({**result, "files": [], "changed_release": False}, Settings())
    assert capsys.readouterr().out == "The files say 2-b now.\n"
