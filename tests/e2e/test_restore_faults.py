"""`restore` from repositories that are damaged or do not fit: it says what is wrong, and leaves what was there as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from deployer.core import generation
from deployer.project.bundle import Bundle
from tests.e2e.broken import Broken, archived, damage, deployed, put, segments
from tests.e2e.operator import Run
from tests.e2e.scratch import error
from tests.rig.objects import Damage
from tests.rig.world import World

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def whole(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    with deployed(rig, package_layer, tmp_path_factory.mktemp("broken")) as made:
        yield made


@pytest.fixture
def living(whole: Broken) -> Iterator[Broken]:
    """It serves at the beginning; a test that failed half-way does not stand in the way of the next one."""
    yield whole
    if whole.console("systemctl is-active postgresql@17-main.service", check=False).strip() != "active":
        whole.operator.good("up", "--yes")


# --- it does not fit: the old state stays ---


def test_a_wrong_identity(living: Broken, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n", encoding="utf-8")
    run = living.operator.run("restore", "--yes", options=("--json", "--identity", str(other)))
    assert run.code != 0
    found = error(run)
    assert "identity" in f"{found['what']} {found['why']}" and found["next"], found
    living.same()


def test_a_wrong_cipher(living: Broken) -> None:
    values = Bundle(living.folder, (), living.operator.home / ".config/deploy/identity.txt").values
    right = {one.name: values[one.name] for one in generation.ciphers(1, "east")}
    put(living, dict.fromkeys(right, "x" * 32))
    try:
        found = living.fails("--from", "east")
    finally:
        put(living, right)
    assert "password does not fit" in found["why"], found
    living.untouched()


def test_a_missing_segment(living: Broken) -> None:
    east = living.vendors["east"]
    key = segments(east)[-2]
    segment = key.rpartition("/")[2][:24]
    with damage(east, key, "delete"):
        verified = living.operator.run("backup", "verify", "--repository", "east")
        assert verified.code == 1
        assert any(segment in f"{one['what']} {one['why']}" for one in bad(verified)), verified.result
        found = living.fails("--from", "east")
        assert segment in found["why"] and "missing" in found["why"], found
        assert "restore to 20" in found["next"] and "another repository" in found["next"], found
        living.untouched()


def bad(run: Run) -> list[dict[str, str]]:
    return [one for entry in run.result["repositories"] for one in entry["damaged"]]


def test_another_major_version(living: Broken) -> None:
    """pgBackRest itself writes into the emptied place what it writes for a cluster of 16."""
    east = living.vendors["east"]
    conf = "/etc/deploy/backups/pgbackrest/east.conf"
    with damage(east, "*/000001/database/*", "delete"):
        living.console(
            "systemctl stop deploy-backups-watch.service deploy-backups-heartbeat.service postgresql@17-main.service;"
            f" runuser -u postgres -- pgbackrest --config={conf} --stanza=main --no-online --pg-version-force=16"
            " stanza-create"
        )
        found = living.fails("--from", "east")
        assert "they are of PostgreSQL 16; here is 17" in found["why"] and "dump" in found["next"], found
    living.untouched()
    archived(living)


def test_another_locale(living: Broken) -> None:
    living.sql("CREATE DATABASE odd TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C.UTF-8'", "postgres")
    archived(living)
    found = living.fails("--from", "east")
    assert "odd has C.UTF-8 of libc" in found["why"], found
    living.untouched()
    living.sql("DROP DATABASE odd", "postgres")
    archived(living)


def test_a_full_disk_for_the_database(living: Broken) -> None:
    where = "/var/lib/postgresql"
    # What a restore that was given up has fetched is not needed.
    living.console(
        f"systemctl stop 'postgresql@*' && rm -rf {where}/17/restored {where}/17/main.before-* &&"
        f" cp -a {where} /var/lib/aside && mount -t tmpfs -o size=1000m none {where} &&"
        f" cp -a /var/lib/aside/. {where}/"
    )
    try:
        found = living.fails("--from", "east")
        assert "MiB left" in found["why"] and "make room" in found["next"], found
        living.untouched()
    finally:
        living.console(
            f"systemctl stop 'postgresql@*'; rm -rf /var/lib/aside; cp -a {where} /var/lib/aside && umount {where}"
            f" && rm -rf {where}/* && cp -a /var/lib/aside/. {where}/ && rm -rf /var/lib/aside"
        )
    living.untouched()


def test_a_full_disk_for_the_files(living: Broken) -> None:
    media = living.console("ls -d /var/lib/matrix/*media* | head -1").strip()
    living.console(f"cp -a {media} /var/lib/aside && mount -t tmpfs -o size=64k none {media}")
    try:
        found = living.fails("--from", "east")
        assert "disk is full" in found["why"] and "make room" in found["next"], found
    finally:
        living.console(f"umount {media} && rm -rf /var/lib/aside")
    living.untouched()


# --- damage: the other repository ---

PLACES = {
    "database": "*/000001/database/backup/main/*F/bundle/*",
    "files": "*/000001/files/data/*",
}


@pytest.mark.parametrize("part", PLACES)
@pytest.mark.parametrize("how", ["delete", "truncate", "flip"])
def test_damage_is_named(living: Broken, part: str, how: Damage) -> None:
    with damage(living.vendors["east"], PLACES[part], how) as keys:
        verified = living.operator.run("backup", "verify", "--repository", "east")
        assert verified.code == 1
        named = [one for one in bad(verified) if one["part"] == part]
        assert named and all(one["what"] and one["why"] for one in named), verified.result
        found = living.fails("--from", "east")
        assert "damage" in found["why"] and "another repository" in found["next"], (found, keys)
        living.untouched()
