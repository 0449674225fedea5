"""Local machines for these tests: a bridge, a subnet and a state folder of their own, and the usual base image."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.core.machine import Deployment
from providers import local
from tests.rig.world import NUMBER, World, why_not

DEPLOYMENT = Deployment("trial", "contract")


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Options of a provider local that is ready; skips where local machines cannot be had."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("real machines need root on Linux: sudo bin/test")
    options: dict[str, object] = {
        "bridge": "dprov0",
        "subnet": "10.216.0.0/24",
        "state_dir": str(tmp_path_factory.mktemp("local")),
    }
    provider = local.make(options, DEPLOYMENT)
    if provider.missing():
        provider.prepare()
    yield options
    for machine in provider.list_machines(DEPLOYMENT):
        provider.delete_machine(machine)
    assert not Path("/sys/class/net/dprov0").exists(), "the tests left their bridge"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A bridge for a vendor's machines, apart from the one that other tests of the run may still hold; no services
    are needed on it."""
    if reason := why_not():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="deploy-vendor-", dir="/var/tmp"))
    made = World(folder, f"dvend{NUMBER}", f"10.218.{NUMBER}")
    try:
        made.provider.check()
        made.provider.prepare()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
