"""Provider hetzner, broken off at every call: one machine in the end, and nothing left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployer.core.errors import DeployError
from tests.providers.hetzner_rig import DEPLOYMENT, SPEC, VOLUME, WHOLE, Vendor, vendor
from tests.rig.hetzner.faults import AFTER, BEFORE, Fault

__all__ = ["vendor"]


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """Every call with --all; else every third, which still meets each part of the work."""
    return 1 if request.config.getoption("--all") else 3


ROOT = Path(__file__).resolve().parents[2]


def calls_of(vendor: Vendor, work: Callable[[], object]) -> int:
    """How many calls it makes when nothing goes wrong."""
    vendor.fake.calls.clear()
    work()
    vendor.fake.settle()
    return len(vendor.fake.calls)


def wipe(vendor: Vendor) -> None:
    provider = vendor.provider()
    for machine in provider.list_machines(DEPLOYMENT):
        provider.delete_machine(machine)
    provider.delete_data(DEPLOYMENT)
    assert vendor.everything() == []


def create(vendor: Vendor) -> None:
    vendor.provider().create_machine(DEPLOYMENT, SPEC)


def delete(vendor: Vendor) -> None:
    provider = vendor.provider()
    for machine in provider.list_machines(DEPLOYMENT):
        provider.delete_machine(machine)


@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_create_that_failed_at_any_call_is_continued_to_one_machine(vendor: Vendor, when: str) -> None:
    total = calls_of(vendor, lambda: create(vendor))
    assert total > 15
    for index in range(total):
        wipe(vendor)
        vendor.fake.calls.clear()
        vendor.fake.faults.error(422, "invalid_input", at=index, when=when)
        with pytest.raises(DeployError, match="invalid_input"):
            create(vendor)
        vendor.fake.faults.clear()
        create(vendor)
        assert vendor.ours() == WHOLE, f"failed {when} call {index}"
        provider = vendor.provider()
        (machine,) = provider.list_machines(DEPLOYMENT)
        assert list(provider.drift(machine, SPEC)) == []
    assert vendor.everything() == vendor.fake.labelled(deploy_stack="trial")


@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_create_that_failed_at_any_call_is_taken_down_completely(
    vendor: Vendor, when: str, stride: int
) -> None:
    total = calls_of(vendor, lambda: create(vendor))
    for index in range(0, total, stride):
        wipe(vendor)
        vendor.fake.calls.clear()
        vendor.fake.faults.error(422, "invalid_input", at=index, when=when)
        with pytest.raises(DeployError):
            create(vendor)
        vendor.fake.faults.clear()
        delete(vendor)
        assert set(vendor.everything()) <= {VOLUME}, f"failed {when} call {index}"


@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_delete_that_failed_at_any_call_is_finished_by_the_next(
    vendor: Vendor, when: str, stride: int
) -> None:
    create(vendor)
    total = calls_of(vendor, lambda: delete(vendor))
    for index in range(0, total, stride):
        create(vendor)
        vendor.fake.calls.clear()
        vendor.fake.faults.error(422, "invalid_input", at=index, when=when)
        with pytest.raises(DeployError):
            delete(vendor)
        vendor.fake.faults.clear()
        delete(vendor)
        assert vendor.everything() == [VOLUME], f"failed {when} call {index}"


@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_an_answer_that_is_lost_once_anywhere_does_no_harm(vendor: Vendor, when: str, stride: int) -> None:
    total = calls_of(vendor, lambda: create(vendor))
    for index in range(0, total, stride):
        wipe(vendor)
        vendor.fake.calls.clear()
        lost = vendor.fake.faults.reset(at=index, when=when)
        create(vendor)
        assert lost.struck == 1
        vendor.fake.faults.clear()
        assert vendor.ours() == WHOLE, f"lost {when} call {index}"
    removing = calls_of(vendor, lambda: delete(vendor))
    for index in range(0, removing, stride):
        create(vendor)
        vendor.fake.calls.clear()
        lost = vendor.fake.faults.reset(at=index, when=when)
        delete(vendor)
        assert lost.struck == 1
        vendor.fake.faults.clear()
        assert vendor.everything() == [VOLUME], f"lost {when} call {index}"


@pytest.mark.parametrize("kind", ["servers", "volumes", "firewalls", "networks", "ssh_keys", "primary_ips"])
def test_a_list_that_lags_behind_makes_no_second_one(
    vendor: Vendor, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor.fake.faults.lag[kind] = 0.6
    vendor.fake.faults.reset(method="POST", path=f"/{kind}")
    create(vendor)
    assert vendor.ours() == WHOLE


def test_a_server_that_lists_do_not_show_yet_is_listed(vendor: Vendor) -> None:
    vendor.fake.faults.lag["servers"] = 60
    vendor.provider().create_machine(DEPLOYMENT, SPEC)
    (machine,) = vendor.provider().list_machines(DEPLOYMENT)
    assert machine.id
    vendor.provider().delete_machine(machine)
    assert vendor.everything() == [VOLUME]


VICTIM = """
import json, sys
task = json.load(sys.stdin)
sys.path.insert(0, task["root"])
from deployer.core.machine import Deployment, MachineSpec, Opening, Size
from providers import hetzner
DEPLOYMENT, SPEC = eval(task["deployment"]), eval(task["spec"])
provider = hetzner.make({"endpoint": task["endpoint"]}, DEPLOYMENT)
print("ready", flush=True)
if task["method"] == "create":
    provider.create_machine(DEPLOYMENT, SPEC)
else:
    for machine in provider.list_machines(DEPLOYMENT):
        provider.delete_machine(machine)
"""


def run_and_kill(vendor: Vendor, method: str, index: int, when: str) -> bool:
    """Run it in a process of its own that is killed (-9) at one call. False when it made fewer calls."""
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert victim.stdin
    vendor.fake.calls.clear()
    fault: Fault = vendor.fake.faults.kill(index, when, lambda: os.kill(victim.pid, signal.SIGKILL))
    # repr leaves the host key out.
    spec = f"{SPEC!r}"[:-1] + f", host_key={SPEC.host_key!r})"
    task = {"root": str(ROOT), "endpoint": vendor.fake.endpoint, "method": method}
    victim.stdin.write(json.dumps({**task, "deployment": repr(DEPLOYMENT), "spec": spec}))
    victim.stdin.close()
    assert victim.wait(60) in (0, -9)
    vendor.fake.faults.clear()
    return fault.struck == 1


def test_a_process_killed_at_a_call_is_continued_by_the_next(
    vendor: Vendor, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    # Every call with --all; else a few, since each is a process of its own.
    stride = 1 if request.config.getoption("--all") else 8
    tried = 0
    for when in (BEFORE, AFTER):
        index = 3 if stride > 1 else 0
        while run_and_kill(vendor, "create", index, when):
            create(vendor)
            assert vendor.ours() == WHOLE, f"killed {when} call {index}"
            wipe(vendor)
            tried, index = tried + 1, index + stride
        wipe(vendor)
        index, killed = 1 if stride > 1 else 0, True
        while killed:
            create(vendor)
            killed = run_and_kill(vendor, "delete", index, when)
            delete(vendor)
            assert vendor.everything() == [VOLUME], f"killed {when} call {index}"
            tried, index = tried + killed, index + stride
    with capsys.disabled():
        print(f" [killed at {tried} points]", end="")
    assert tried > 5
