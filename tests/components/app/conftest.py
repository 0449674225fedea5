"""A small app of the tests' own, in a project folder, on one machine or two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.core.component import Context
from deployer.core.machine import Facts, Machine
from deployer.core.manifest import (
    AppData,
    AppFile,
    AppProbe,
    AppSecret,
    AppStep,
    Manifest,
    Process,
    Route,
    Runtime,
)
from deployer.core.model import Inventory, MachineEntry, MailPolicy, Project, SmsPolicy, Stack


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    folder = tmp_path / "templates" / "apps" / "notes"
    folder.mkdir(parents=True)
    (folder / "main.lock").write_text("flask==3.0 --hash=sha256:00\n")
    (folder / "notes.conf.j2").write_text("password={{ database.notes.password }}\n")
    (folder / "admin.j2").write_text("{{ admin_password }}\n")
    return Manifest(
        name="notes",
        version="1.2+git",
        folder=folder,
        runtimes=(Runtime("main", "python", "main.lock", packages=("libpq5",)),),
        processes=(
            Process(
                name="web",
                runtime="main",
                command="{runtime}/bin/notes --port {port} --quota 100%",
                port=9001,
                ready="http://127.0.0.1:{port}/ready",
                environment={"CONF": '{config}/notes.conf "x"'},
                environment_file="env",
                prepare=("install {config}/a {data}/a",),
            ),
            Process(
                name="worker", runtime="main", command="{runtime:main}/bin/work http://127.0.0.1:{port:web}"
            ),
        ),
        files=(AppFile("notes.conf.j2", "notes.conf", secret=True), AppFile("notes.conf.j2", "env")),
        routes=(Route("{{ domain }}", "/", process="web"),),
        probes=(AppProbe("reads", "curl http://127.0.0.1:{port:web}/{{ domain }} | awk '{print $1}'"),),
        databases=("notes",),
        data=(AppData("pictures", "files", "pictures"), AppData("index", "sqlite", "db/index.db")),
        secrets=(AppSecret("key", "hex"),),
        migrations=(AppStep("tables", "main", "{runtime}/bin/notes migrate", reversible=False),),
        after_restore=(AppStep("jump", "main", "{runtime}/bin/notes jump"),),
        admin=AppStep("admin", "main", "{runtime}/bin/notes admin", stdin="admin.j2"),
        settings={"colour": "red", "size": 3},
        choices={"colour": ("red", "blue")},
    )


@pytest.fixture
def project(tmp_path: Path, manifest: Manifest) -> Project:
    stack = Stack(
        name="demo",
        domain="demo.test",
        app="notes",
        operators=(),
        mail=MailPolicy("noreply@demo.test"),
        sms=SmsPolicy(),
        settings=manifest.settings,
    )
    inventory = Inventory("local", "local", (MachineEntry("demo-all-1", ("app", "database", "mail", "sms")),))
    return Project(tmp_path, stack, inventory, manifest)


@pytest.fixture
def context(project: Project) -> Callable[..., Context]:
    """context(settings=..., **changes of the manifest) on one machine that plays every role."""

    def make(settings: dict[str, object] | None = None, **changes: object) -> Context:
        app = replace(project.app, **changes)  # type: ignore[arg-type]
        stack = replace(project.stack, settings=project.stack.settings if settings is None else settings)
        machine = Machine("demo-all-1", "1", "running", "192.0.2.1")
        return Context(
            project=replace(project, app=app, stack=stack),
            machine=machine,
            machines={machine.name: machine},
            roles=dict.fromkeys(("app", "database", "mail", "sms"), (machine.name,)),
            secrets=_Any(),
            facts=Facts(cores=2, memory=2 << 30),
        )

    return make


class _Any(dict[str, str]):
    """Every secret's value tells its name."""

    def __missing__(self, key: str) -> str:
        return f"secret of {key}"
