"""Giving the lease back: a shell command on the machine, run here in a folder of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from deployer.flow.leasing import release_command

OWN, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.mark.parametrize(("lies", "left"), [(OWN, False), (OTHER, True)])
def test_only_our_own_lease_is_taken_away(tmp_path: Path, lies: str, left: bool) -> None:
    lease = tmp_path / "lease.json"
    # A holder may be called anything; the id alone counts.
    lease.write_text(json.dumps({"id": lies, "holder": "ops@desk", "pid": 7}), encoding="utf-8")
    subprocess.run(["bash", "-c", release_command(OWN, str(tmp_path))], check=False, timeout=10)
    assert lease.exists() is left


def test_it_waits_for_who_is_about_to_write_it(tmp_path: Path) -> None:
    lease = tmp_path / "lease.json"
    lease.write_text(json.dumps({"id": OWN}), encoding="utf-8")
    with subprocess.Popen(["flock", str(tmp_path / "lease.lock"), "cat"], stdin=subprocess.PIPE) as writing:
        subprocess.run(["bash", "-c", f"until ! flock -n {tmp_path}/lease.lock true; do :; done"], timeout=10)
        release = subprocess.Popen(["bash", "-c", release_command(OWN, str(tmp_path))])
        with pytest.raises(subprocess.TimeoutExpired):
            release.wait(0.3)
        assert lease.exists()
        assert writing.stdin
        writing.stdin.close()
    assert release.wait(10) == 0
    assert not lease.exists()
