"""What a restored database names and the files lack: lost, or newer than the files' point."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tests.components.backups.test_database_spec import SERVICE

POINT, SECONDS = "2026-11-29T07:00:00Z", 1_795_935_600


def test_what_is_newer_than_the_point_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SERVICE))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    module = importlib.import_module("app_back")
    try:
        (tmp_path / "kept").write_text("x", encoding="utf-8")
        own = {"references": [{"name": "media", "where": str(tmp_path)}]}
        lines = [
            f"kept\t{SECONDS - 1000}",
            f"lost\t{SECONDS - 1000}",
            # Named before the point, and perhaps written after it.
            f"late\t{SECONDS - 5}",
            f"newer\t{SECONDS + 5.5}",
            "undated",
            "odd\tyesterday",
            "",
        ]
        found = module.missing(own, "media", lines, POINT)
        assert found["named"] == 6
        assert (found["paths"], found["missing"]) == (["lost", "undated", "odd"], 3)
        assert (found["newer_paths"], found["newer"]) == (["late", "newer"], 2)
        # Without a point nothing excuses it.
        assert module.missing(own, "media", lines)["missing"] == 5
    finally:
        for name in ("app_back", "repository", "ground"):
            sys.modules.pop(name, None)
