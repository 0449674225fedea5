"""The user data of a first boot: what it says, and that a volume with data is never formatted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer.core.machine import MachineSpec
from providers import cloudinit

SPEC = MachineSpec(
    "trial-app-1",
    ("app",),
    ssh_keys=("ssh-ed25519 AAAA operator",),
    host_key="-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n",
    host_key_public="ssh-ed25519 BBBB",
)


def parsed(spec: MachineSpec) -> dict[str, Any]:
    text = cloudinit.user_data(spec)
    assert text.startswith("#cloud-config\n")
    value: dict[str, Any] = yaml.safe_load(text)
    return value


def test_the_host_key_is_ours_and_the_only_one() -> None:
    config = parsed(SPEC)
    assert config["ssh_keys"] == {
        "ed25519_private": SPEC.host_key,
        "ed25519_public": SPEC.host_key_public + "\n",
    }
    assert config["ssh_deletekeys"] is True
    assert config["ssh_genkeytypes"] == ["ed25519"]


def test_root_logs_in_with_the_given_keys_and_no_password() -> None:
    config = parsed(SPEC)
    assert config["users"] == [
        {"name": "root", "lock_passwd": True, "ssh_authorized_keys": ["ssh-ed25519 AAAA operator"]}
    ]
    assert config["disable_root"] is False
    assert "ssh_pwauth" not in config


def test_without_a_volume_no_disk_is_touched() -> None:
    config = parsed(SPEC)
    assert not {"bootcmd", "runcmd", "fs_setup", "disk_setup", "mounts"} & set(config)
    assert "mkfs" in str(parsed(MachineSpec("trial-database-1", ("database",), volume=10))["bootcmd"])


def test_it_fits_what_vendors_take() -> None:
    keys = tuple(f"ssh-ed25519 {'A' * 68} operator{number}@example.org" for number in range(20))
    spec = MachineSpec(
        "trial-all-1", ("app",), volume=10, ssh_keys=keys, host_key="k" * 420, host_key_public="p" * 80
    )
    # EC2 takes 16 KiB, Hetzner 32 KiB.
    assert len(cloudinit.user_data(spec).encode()) < 16 << 10


class Disk:
    """A file as a block device, with the script that mounts it."""

    def __init__(self, folder: Path) -> None:
        self.where = folder / "data"
        image = folder / "image"
        with image.open("wb") as stream:
            stream.truncate(32 << 20)
        self.device = self.run("losetup", "--find", "--show", str(image)).strip()
        self.link = folder / "volume-1"
        self.link.symlink_to(self.device)
        # The script writes /etc/fstab and asks systemd, which is not for this computer.
        stand = folder / "bin"
        stand.mkdir()
        for name in ("systemctl", "grep"):
            (stand / name).write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
            (stand / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{stand}:{os.environ['PATH']}"}

    def run(self, *command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def boot(self, patience: int = 2) -> int:
        script = cloudinit.mount_script((str(self.link.parent / "volume-*"),), patience, str(self.where))
        return subprocess.run(["sh", "-c", script], env=self.environment, check=False, timeout=60).returncode

    def close(self) -> None:
        subprocess.run(["umount", str(self.where)], check=False, capture_output=True)
        subprocess.run(["losetup", "--detach", self.device], check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    needed = ("losetup", "mkfs.ext4", "blkid", "resize2fs", "mountpoint")
    if os.geteuid() != 0 or not all(shutil.which(name) for name in needed):
        pytest.skip(f"needs root and {', '.join(needed)}")
    try:
        made = Disk(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop devices here: {error.stderr.strip()}")
    yield made
    made.close()


def test_an_empty_volume_is_formatted_and_mounted_once(disk: Disk) -> None:
    assert disk.boot() == 0
    (disk.where / "note").write_text("kept", encoding="utf-8")
    assert disk.boot() == 0
    disk.run("umount", str(disk.where))
    assert disk.boot() == 0
    assert (disk.where / "note").read_text(encoding="utf-8") == "kept"


def test_a_volume_with_something_else_on_it_is_left_alone(disk: Disk) -> None:
    disk.run("mkfs.ext4", "-q", "-L", "other", disk.device)
    before = disk.run("blkid", "-p", disk.device)
    assert disk.boot() == 1
    assert disk.run("blkid", "-p", disk.device) == before


def test_a_volume_that_comes_late_is_waited_for(disk: Disk) -> None:
    disk.link.unlink()
    waiting = subprocess.Popen(["sh", "-c", f"sleep 1; ln -s {disk.device} {disk.link}"])
    assert disk.boot(patience=20) == 0
    assert waiting.wait(5) == 0
    assert os.path.ismount(disk.where)
