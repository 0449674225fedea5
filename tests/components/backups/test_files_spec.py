from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.components.backups import files, guard
from deployer.components.backups import spec as backups
from deployer.components.mail_relay import spec as mail_relay
from deployer.core.component import ComponentSpec, Context, Data, Unit
from deployer.core.generation import Generation, ciphers
from deployer.core.manifest import AppData, Runtime
from deployer.core.model import BackupPolicy, Repository
from deployer.flow.wanted import render
from tests.components.backups.programs import load
from tests.components.base.world import ONE, TWO, context

EAST = Repository("east", "s3", "https://east.example", bucket="b", key="east-key-id", secret="canary-east")
SHARE = Repository("share", "path", path="/mnt/share")
DATA = (
    Data("media", "files", "/var/lib/notes/media", "/var/lib/notes"),
    Data("ids", "sqlite", "/var/lib/notes/ids/ids.db", "/var/lib/notes"),
)
PEERS = (
    ComponentSpec("database", units=(Unit("postgresql@17-main.service"),)),
    ComponentSpec(
        "mail_relay",
        units=(
            Unit("postfix.service", reload=True),
            Unit("exim.service", wanted=False),
            Unit("prune.service", resident=False),
            Unit("prune.timer"),
        ),
        data=DATA,
    ),
)


def stack(
    tmp_path: Path, *repositories: Repository, live: bool = True, apart: bool = False, on_two: bool = False
) -> Context:
    ctx = context(apart=apart, on=TWO if on_two else ONE)
    (tmp_path / "x.lock").write_text("")
    app = replace(
        ctx.project.app,
        folder=tmp_path,
        runtimes=(Runtime("x", "python", "x.lock"),),
        data=(AppData("media", "files", "media", "SELECT path FROM media"),),
    )
    inventory = replace(ctx.project.inventory, repositories=repositories)
    policy = replace(ctx.project.stack, backup=BackupPolicy(files=10, mail=("op@example.test",)))
    project = replace(ctx.project, app=app, inventory=inventory, stack=policy)
    secrets = dict(ctx.secrets)
    if live:
        secrets["backups/generation/000001"] = Generation(1, str(project.deployment)).to_json()
        for one in repositories:
            for secret in ciphers(1, one.name):
                secrets[secret.name] = "canary-" + secret.name
    return replace(ctx, project=project, secrets=secrets)


def rendered(spec: ComponentSpec) -> dict[str, str]:
    return {file.path: render(file, Path("/nonexistent")).decode() for file in spec.files}


def test_each_repository_has_a_timer_and_a_process_of_its_own(tmp_path: Path) -> None:
    spec = backups.spec(stack(tmp_path, EAST, SHARE), PEERS)
    wanted = {unit.name: unit.resident for unit in spec.units if unit.name.startswith("deploy-files")}
    assert wanted == {
        "deploy-files-east.service": False,
        "deploy-files-share.service": False,
        "deploy-files-east.timer": True,
        "deploy-files-share.timer": True,
    }
    found = rendered(spec)
    for name in ("east", "share"):
        timer = found[f"/etc/systemd/system/deploy-files-{name}.timer"]
        assert "\nOnCalendar=*-*-* *:0/10:00 UTC\n" in timer
    assert "canary" not in "".join(text for path, text in found.items() if not path.endswith("settings.json"))


def test_a_copy_of_sqlite_and_a_folder_for_backups_can_be_written_to(tmp_path: Path) -> None:
    found = rendered(backups.spec(stack(tmp_path, EAST, SHARE), PEERS))
    share = found["/etc/systemd/system/deploy-files-share.service"].splitlines()
    assert {"ReadWritePaths=-/var/lib/notes/ids", "ReadWritePaths=-/mnt/share"} <= set(share)
    assert "ReadWritePaths=-/mnt/share" not in found["/etc/systemd/system/deploy-files-east.service"]


@pytest.mark.parametrize(("on_two", "first", "release"), [(False, True, False), (True, False, True)])
def test_one_machine_sets_repositories_up_and_the_apps_keeps_its_release(
    tmp_path: Path, on_two: bool, first: bool, release: bool
) -> None:
    ctx = stack(tmp_path, EAST, apart=True, on_two=on_two)
    settings = json.loads(files.settings(ctx))
    assert settings["first"] is first
    assert bool(settings["release"]) is release
    assert settings["references"] == [
        {
            "name": "media",
            "where": "/var/lib/notes/media",
            "database": "notes",
            "query": "SELECT path FROM media",
        }
    ]


def test_what_serves_needs_the_guard_and_nothing_else_does(tmp_path: Path) -> None:
    spec = backups.spec(stack(tmp_path, EAST), PEERS)
    dropped = {path: text for path, text in rendered(spec).items() if path.endswith("deploy-guard.conf")}
    assert set(dropped) == {
        "/etc/systemd/system/postgresql@17-main.service.d/deploy-guard.conf",
        "/etc/systemd/system/postfix.service.d/deploy-guard.conf",
    }
    for text in dropped.values():
        assert "\nRequires=deploy-guard.service\nAfter=deploy-guard.service\n" in text


def test_a_change_never_restarts_the_guard(tmp_path: Path) -> None:
    spec = backups.spec(stack(tmp_path, EAST), PEERS)
    [unit] = [unit for unit in spec.units if unit.name == guard.UNIT]
    assert unit.managed_by_step
    assert {f.on_change for f in spec.files if "guard" in f.path} == {"none"}


def test_without_a_generation_it_guards_and_backs_nothing_up(tmp_path: Path) -> None:
    spec = backups.spec(stack(tmp_path, EAST, live=False), PEERS)
    units = {unit.name for unit in spec.units}
    assert guard.UNIT in units
    assert not any(name.startswith("deploy-files") for name in units)
    assert json.loads(rendered(spec)["/etc/deploy/backups/settings.json"])["generation"] == 0


def test_the_alarm_knows_the_relay_and_only_what_the_policy_asks_for(tmp_path: Path) -> None:
    settings = json.loads(guard.alarm_settings(stack(tmp_path, EAST)))
    assert settings["mail"]["port"] == 587
    assert "sms" not in settings


def test_with_an_alarm_every_machine_may_hand_in_mail(tmp_path: Path) -> None:
    ctx = stack(tmp_path, EAST, apart=True)
    assert mail_relay.alarms(ctx) == ("10.0.0.2",)
    inventory = replace(ctx.project.inventory, repositories=())
    assert mail_relay.alarms(replace(ctx, project=replace(ctx.project, inventory=inventory))) == ()


def test_a_restore_marks_the_apps_folder_before_it_puts_anything_in_place(tmp_path: Path) -> None:
    module = load("restoring_work")
    one = module.Restore.__new__(module.Restore)
    one.id, one.request = "ab12", {"mark": str(tmp_path / "app/notes/restored")}
    one.mark()
    # As components/app/service/app-switch reads it.
    assert json.loads((tmp_path / "app/notes/restored").read_text())["id"] == "ab12"
    one.request = {"mark": ""}
    one.mark()
