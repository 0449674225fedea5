"""What upgrade and rollback decide, and what they say when something fails. Real machines: tests/e2e/test_app.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.components.app.layout import Layout
from deployer.components.app.standing import Migration, Release, Standing, answer, parse
from deployer.core.errors import DeployError, InputError
from deployer.core.events import discard
from deployer.core.model import Project
from deployer.flow import app_change, app_rollback, app_state, app_upgrade
from deployer.flow.app_change import Change
from deployer.flow.app_new import new
from deployer.flow.request import Request
from deployer.project import load

MIGRATIONS = """
migrations:
  - {name: tables, runtime: main, command: "{runtime}/bin/python -c print(1)", reversible: true}
  - {name: merge, runtime: main, command: "{runtime}/bin/python -c print(2)"}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "stack.yaml").write_text("name: demo\ndomain: demo.test\napp: notes\n")
    new(tmp_path, "notes")
    return load(tmp_path, "local", None)


def release(name: str, at: float) -> Release:
    return Release(name, name.partition("-")[0], at, 1.5, 1 << 20, True)


def standing(**changes: Any) -> Standing:
    made = Standing("2-b", "2-b", "1-a", True, (release("1-a", 100), release("2-b", 200)), ())
    return replace(made, **changes)


# --- what serves ---


def test_what_serves() -> None:
    assert standing().serves == "2-b"
    assert standing(active=False).serves == ""
    assert standing(current="3-c").serves == ""


def test_migrations_that_stand_against_a_way_back() -> None:
    marks = (
        Migration("1-a", "old", 90, True, False),
        Migration("2-b", "tables", 150, True, True),
        Migration("2-b", "merge", 160, True, False),
        Migration("2-b", "early", 155, True, False),
    )
    state = standing(migrations=marks)
    assert [one.name for one in state.final_since("1-a")] == ["early", "merge"]
    assert state.final_since("2-b") == []
    # Back in service since, whatever came before.
    again = replace(state, releases=(release("1-a", 300), release("2-b", 200)))
    assert again.final_since("1-a") == []


def test_the_machine_s_answer() -> None:
    body = {"current": "", "good": "", "previous": "", "active": False, "releases": [], "migrations": []}
    assert parse(body).serves == ""
    for code, out in ((1, "{}"), (0, "no"), (0, "[]")):
        with pytest.raises(DeployError, match="cannot be read"):
            answer("m", code, out, "why")


def test_moments_are_not_after() -> None:
    assert app_state.moment(1764380000.9999) == "2025-11-29T01:33:20.999Z"
    assert app_state.moment(0) == ""


# --- upgrade ---


def test_plan_of_an_upgrade(project: Project) -> None:
    said = app_state.release_of(project)
    state = standing(current=said, good=said)
    change = app_upgrade.plan(project, state, "2", {"main.lock": b"# two\n"})
    assert (change.source, change.said, change.version) == (said, said, "2")
    assert change.target.startswith("2-") and change.former["app.yaml"] != change.files["app.yaml"]
    assert project.app.path("app.yaml").read_bytes() == change.former["app.yaml"]
    assert not app_upgrade._todo(app_upgrade.plan(project, state, "", {}), state)
    lines = app_upgrade.sentences(change, ["east"], True)
    assert lines[0] == f"notes: {said} serves, {change.target} shall" and len(lines) == 2


def test_what_an_upgrade_says_of_migrations(project: Project) -> None:
    path = project.app.folder / "app.yaml"
    path.write_text(path.read_text() + MIGRATIONS)
    project = load(project.root, "local", None)
    change = app_upgrade.plan(project, standing(), "", {})
    assert app_upgrade.final(change) == ["merge"]
    lines = app_upgrade.sentences(change, ["east"], True)
    assert "the migration tables runs, which can be undone" in lines
    assert "the migration merge runs, which cannot be undone" in lines
    assert "a recovery point is made first, in east" in lines
    assert any("names no repositories" in line for line in app_upgrade.sentences(change, [], True))
    assert any("you said --no-backup" in line for line in app_upgrade.sentences(change, ["east"], False))
    # What ran to its end for this release does not run again.
    target = Layout(project.app, "demo.test").release()
    done = standing(migrations=(Migration(target, "merge", 1, True, False),))
    assert [one["name"] for one in app_state.pending(project.app, target, done)] == ["tables"]


def test_a_recovery_point_is_whole_somewhere() -> None:
    result: dict[str, Any] = {
        "files": [{"name": "east", "error": ""}, {"name": "west", "error": "full"}],
        "database": [{"repository": "east"}, {"repository": "west"}],
        "catalogue": [{"repository": "east", "error": ""}, {"repository": "west", "error": ""}],
        "failed": ["files of m to west: full"],
    }
    assert app_upgrade.complete(result) == ["east"]
    result["catalogue"][0]["error"] = "no"
    assert app_upgrade.complete(result) == []
    # A stack without a database.
    result = {"files": [{"name": "east", "error": ""}], "database": [], "catalogue": [], "failed": []}
    assert app_upgrade.complete(result) == ["east"]
    result["failed"] = ["files, point X on m: no SSH"]
    assert app_upgrade.complete(result) == []


def test_locks(tmp_path: Path) -> None:
    file = tmp_path / "main.lock"
    file.write_text("x")
    assert app_upgrade.read_locks([str(file), f"web={file}"]) == {"main.lock": b"x", "web": b"x"}
    with pytest.raises(InputError, match="No such file"):
        app_upgrade.read_locks([str(tmp_path / "none")])


# --- rollback ---


def test_which_release() -> None:
    assert app_rollback.choose(standing(), "") == "1-a"
    assert app_rollback.choose(standing(), "1") == "1-a"
    # One that was begun and never answered gives way to the last good one.
    assert app_rollback.choose(standing(current="3-c"), "") == "2-b"
    # The one that serves: so the files say it again after an upgrade that failed.
    assert app_rollback.choose(standing(), "2") == "2-b"
    with pytest.raises(InputError, match="no kept release"):
        app_rollback.choose(standing(), "9")
    with pytest.raises(InputError, match="none served before"):
        app_rollback.choose(standing(previous=""), "")


class Session:
    def __init__(self, project: Project) -> None:
        self.project = project
        self.request = Request(project.root, provider="local")


def test_why_there_is_no_way_back(project: Project) -> None:
    from datetime import UTC, datetime

    from deployer.state import receipts

    mark = Migration("2-b", "merge", 1764380000.0, True, False)
    told = app_rollback.refusal(Session(project), "1-a", [mark])  # type: ignore[arg-type]
    assert "the migration merge of 2-b, which cannot be undone, began at 2025-11-29T01:33:20.000Z" in told.why
    assert told.next == "If you know that it bears them: deploy rollback --despite-migrations"
    body = {"to": "2-b", "recovery_point": "2025-11-29T01:30:00Z"}
    receipts.write(project.root, "upgrade", project.deployment, body, datetime.now(UTC))
    found = app_rollback._point(Session(project), "2-b")  # type: ignore[arg-type]
    assert found == "2025-11-29T01:30:00Z"
    way = app_change.way_to_restore("local", "1-a", mark.begun, found)
    assert way == (
        "deploy rollback --provider local --to 1-a --files-only, then deploy restore --provider local "
        "--at 2025-11-29T01:33:20.000Z (or --point 2025-11-29T01:30:00Z, the recovery point of the upgrade)"
    )


# --- failures ---


@pytest.fixture
def failed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DeployError]:
    """failed(standing) after the files were written: what the operator is told."""

    def fail(state: Standing | DeployError, said: str = "1-a") -> DeployError:
        former = {"app.yaml": (project.app.folder / "app.yaml").read_bytes()}
        files = {"app.yaml": former["app.yaml"].replace(b'"1"', b'"2"')}
        change = Change("upgrade", "notes", "1-a", "2-b", said, "2", files, former)

        def ask(request: Request, sink: Any) -> Standing:
            if isinstance(state, DeployError):
                raise state
            return state

        def stop(*words: Any) -> Any:
            raise DeployError("start app", "it does not start")

        monkeypatch.setattr(app_change, "_ask", ask)
        monkeypatch.setattr(app_change, "_converge", stop)
        with pytest.raises(DeployError) as caught:
            app_change.carry_out(Request(project.root, provider="local"), discard, change, None)
        return caught.value

    return fail


def version(project: Project) -> str:
    return load(project.root, "local", None).app.version


def test_the_files_say_the_old_release_when_it_serves(
    failed: Callable[..., DeployError], project: Project
) -> None:
    told = failed(standing(current="1-a", good="1-a"))
    assert told.why == "it does not start; 1-a serves, and the project's files say 1-a again"
    assert version(project) == "1"
    (receipt,) = (project.root / "receipts").iterdir()
    assert '"ok": false' in receipt.read_text() and receipt.name.startswith("upgrade-demo@local-")


def test_the_files_of_the_operator_stay(failed: Callable[..., DeployError], project: Project) -> None:
    told = failed(standing(current="1-a", good="1-a"), said="2-b")
    assert "the project's files say 2-b as before" in told.why
    assert told.next.endswith("deploy rollback --provider local --to 1-a has the files say what serves")
    assert version(project) == "2"


def test_the_new_release_serves_and_something_else_is_wrong(
    failed: Callable[..., DeployError], project: Project
) -> None:
    told = failed(standing())
    assert told.why.endswith("2-b is in service") and "deploy rollback" in told.next
    assert version(project) == "2"


def test_neither_serves(failed: Callable[..., DeployError], project: Project) -> None:
    mark = Migration("2-b", "merge", 1764380000.0, False, False)
    told = failed(standing(current="2-b", good="1-a", migrations=(mark,)))
    assert (
        "--to 1-a --files-only, then deploy restore --provider local --at 2025-11-29T01:33:20.000Z"
        in told.next
    )
    assert version(project) == "2"


def test_the_machine_cannot_be_asked(failed: Callable[..., DeployError], project: Project) -> None:
    told = failed(DeployError("connecting", "no SSH"))
    assert "could not be asked which release serves (no SSH)" in told.next
    assert version(project) == "2"
