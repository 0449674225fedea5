"""What one side tells the other of its files: exactly what must be looked at again, and never less."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.components.moving.programs import load

changes, state = load("changes"), load("state")
Failure = load("ground").Failure


class Source:
    """A folder of pictures that a peer copies, and one that it may not."""

    def __init__(self, root: Path) -> None:
        self.folder, self.other = root / "pictures", root / "secret"
        for folder in (self.folder, self.other):
            for name in ("a/b/1", "a/b/2", "c/3", "4"):
                self.put(name, folder)
        self.config = {
            "copies": [{"name": "pictures", "kind": "files", "where": str(self.folder), "peer": "old/m"}]
        }

    def put(self, name: str, folder: Path | None = None, text: str = "x") -> Path:
        path = (folder or self.folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def note(self, number: int, keep: int = 0, who: str = "new/m") -> bool:
        body = {"who": who, "pass": number, "keep": keep, "paths": [str(self.folder), str(self.other)]}
        return bool(changes.note(self.config, body)["noted"])

    def changed(self, number: int, who: str = "new/m") -> list[str] | None:
        """None where it can not be told."""
        body: dict[str, Any] = {"who": who, "pass": number, "paths": [str(self.folder), str(self.other)]}
        found = changes.since(self.config, body)["changed"]
        if found is None:
            return None
        assert set(found) == {str(self.folder)}
        return sorted(found[str(self.folder)])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    kept = tmp_path / "state"
    kept.mkdir()
    monkeypatch.setattr(state, "STATE", kept)
    return Source(tmp_path)


def test_nothing_has_changed(source: Source) -> None:
    assert source.note(1)
    assert source.changed(1) == []


def test_what_is_new_written_or_gone_with_its_folder(source: Source) -> None:
    source.note(1)
    source.put("a/b/new")
    source.put("n/m/5")
    # Of the same size, and with the time that it had.
    path = source.folder / "c/3"
    before = path.stat()
    source.put("c/3", text="y")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (source.folder / "4").unlink()
    assert source.changed(1) == ["./", "a/b/", "a/b/new", "c/3", "n/", "n/m/", "n/m/5"]


def test_a_mode_a_link_a_name_with_a_line_break_and_one_that_is_no_text(source: Source) -> None:
    source.note(1)
    (source.folder / "a/b/1").chmod(0o600)
    os.link(source.folder / "c/3", source.folder / "c/also 3")
    os.symlink("nowhere", source.folder / "a/link\nx")
    Path(os.fsdecode(os.fsencode(source.folder) + b"/a/\xff")).touch()
    found = source.changed(1)
    assert found == sorted(["a/", "a/b/1", "a/link\nx", "a/\udcff", "c/", "c/3", "c/also 3"])


def test_what_came_after_the_note_and_has_gone_again(source: Source) -> None:
    """A pass may have copied it: its folder is told, and with it the other side finds what is too much there."""
    source.note(1)
    source.put("a/b/passing").unlink()
    source.put("t/passing")
    shutil.rmtree(source.folder / "t")
    assert source.changed(1) == ["./", "a/b/"]


def test_a_folder_under_another_name_and_a_file_in_a_folders_place(source: Source) -> None:
    source.note(1)
    (source.folder / "a/b").rename(source.folder / "c/b")
    shutil.rmtree(source.folder / "a")
    source.put("a")
    assert source.changed(1) == ["./", "a", "c/", "c/b/", "c/b/1", "c/b/2"]


def test_a_pass_that_did_not_end_leaves_the_one_before_it(source: Source) -> None:
    source.note(1)
    source.put("5")
    source.note(2, keep=1)
    source.put("a/6")
    assert source.changed(2) == ["a/", "a/6"]
    assert source.changed(1) == ["./", "5", "a/", "a/6"]
    source.note(3, keep=2)
    assert source.changed(1) is None and source.changed(2) is not None


def test_each_peer_has_its_own(source: Source) -> None:
    source.note(1)
    source.note(1, who="new/other")
    source.note(2, keep=0, who="new/other")
    assert source.changed(1) == [] and source.changed(1, "new/other") is None
    changes.forget()
    assert source.changed(1) is None and source.changed(2, "new/other") is None


def test_half_a_note_tells_too_much_and_not_too_little(source: Source) -> None:
    source.note(1)
    [path] = state.STATE.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes()[:-40])
    found = source.changed(1)
    assert found and set(found) <= {"./", "4", "a/", "a/b/", "a/b/1", "a/b/2", "c/", "c/3"}


def test_too_much_is_not_told(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.note(1)
    source.put("5")
    monkeypatch.setattr(changes, "TOLD", 1)
    assert source.changed(1) is None
    monkeypatch.setattr(changes, "MOST", 3)
    assert not source.note(2, keep=1)


def test_a_peer_names_no_file_of_ours(source: Source) -> None:
    assert source.note(1, who="../../x")
    assert [path.name for path in state.STATE.iterdir()] == ["listing-..-..-x.1"]
    for who in ("new/m\n", "", "new/*"):
        with pytest.raises(Failure):
            source.note(1, who=who)
