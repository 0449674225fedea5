"""The files of an app: a project's own before the shipped ones, another version, written and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.components.app.source import collect, unpack
from deployer.core.errors import DeployError, InputError
from deployer.core.manifest import Manifest
from deployer.flow import app_files
from deployer.flow.app_new import new
from deployer.project import manifest as manifests
from deployer.project.mistakes import Mark, Mistakes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stack.yaml").write_text("name: demo\ndomain: demo.test\napp: notes\n")
    return tmp_path


@pytest.fixture
def shipped(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped app notes; the project has none."""
    new(root, "notes")
    folder = root / "shipped" / "apps"
    folder.mkdir(parents=True)
    (root / "templates/apps/notes").rename(folder / "notes")
    (root / "templates/apps").rmdir()
    monkeypatch.setattr(manifests, "shipped_apps", lambda: folder)
    return folder / "notes"


def load(root: Path, name: str = "notes") -> Manifest:
    mistakes = Mistakes()
    found = manifests.load(name, root, Mark("x", 0), mistakes)
    assert found is not None, mistakes.lines
    return found


def own(root: Path) -> list[str]:
    folder = root / "templates"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_new_app_is_one(root: Path) -> None:
    result = new(root, "notes")
    assert result["files"] == own(root) or sorted(result["files"]) == [f"templates/{p}" for p in own(root)]  # type: ignore[call-overload]
    app = load(root)
    assert (app.version, app.processes[0].name, app.data[0].path) == ("1", "web", "notes.db")
    for name in ("notes", "matrix", "A", "x", "with space", "a" * 40):
        with pytest.raises(InputError):
            new(root, name)


def test_single_files_go_before_the_shipped_ones(root: Path, shipped: Path) -> None:
    assert load(root).path("main.lock") == shipped / "main.lock"
    folder = root / "templates/apps/notes"
    folder.mkdir(parents=True)
    (folder / "main.lock").write_text("# mine\n")
    app = load(root)
    assert app.folder == shipped and app.path("main.lock") == folder / "main.lock"
    assert app.path("server.py.j2") == shipped / "server.py.j2"
    assert collect(app)["main.lock"] == b"# mine\n"
    # With an app.yaml of one's own, what is not beside it comes from the shipped one.
    (folder / "app.yaml").write_bytes((shipped / "app.yaml").read_bytes())
    assert load(root).folder == folder


def test_another_version_and_lock(root: Path, shipped: Path) -> None:
    app = load(root)
    former = collect(app)
    files = app_files.changed(app, former, "2.0", {"main": b"# two\n"})
    assert files["app.yaml"].decode() == (shipped / "app.yaml").read_text().replace('"1"', '"2.0"')
    with app_files.staged("notes", files) as wanted:
        assert wanted.version == "2.0" and wanted.path("main.lock").read_bytes() == b"# two\n"
    assert own(root) == []
    assert app_files.write(root, "notes", files) == [
        "templates/apps/notes/main.lock",
        "templates/apps/notes/app.yaml",
    ]
    assert load(root).version == "2.0" and own(root) == ["apps/notes/app.yaml", "apps/notes/main.lock"]
    assert app_files.write(root, "notes", files) == []
    # Back: the shipped ones say it already, so nothing of one's own remains.
    app_files.write(root, "notes", former)
    assert own(root) == [] and collect(load(root)) == former


def test_files_of_other_names_stay(root: Path, shipped: Path) -> None:
    former = collect(load(root))
    folder = root / "templates/apps/notes"
    folder.mkdir(parents=True)
    (folder / "README").write_text("mine")
    (folder / "env.j2").write_text("X=1\n")
    app_files.write(root, "notes", former)
    assert own(root) == ["apps/notes/README"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("version: 1.2  # why", 'version: "2"  # why'),
        ('version: "1"', 'version: "2"'),
        ("version:   '1'", 'version:   "2"'),
    ],
)
def test_only_the_version_changes(root: Path, line: str, expected: str) -> None:
    new(root, "notes")
    path = root / "templates/apps/notes/app.yaml"
    path.write_text(path.read_text().replace('version: "1"', line))
    app = load(root)
    made = app_files.changed(app, collect(app), "2", {})["app.yaml"].decode()
    assert made == path.read_text().replace(line, expected)


def test_what_cannot_be(root: Path) -> None:
    new(root, "notes")
    app = load(root)
    files = collect(app)
    with pytest.raises(InputError, match="is no lock file of it") as wrong:
        app_files.changed(app, files, "2", {"mian.lock": b""})
    assert "main.lock (of the runtime main)" in wrong.value.next
    with pytest.raises(InputError, match="is no version"):
        app_files.changed(app, files, "../2", {})
    with pytest.raises(InputError, match="checking the project's files"):
        with app_files.staged("notes", {**files, "app.yaml": b"version: 1\nprocesess: []\n"}):
            pass
    moved = files["app.yaml"].replace(b'version: "1"', b'"version": "1"')
    with pytest.raises(InputError, match="has no line that begins with version:"):
        app_files.changed(app, {**files, "app.yaml": moved}, "2", {})


@pytest.mark.parametrize("source", [{}, {"files": {}}, {"files": {"app.yaml": "", "../x": ""}}])
def test_a_source_that_is_none(source: dict[str, object]) -> None:
    with pytest.raises(DeployError):
        unpack(source, "m")
