"""Data on a volume of their own, as values; tests/e2e/test_data_volume.py has a machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.components.base import volume
from deployer.components.base.operations import volume_filled
from deployer.components.base.spec import spec
from deployer.core.component import ComponentSpec, Data, Mount, Unit
from deployer.flow.apply import phases
from deployer.flow.diff import diff
from deployer.flow.observe import nothing
from deployer.flow.wanted import build
from tests.components.base.world import ONE, context

PEERS = (
    ComponentSpec(
        "database",
        units=(Unit("postgresql@17-main.service"), Unit("clean.timer")),
        data=(Data("a", "postgres", "a"), Data("b", "postgres", "b")),
    ),
    ComponentSpec(
        "app",
        units=(Unit("app.service"), Unit("old.service", wanted=False)),
        data=(
            Data("pictures", "files", "/var/lib/notes/pictures", "/var/lib/notes"),
            Data("index", "sqlite", "/var/lib/notes/db/index.db"),
            Data("spool", "sqlite", "/var/lib/note-s/spool.db"),
        ),
    ),
    ComponentSpec("proxy", units=(Unit("caddy.service"),)),
)
WITH = context(machine=replace(ONE, volume=True))


@pytest.mark.parametrize("path", ["/var/lib/postgresql", "/var/lib/sms-gateway", "/srv/a b/ü.c:d_e"])
def test_units_are_named_as_systemd_wants_it(path: str) -> None:
    done = subprocess.run(["systemd-escape", "--path", path], capture_output=True, text=True, timeout=10)
    assert volume.escaped(path) == done.stdout.strip()


def test_each_folder_once_and_none_within_another() -> None:
    assert volume.mounts(WITH, PEERS) == (
        Mount("/var/lib/note-s", "/srv/data/var/lib/note-s", "var-lib-note\\x2ds.mount"),
        Mount("/var/lib/notes", "/srv/data/var/lib/notes", "var-lib-notes.mount"),
        Mount("/var/lib/postgresql", "/srv/data/var/lib/postgresql", "var-lib-postgresql.mount"),
    )


def test_a_machine_without_volume_has_none_of_it() -> None:
    wanted = spec(context(), PEERS)
    assert not wanted.mounts
    assert not [file.path for file in wanted.files if "mount" in file.path or "deploy-data" in file.path]
    assert not {"owners of data", "size of the data volume"} & {step.name for step in wanted.steps}


def test_services_need_their_data_and_no_others() -> None:
    files = {file.path: file for file in spec(WITH, PEERS).files}
    needing = {
        path.split("/")[4]: file.values["folders"] for path, file in files.items() if "deploy-data" in path
    }
    assert needing == {
        "postgresql@17-main.service.d": ["/var/lib/postgresql"],
        "app.service.d": ["/var/lib/note-s", "/var/lib/notes"],
    }


def test_they_are_mounted_before_anything_is_installed() -> None:
    wish = build(ONE.name, [spec(WITH, PEERS)], WITH.project.root)
    found = nothing(ONE.name)
    first, *others = phases({ONE.name: (wish, found, diff(wish, found))}, ("base",))
    names = [one["operation"] for one in first["hosts"][ONE.name]]
    assert names == ["tree.placed", "mounts.active"]
    (mounts,) = (one["args"]["mounts"] for one in first["hosts"][ONE.name] if one["name"] == "data volume")
    assert ["/var/lib/postgresql", "/srv/data/var/lib/postgresql", "var-lib-postgresql.mount"] in mounts
    units = [
        one
        for phase in others
        for one in phase["hosts"].get(ONE.name, ())
        if one["operation"] == "units.converged"
    ]
    for one in units:
        started = [*one["args"]["start"], *one["args"]["restart"], *one["args"]["reload"]]
        assert not [unit for unit in started if unit.endswith(".mount")], (
            "a restart takes data away from services"
        )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """An ext4 of 300 MiB on a disk of the kernel's, mounted; its file and its device."""
    image, where = tmp_path / "disk", tmp_path / "data"
    image.touch()
    os.truncate(image, 300 << 20)
    where.mkdir()
    try:
        device = ran("losetup", "--find", "--show", str(image)).strip()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop devices here: {error.stderr}")
    try:
        ran("mkfs.ext4", "-q", device)
        ran("mount", device, str(where))
        yield image, device
    finally:
        subprocess.run(["umount", str(where)], check=False)
        subprocess.run(["losetup", "--detach", device], check=False)


def may_resize() -> bool:
    """Whether this process has CAP_SYS_RESOURCE (capability 24)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return bool(int(status.split("CapEff:")[1].split()[0], 16) >> 24 & 1)


def ran(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_file_system_fills_a_volume_that_has_grown(disk: tuple[Path, str]) -> None:
    image, device = disk
    where = str(image.parent / "data")
    check = volume.SIZE_CHECK.replace("/srv/data", where)
    (filling,) = volume_filled._inner()
    fill = str(filling.connector_arguments["_stdin"]).replace("/srv/data", where)

    def grown() -> tuple[bool, str]:
        done = subprocess.run(["bash", "-c", check], capture_output=True, text=True, timeout=30)
        return done.returncode != 0, done.stdout.strip()

    assert grown() == (False, "")
    os.truncate(image, 3 << 30)
    ran("losetup", "--set-capacity", device)
    assert grown() == (True, "the file system has 0 GiB of 3")
    if may_resize():
        subprocess.run(["bash", "-c", fill], check=True, capture_output=True, timeout=60)
    else:
        # The kernel lets nobody without CAP_SYS_RESOURCE do it while it is mounted.
        ran("umount", where)
        ran("e2fsck", "-fy", device)
        ran("resize2fs", device)
        ran("mount", device, where)
    assert grown() == (False, "")
    assert shutil.disk_usage(where).total > 2 << 30


def test_a_folder_in_place_of_a_volume_has_no_size(tmp_path: Path) -> None:
    (filling,) = volume_filled._inner()
    for text in (volume.SIZE_CHECK, str(filling.connector_arguments["_stdin"])):
        subprocess.run(["bash", "-c", text.replace("/srv/data", str(tmp_path))], check=True)
