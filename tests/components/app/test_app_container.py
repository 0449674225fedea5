"""app-container's words where podman does not do as it should. What it does with podman: tests/e2e/test_containers.py."""

from __future__ import annotations

import importlib.util
import pwd
import subprocess
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from deployer.core import resources

PROGRAM = Path(resources.__file__).parent.parent / "components" / "app" / "service" / "app-container"


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = SourceFileLoader("app_container", str(PROGRAM))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("app_container", loader))  # type: ignore[arg-type]
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module.pwd, "getpwnam", lambda _: pwd.getpwuid(0))
    return module


def test_a_podman_that_does_not_end_is_told_in_words(
    container: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(words: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(container.subprocess, "run", run)
    with pytest.raises(
        SystemExit, match="looking at the images of notes: podman images did not end within 60 s"
    ):
        container.unpacked("notes")


def test_what_was_unpacked_and_not_named_is_in_nobodys_way(
    container: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "localhost/deploy:1 sha256:a\n<none>:<none> sha256:b\n<none>:<none> sha256:c\n"
    monkeypatch.setattr(
        container.subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, 0, listed, "")
    )
    assert container.unpacked("notes")["localhost/deploy:1"] == "sha256:a"
