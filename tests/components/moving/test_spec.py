"""What machines want while the service moves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from deployer.components.backups import guard
from deployer.components.mail_relay import records
from deployer.core import generation, moving
from deployer.core.component import Context
from deployer.core.generation import Generation
from deployer.core.machine import Machine
from deployer.core.model import Project
from deployer.core.moving import ENDED, MOVED, PREPARING, Move
from deployer.flow import registry
from deployer.flow.init import init
from deployer.pki import keys
from deployer.pki.generator import Generator
from deployer.project import load
from tests.components.backups.test_database_spec import EAST

ALL = ("app", "database", "mail", "sms")
KEYS = {"old": keys.ssh(), "new": keys.ssh()}


def place(side: str, machine: Machine, address: str) -> moving.Place:
    seen = replace(machine, address=address, private_address="", host_key_public="ssh-ed25519 AAAAC3")
    return moving.place(side, seen, ALL)


@cache
def project() -> tuple[Project, Mapping[str, str]]:
    """A stack with the Matrix app on one machine, and secrets for it."""
    with TemporaryDirectory() as folder:
        root = Path(folder) / "own"
        init(root, "agora", "agora.example", "matrix")
        made = load(root, "local", None, environment={})
        generator = Generator(made.stack.name, made.stack.domain)
        found: dict[str, str] = {}
        for secret in registry.secrets(made):
            found[secret.name] = generator.make(secret, found)
        return made, found


def world(own: str, phase: str = PREPARING) -> Context:
    """A machine of one side. own: "old" or "new"."""
    made, made_secrets = project()
    one = Machine("agora-all-1", "1", "running", "192.0.2.1", ours=True)
    ctx = Context(made, one, {"agora-all-1": one}, dict.fromkeys(ALL, ("agora-all-1",)), made_secrets)
    us = str(ctx.project.deployment)
    other = "agora@elsewhere"
    old, new = (us, other) if own == "old" else (other, us)
    move = Move("20261129T023000", old, new, 8, "2026-11-29T02:30:00+00:00", phase)
    machine = ctx.machine
    move = move.at([place("old", machine, "198.51.100.1"), place("new", machine, "203.0.113.2")])
    live = Generation(7, old) if phase == PREPARING else Generation(8, new)
    secrets = {
        **ctx.secrets,
        live.entry: live.to_json(),
        move.entry: move.to_json(),
        move.password.name: "between-the-two",
        move.key("old").name: KEYS["old"],
        move.key("new").name: KEYS["new"],
        **{secret.name: "c" for number in (7, 8) for secret in generation.ciphers(number, "east")},
    }
    inventory = replace(ctx.project.inventory, repositories=(EAST,))
    return replace(ctx, project=replace(ctx.project, inventory=inventory), secrets=secrets)


def files(ctx: Context) -> dict[str, Any]:
    return {file.path: file for spec in registry.specs(ctx) for file in spec.files}


def settings(ctx: Context) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files(ctx)["/etc/deploy/moving/settings.json"].content)
    return found


def test_without_a_move_there_is_nothing_of_it() -> None:
    ctx = world("old", ENDED)
    assert "moving" not in [spec.name for spec in registry.specs(ctx)]
    assert not [path for path in files(ctx) if "moving" in path]


def test_a_side_that_has_no_part_in_it_has_nothing_of_it() -> None:
    ctx = world("old")
    elsewhere = replace(ctx.project.inventory, name="third")
    assert moving.concerning(ctx.secrets, replace(ctx.project, inventory=elsewhere).deployment) is None


def test_the_new_side_works_with_the_generation_to_come_and_is_not_live() -> None:
    ctx = world("new")
    us = str(ctx.project.deployment)
    assert generation.held(ctx.secrets, us) is None
    assert moving.standing_by(ctx.secrets, us)
    acting = moving.acting(ctx.secrets, us)
    assert acting is not None and acting.number == 8
    assert json.loads(files(ctx)["/etc/deploy/backups/settings.json"].content)["generation"] == 8


def test_the_standby_runs_without_the_guards_word_and_nothing_else_does() -> None:
    standby, live = files(world("new")), files(world("old"))
    guarded = "/etc/systemd/system/{}.d/deploy-guard.conf"
    for unit in ("postgresql@17-main.service", "caddy.service"):
        assert guarded.format(unit) not in standby
        assert guarded.format(unit) in live
    for unit in ("valkey-server.service", "postfix.service", "sms-gateway.service"):
        assert guarded.format(unit) in standby


@pytest.mark.parametrize("side", ["old", "new"])
def test_every_unit_that_serves_has_the_mark(side: str) -> None:
    ctx = world(side)
    there = files(ctx)
    peers = [spec for spec in registry.specs(ctx) if spec.name != "moving"]
    for unit in guard.guarded(peers):
        # The proxy forwards on a side that is closed.
        wanted = unit not in ("caddy.service", "deploy-guard.service")
        assert (f"/etc/systemd/system/{unit}.d/deploy-moving.conf" in there) == wanted, unit


def test_settings_name_the_same_thing_on_both_sides() -> None:
    old, new = settings(world("old")), settings(world("new"))
    assert (old["side"], new["side"]) == ("old", "new")
    assert old["id"] == new["id"] and old["generation"] == new["generation"] == 8
    assert [one["name"] for one in old["machines"]] == ["old/agora-all-1", "new/agora-all-1"]
    assert old["replication"]["peer"] == "new/agora-all-1" and new["replication"]["peer"] == "old/agora-all-1"
    assert {(one["component"], one["where"]) for one in old["copies"]} == {
        (one["component"], one["where"]) for one in new["copies"]
    }
    assert {one["kind"] for one in new["copies"]} >= {"files", "sqlite", "valkey", "marks"}
    assert not any(one["kind"] == "postgres" for one in new["copies"])
    assert old["forwards"] and not new["forwards"]
    assert "deploy-guard-watch.timer" not in old["timers"]
    assert "deploy-guard.service" not in [unit for entry in old["units"] for unit in entry["units"]]


def test_keys_open_one_program_and_named_ports_from_named_addresses() -> None:
    lines = files(world("old"))["/etc/deploy/moving/authorized_keys"].content.splitlines()[1:]
    assert len(lines) == 2
    for line, address in zip(lines, ("198.51.100.1", "203.0.113.2"), strict=True):
        assert line.startswith("restrict,port-forwarding,")
        assert f'from="{address}"' in line
        assert 'command="/usr/local/lib/deploy/moving/move.py serve"' in line
        assert 'permitopen="127.0.0.1:5432"' in line
        assert "PRIVATE" not in line


def test_no_secret_lies_open() -> None:
    for file in files(world("new")).values():
        if "between-the-two" in file.content or "PRIVATE KEY" in file.content:
            assert file.secret and not file.mode & 0o077, file.path


@pytest.mark.parametrize("phase", [PREPARING, MOVED])
def test_mail_of_both_sides_is_ours(phase: str) -> None:
    for side in ("old", "new"):
        text = records.spf(world(side, phase))
        assert "ip4:198.51.100.1" in text or "ip4:203.0.113.2" in text


def test_a_move_comes_back_as_it_was_written() -> None:
    move = moving.newest(world("old").secrets)
    assert move is not None
    assert Move.from_json(move.to_json()) == move
    assert move.player("new", "database") == move.of("new")[0]
