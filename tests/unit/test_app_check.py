"""`deploy app check`: each mistake by file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import InputError
from deployer.flow import app_check
from deployer.flow.app_check import check
from deployer.flow.app_new import new

ONE = "templates/apps/notes"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stack.yaml").write_text("name: demo\ndomain: demo.test\napp: notes\n")
    new(tmp_path, "notes")
    # One test asks it; the others would wait for it.
    monkeypatch.setattr(app_check.shutil, "which", lambda name: None)
    return tmp_path / ONE


def found(folder: Path) -> tuple[bool, list[str], dict[str, Any]]:
    result = check(folder.parents[2], "notes", None, None)
    lines = [f"{one['where']}: {one['key']}: {one['text']}" for one in result["findings"]]
    return result["ok"], lines, result


def change(folder: Path, name: str, *pairs: str) -> None:
    path = folder / name
    text = path.read_text()
    for old, new_ in zip(pairs[::2], pairs[1::2], strict=True):
        assert old in text
        text = text.replace(old, new_)
    path.write_text(text)


def line_of(folder: Path, name: str, text: str) -> int:
    return next(n for n, line in enumerate((folder / name).read_text().splitlines(), 1) if text in line)


def test_a_new_app_is_in_order(folder: Path) -> None:
    ok, lines, result = found(folder)
    assert (ok, lines) == (True, [])
    assert "3 templates and units rendered" in result["checked"]
    assert "systemd-analyze" in result["skipped"][0]


def test_schema(folder: Path) -> None:
    change(folder, "app.yaml", "routes:", "rutes:")
    ok, lines, _ = found(folder)
    assert not ok
    assert any(": rutes: unknown key" in line for line in lines)
    assert any(line.endswith("routes: is missing") for line in lines)


MISTAKES = {
    "port": (
        ("app.yaml", "port: 9000", "port: 5432"),
        "port: 5432",
        "processes[0].port: port 5432 clashes with PostgreSQL",
    ),
    "host": (
        ("app.yaml", '{host: "{{ domain }}", path', '{host: "other.test", path'),
        '"other.test"',
        'routes[0].host: "other.test" is not below demo.test; write it as "NAME.{{ domain }}"',
    ),
    "path": (
        ("app.yaml", 'path: "/",', "path: x,"),
        "path: x,",
        'routes[0].path: "x" must begin with /',
    ),
    "no port": (
        ("app.yaml", "    port: 9000\n", "", "{port}", "1", "{port:web}", "1"),
        "process: web}",
        'routes[0].process: the process "web" has no port',
    ),
    "secret": (
        ("env.j2", "session_key", "sesion_key"),
        "sesion_key",
        ': secrets.sesion_key: app.yaml declares no secret "sesion_key"; did you mean "session_key"?',
    ),
    "setting": (
        ("server.py.j2", "settings.greeting", "settings.greetings"),
        "greetings",
        ': settings.greetings: app.yaml has no setting "greetings"; did you mean "greeting"?',
    ),
    "name": (
        ("server.py.j2", "{{ version }}", "{{ vrsion }}"),
        "vrsion",
        ": 'vrsion' is undefined",
    ),
    "database": (
        ("env.j2", "SESSION_KEY", "DB={{ database.notes.host }}\nSESSION_KEY"),
        "database.notes",
        ": 'database' is undefined",
    ),
    "syntax": (("server.py.j2", "{{ version }}", "{{ version }"), "{{ version }", ": unexpected '}'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(folder: Path, case: str) -> None:
    (file, *pairs), where, expected = MISTAKES[case]
    change(folder, file, *pairs)
    ok, lines, _ = found(folder)
    assert not ok
    assert f"{ONE}/{file}:{line_of(folder, file, where)}: {expected}" in lines


def test_what_is_worth_a_look(folder: Path) -> None:
    change(folder, "app.yaml", "data:\n  - {name: notes, kind: sqlite, path: notes.db}\n", "")
    change(folder, "app.yaml", "  - {name: session_key", "  - {name: other}\n  - {name: session_key")
    ok, lines, _ = found(folder)
    assert ok
    at = line_of(folder, "app.yaml", "environment: {PORT")
    text = "{data}/notes.db is named here and stands under no entry of data: no backup holds it"
    assert f"{ONE}/app.yaml:{at}: processes[0].environment.DATA: {text}" in lines
    assert any(line.endswith("secrets[0]: no template uses secrets.other") for line in lines)
    assert any("a backup holds nothing of this app" in line for line in lines)


def test_units_are_verified(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if not app_check.shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this computer")
    template = folder.parents[1] / "app" / "process.service.j2"
    template.parent.mkdir()
    shipped = Path(app_check.__file__).parents[2] / "templates/app/process.service.j2"
    template.write_text(shipped.read_text().replace("Restart=always", "Restart=allways"))
    ok, lines, _ = found(folder)
    assert not ok
    assert any("the unit notes-web.service" in line and "allways" in line for line in lines), lines


def test_an_unknown_app_and_no_project(folder: Path) -> None:
    result = check(folder.parents[2], "nots", None, None)
    assert not result["ok"] and 'did you mean "notes"?' in result["findings"][0]["text"]
    (folder.parents[2] / "stack.yaml").unlink()
    with pytest.raises(InputError, match=r"no stack\.yaml"):
        check(folder.parents[2], "notes", None, None)
