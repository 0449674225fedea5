"""What app-exec asks systemd for: the unit's own settings, without those of a service that always runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from deployer.components.app.layout import Layout
from deployer.components.app.spec import spec
from deployer.core import resources
from deployer.core.component import Context
from deployer.core.errors import InputError
from deployer.flow.app_exec import chosen, remote_command
from deployer.flow.wanted import render

PROGRAM = Path(resources.__file__).parent.parent / "components" / "app" / "service" / "app-exec"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = SourceFileLoader("app_exec", str(PROGRAM))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("app_exec", loader))  # type: ignore[arg-type]
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "SYSTEMD", tmp_path)
    return module


def unit(context: Callable[..., Context]) -> str:
    ctx = context()
    [file] = [file for file in spec(ctx).files if file.path.endswith("/notes-web.service")]
    return render(file, ctx.project.root).decode()


def test_settings_of_the_unit(program: ModuleType, context: Callable[..., Context]) -> None:
    found = program.settings(unit(context), False)
    assert ("User", "app-notes") in found and ("WorkingDirectory", "/var/lib/notes") in found
    assert ("EnvironmentFile", "/etc/deploy/apps/notes/env") in found
    assert ("ProtectSystem", "strict") in found and ("NoNewPrivileges", "yes") in found
    assert ("SystemCallFilter", "~@privileged") in found
    assert not {"ExecStart", "ExecStartPre", "Type", "Restart", "SyslogIdentifier"} & {
        key for key, _ in found
    }


def test_settings_for_root(program: ModuleType, context: Callable[..., Context]) -> None:
    keys = {key for key, _ in program.settings(unit(context), True)}
    assert keys == {"WorkingDirectory", "Environment", "EnvironmentFile", "UMask"}


def test_words(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.service").write_text('[Service]\nUser=app\nEnvironment="A=100%% \\\n b"\nRestart=always\n')
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "tool"
    tool.write_text("")
    tool.chmod(0o755)
    words = program.words("a.service", str(tmp_path / "bin"), False, ["tool", "$X", "a b"], False)
    assert words[-4:] == ["--", str(tool), "$X", "a b"]
    assert "--pipe" in words and "--expand-environment=no" in words and "--property=User=app" in words
    assert '--property=Environment="A=100%   b"' in words
    assert f"--setenv=PATH={tmp_path / 'bin'}:{program.PATH}" in words
    assert "--pty" in program.words("a.service", "", False, ["/bin/sh"], True)
    with pytest.raises(SystemExit) as ended:
        program.words("a.service", "", False, ["no-such-tool"], False)
    assert ended.value.code == 127


def test_what_the_machine_gets(context: Callable[..., Context]) -> None:
    app = context().project.app
    layout = Layout(app, "demo.test")
    web = chosen(app, "")
    words = ["tool", "-c", "{config}/a", "{port:web}", "https://{{ domain }}", "a b; rm", "{other}"]
    command = remote_command(layout, web, words, as_root=True)
    assert command.partition("; exec ")[2] == (
        "/usr/local/lib/deploy/app-exec notes-web.service --path /opt/notes/current/main/bin --root -- "
        "tool -c /etc/deploy/apps/notes/a 9001 https://demo.test 'a b; rm' '{other}'"
    )
    with pytest.raises(InputError, match="stands for nothing here"):
        remote_command(layout, web, ["{runtime:x}"], as_root=False)
    with pytest.raises(InputError, match='notes has no process "nobody"'):
        chosen(app, "nobody")
