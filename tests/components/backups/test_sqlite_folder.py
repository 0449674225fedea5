"""A folder of SQLite files is copied while others write in it; each copy is a state between two transactions."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.components.backups.programs import load


@pytest.fixture
def staging() -> ModuleType:
    return load("staging")


def database(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    made.execute("PRAGMA journal_mode=WAL")
    made.execute("CREATE TABLE IF NOT EXISTS pairs (a INTEGER, b INTEGER)")
    return made


def pairs(path: Path) -> list[tuple[int, int]]:
    # Nothing beside it: a copy stands alone.
    with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as found:
        assert found.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return list(found.execute("SELECT a, b FROM pairs ORDER BY a"))


def test_copies_are_whole_while_it_is_written(staging: ModuleType, tmp_path: Path) -> None:
    where, copy = tmp_path / "actors", tmp_path / "copy"
    writer = database(where / "ab/one/store.sqlite")
    (where / "ab/one/key").write_bytes(b"secret")
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            writer.execute("BEGIN")
            writer.execute("INSERT INTO pairs VALUES (?, 0)", (number,))
            writer.execute("UPDATE pairs SET b = a WHERE a = ?", (number,))
            writer.execute("COMMIT")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        time.sleep(0.2)
        for _ in range(5):
            staging.copy_sqlite_folder(where, copy)
            found = pairs(copy / "ab/one/store.sqlite")
            assert found and all(a == b for a, b in found)
    finally:
        ended.set()
        thread.join()
    assert (copy / "ab/one/key").read_bytes() == b"secret"
    assert sorted(os.listdir(copy / "ab/one")) == ["key", "store.sqlite"]


def test_only_what_changed_is_copied_again_and_what_is_gone_goes(
    staging: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, copy = tmp_path / "actors", tmp_path / "copy"
    one, two = (database(where / name / "store.sqlite") for name in ("one", "two"))
    (where / "two/key").write_bytes(b"x")
    staging.copy_sqlite_folder(where, copy)
    one.execute("INSERT INTO pairs VALUES (1, 1)")
    copied: list[str] = []
    real = staging.copy_sqlite
    monkeypatch.setattr(
        staging, "copy_sqlite", lambda path, to: (copied.append(path.parent.name), real(path, to))
    )
    staging.copy_sqlite_folder(where, copy)
    assert copied == ["one"] and pairs(copy / "one/store.sqlite") == [(1, 1)]
    two.close()
    for path in (where / "two").iterdir():
        path.unlink()
    (where / "two").rmdir()
    staging.copy_sqlite_folder(where, copy)
    assert sorted(os.listdir(copy)) == ["one"]


def test_one_that_goes_meanwhile_stops_nobody(
    staging: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, copy = tmp_path / "actors", tmp_path / "copy"
    for name in ("one", "two"):
        database(where / name / "store.sqlite").close()
    real = staging.copy_sqlite

    def late(path: Path, to: Path) -> None:
        if path.parent.name == "one":
            path.unlink()
        real(path, to)

    monkeypatch.setattr(staging, "copy_sqlite", late)
    staging.copy_sqlite_folder(where, copy)
    assert (copy / "two/store.sqlite").exists() and not (copy / "one/store.sqlite").exists()


def test_a_file_that_only_looks_like_one_beside_a_database_is_kept(
    staging: ModuleType, tmp_path: Path
) -> None:
    where, copy = tmp_path / "media", tmp_path / "copy"
    where.mkdir()
    (where / "holiday-wal").write_bytes(b"a picture")
    staging.copy_sqlite_folder(where, copy)
    assert (copy / "holiday-wal").read_bytes() == b"a picture"
