"""What a machine says of itself, and what follows from it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deployer.components.base.actions import (
    Certificate,
    Disk,
    HostStatus,
    notices,
    parse_status,
    problems,
    status_script,
)
from deployer.core.errors import DeployError

GIB = 1 << 30


def load() -> ModuleType:
    import deployer.components.base

    path = Path(deployer.components.base.__file__).parent / "service" / "status.py"
    found = importlib.util.spec_from_file_location("deploy_status", path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules["deploy_status"] = module
    found.loader.exec_module(module)
    return module


status: Any = load()

MOUNTS = """\
25 30 0:23 / /proc rw,nosuid - proc proc rw
26 30 0:5 / /dev rw - devtmpfs udev rw
30 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
31 30 254:16 / /srv/my\\040data rw - xfs /dev/vdb rw
32 30 254:1 /var/lib/x /mnt/bound rw shared:1 - ext4 /dev/vda1 rw
33 30 0:40 / /run rw - tmpfs tmpfs rw
34 30 0:55 / /var/lib/containers/storage/overlay/ab/merged rw - overlay overlay rw
35 30 254:15 / /boot/efi rw - vfat /dev/vda15 rw
36 30 254:1 / /run/host/incoming ro - ext4 /dev/vda1 rw
"""


def test_each_real_filesystem_counts_once() -> None:
    assert status.mounts(MOUNTS) == ["/", "/boot/efi", "/srv/my data"]


def test_the_root_of_a_container_is_an_overlay_and_counts() -> None:
    own = "30 1 0:55 / / rw - overlay overlay rw\n"
    # What its host lends it is no disk of its own.
    lent = "31 30 254:0 /srv/cache/uv /var/cache/deploy/uv rw - ext4 /dev/vda rw\n"
    assert status.mounts(own + lent) == ["/"]


def test_subvolumes_count_as_one() -> None:
    table = "30 1 0:31 /@ / rw - btrfs /dev/vda2 rw\n31 30 0:31 /@home /home rw - btrfs /dev/vda2 rw\n"
    assert status.mounts(table) == ["/"]


@pytest.mark.parametrize(
    ("total", "free", "available", "percent"),
    [(100, 100, 100, 0), (100, 0, 0, 100), (1000, 205, 200, 80), (100, 25, 20, 79), (0, 0, 0, 0)],
)
def test_percentages_are_df_s(total: int, free: int, available: int, percent: int) -> None:
    assert status.percent(total, free, available) == percent


def test_the_script_runs_and_its_answer_is_understood() -> None:
    done = subprocess.run(["bash", "-s"], input=status_script(), capture_output=True, text=True, timeout=30)
    if "systemctl" in done.stderr or "systemd-detect-virt" in done.stderr:
        pytest.skip("no systemd on this machine")
    assert any(disk.mount == "/" for disk in parse_status(done.stdout).disks)


def test_a_disk_at_eighty_percent_is_a_problem() -> None:
    disks = (Disk("/", 100 * GIB, 20 * GIB, 80, 1), Disk("/srv", GIB, GIB, 79, 81))
    assert problems(HostStatus(disks)) == (
        "disk / is 80 % full (20.0 GiB free)",
        "disk /srv has 81 % of its inodes in use",
    )


@pytest.mark.parametrize(
    ("kind", "days", "problem"),
    [
        ("leaf", 20, ""),
        ("leaf", 19, "certificate web ends in 19 days"),
        ("leaf", -1, "certificate web has ended or is missing"),
        ("issuer", 59, "this machine's issuer ends in 59 days"),
        ("root", 60, ""),
        ("root", 3, "the stack's CA ends in 3 days"),
    ],
)
def test_certificates_are_reported_ahead(kind: str, days: int, problem: str) -> None:
    found = problems(HostStatus(certificates=(Certificate("web", kind, days),)))
    assert found == ((problem,) if problem else ())


def test_a_reboot_and_failed_units_are_told_and_fail_nothing() -> None:
    found = HostStatus(reboot=("linux-image-amd64",), failed_units=("a.service", "b.timer"))
    assert problems(found) == ()
    assert notices(found) == ("reboot needed (linux-image-amd64)", "failed units: a.service, b.timer")


def test_another_answer_names_the_machine() -> None:
    answer = {"disks": [], "certificates": [], "reboot": [], "failed_units": []}
    assert parse_status(f"a warning\n{json.dumps(answer)}\n") == HostStatus()
    with pytest.raises(DeployError, match="on demo-all-1"):
        parse_status("bash: python3: command not found", "demo-all-1")
