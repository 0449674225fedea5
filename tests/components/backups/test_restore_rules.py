"""Rules of a restore that need no machine: what stops it before the first byte, what another repository would mend, and
the two renames."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components.backups.programs import load

OLD, NEW = "former database", "restored database"


@pytest.fixture
def restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The program, with its folders in tmp_path."""
    module = load("database_restore")
    monkeypatch.setattr(module, "PLACE", tmp_path)
    monkeypatch.setattr(module, "RESTORED", tmp_path / "restored")
    monkeypatch.setattr(module.pgbackrest, "CLUSTER", tmp_path / "main")
    monkeypatch.setattr(module, "STATE", tmp_path / "state.json")
    yield module


def cluster(path: Path, text: str) -> None:
    path.mkdir()
    (path / "PG_VERSION").write_text(text)


def words(path: Path) -> str:
    return (path / "PG_VERSION").read_text()


def work(restore: Any, name: str) -> Any:
    restore.save(restore.empty(name))
    return restore.Work({"id": name, "target": {"kind": "latest"}, "repository": {"name": "east"}})


def test_another_major_version(restore: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = load("database_choice")
    for name in ("FOLDER", "PRIVATE"):
        monkeypatch.setattr(choice, name, tmp_path / name)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: pwd.getpwuid(0))
    monkeypatch.setattr(choice.pgbackrest, "folder", lambda path, *_: path.mkdir(exist_ok=True))
    monkeypatch.setattr(choice.database_conf, "configuration", lambda *_: "")
    monkeypatch.setattr(choice.pgbackrest, "write", lambda *_: None)
    monkeypatch.setattr(choice.pgbackrest, "info", lambda *_: {"db": [{"version": "16"}], "backup": []})
    with pytest.raises(choice.Failed, match="of PostgreSQL 16; here is 17"):
        choice.Choice({"target": {"kind": "latest"}, "repository": {"name": "east"}}).look()


@pytest.mark.parametrize(
    ("commit", "moment"),
    [
        pytest.param("2026-11-24T20:30:00.5Z", "2026-11-24T20:30:00.5Z", id="an older backup leads there"),
        pytest.param("2026-11-24T19:30:00Z", "", id="from before the first backup"),
        pytest.param("", "", id="no commit"),
    ],
)
def test_a_moment_before_the_newest_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: str, moment: str
) -> None:
    """A segment is missing, and nobody wrote between the newest backup and that."""
    choice = load("database_choice")
    asked: list[str] = []
    monkeypatch.setattr(choice, "wal", dict)
    monkeypatch.setattr(
        choice.database_wal, "newest_commit", lambda conf, names, **_: asked.extend(names) or commit
    )
    made = choice.Choice({"target": {"kind": "latest"}, "repository": {"name": "east"}})
    stop = {hour: int(choice.parse(f"2026-11-24T{hour}:00:00Z").timestamp()) for hour in (20, 21)}
    made.backups = [
        {"archive": {"start": f"0000000100000000000000{start}"}, "timestamp": {"stop": stop[hour]}}
        for hour, start in ((21, "10"), (20, "0E"))
    ]
    assert made.reach("000000010000000000000011") == moment
    assert [name[-2:] for name in asked] == ["0E", "0F", "10"]


def test_what_another_repository_would_mend(restore: Any) -> None:
    damaged = load("database_fetch").Damaged("copying", "damage in the repository", "take another")
    assert restore._told(damaged, "copy")["elsewhere"]
    here = restore.Here("looking for room", "too small", "make room")
    assert "elsewhere" not in restore._told(here, "look")
    assert "elsewhere" not in restore._told(restore.Failed("swapping", "it is gone", ""), "swap")
    full = restore._told(
        restore.Failed("replaying", "could not write: No space left on device", ""), "replay"
    )
    assert "elsewhere" not in full and "the disk is full" in full["why"] and "make room" in full["next"]


def test_killed_between_the_renames_it_goes_on(restore: Any, tmp_path: Path) -> None:
    cluster(tmp_path / "main.before-one", OLD)
    cluster(tmp_path / "restored", NEW)
    work(restore, "one").swap()
    assert words(tmp_path / "main") == NEW and words(tmp_path / "main.before-one") == OLD
    work(restore, "one").swap()
    assert words(tmp_path / "main") == NEW and words(tmp_path / "main.before-one") == OLD


def test_an_empty_cluster_made_between_the_renames(restore: Any, tmp_path: Path) -> None:
    cluster(tmp_path / "main.before-one", OLD)
    cluster(tmp_path / "main", "empty")
    cluster(tmp_path / "restored", NEW)
    work(restore, "one").swap()
    assert words(tmp_path / "main") == NEW and words(tmp_path / "main.before-one") == OLD


def test_given_up_between_the_renames_the_former_database_comes_back(restore: Any, tmp_path: Path) -> None:
    cluster(tmp_path / "main.before-one", OLD)
    restore._put_back("one")
    assert words(tmp_path / "main") == OLD
    cluster(tmp_path / "main.before-two", NEW)
    restore._put_back("two")
    assert words(tmp_path / "main") == OLD
