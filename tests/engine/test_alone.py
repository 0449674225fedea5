"""A step that a killed run left at work on a real machine is waited for, not joined by a second one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.core.machine import Deployment, Machine, MachineSpec
from providers import local
from tests.providers.contract import HOST, LOGIN, shell, wait_for_port
from tests.rig.world import NUMBER

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENT = Deployment("engine", "tests")
# The engine with one operation of ours, which notes when it begins and when it ends.
DRIVER = textwrap.dedent(
    """
    import json, sys
    from pyinfra.api import operation
    from deployer.engine import phases, steps
    from deployer.engine.hosts import Hosts
    from deployer.ops.script import script

    @operation()
    def slow(seconds):
        yield script(f"echo begin >>/root/log; sleep {seconds}; echo end >>/root/log")

    request = json.load(sys.stdin)
    phases.find = lambda name: slow
    steps.BUSY_WAIT = request["wait"]
    event = lambda **fields: print(json.dumps(fields), flush=True)
    hosts = Hosts(event)
    hosts.connect(request["connect"])
    entry = {"operation": "test/slow", "name": "test: slow", "args": {"seconds": request["seconds"]}, "timeout": 60}
    if request["step"]:
        entry["step"] = {"key": "test.slow", "check": "true", "digest": "d"}
    print(json.dumps(phases.Phases(hosts, event).apply({"phases": [{"name": "p", "hosts": {request["name"]: [entry]}}]})))
    """
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("real machines need root on Linux: sudo bin/test")
    folder = tmp_path_factory.mktemp("local")
    options = {"bridge": f"deng{NUMBER}", "subnet": f"10.217.{NUMBER}.0/24", "state_dir": str(folder)}
    provider = local.make(options, DEPLOYMENT)
    provider.prepare()
    keys = {"ssh_keys": (LOGIN.public,), "host_key": HOST.private, "host_key_public": HOST.public}
    made = provider.create_machine(DEPLOYMENT, MachineSpec("engine-all-1", ("app",), **keys))
    wait_for_port(made.address)
    yield made
    provider.delete_machine(made)


class Runs:
    def __init__(self, machine: Machine, folder: Path) -> None:
        known = folder / "known_hosts"
        known.write_text(f"{machine.address} {machine.host_key_public}\n")
        self.machine = machine
        where = {"name": machine.name, "address": machine.address, "port": 22, "user": "root"}
        self.connect = {
            "machines": [where],
            "known_hosts": [str(known)],
            "keys": [LOGIN.private],
            "timeout": 30,
        }

    def start(self, seconds: float, step: bool, wait: float = 60) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        request = {"connect": self.connect, "seconds": seconds, "step": step, "wait": wait}
        assert process.stdin
        process.stdin.write(json.dumps({**request, "name": self.machine.name}))
        process.stdin.close()
        return process

    def left_at_work(self, seconds: float, step: bool) -> None:
        """Start it and kill ourselves while it is at work."""
        process = self.start(seconds, step)
        while "begin" not in self.log():
            time.sleep(0.1)
        process.kill()
        process.wait()

    def ended(self, process: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        assert process.stdout
        lines = [json.loads(line) for line in process.stdout]
        process.wait()
        return lines[:-1], lines[-1]

    def log(self) -> list[str]:
        return shell(self.machine, "cat /root/log 2>/dev/null || true")[1].split()


@pytest.fixture
def runs(machine: Machine, tmp_path: Path) -> Runs:
    shell(machine, "rm -rf /root/log /var/lib/deploy/steps")
    return Runs(machine, tmp_path)


@pytest.mark.parametrize("step", [True, False], ids=["step", "operation"])
def test_a_second_one_waits(runs: Runs, step: bool) -> None:
    runs.left_at_work(4, step)
    events, answer = runs.ended(runs.start(0.1, step))
    assert answer == {"failed": None}
    assert runs.log() == ["begin", "end", "begin", "end"]
    notices = [event["text"] for event in events if event["kind"] == "notice"]
    if step:
        assert len(notices) == 1
        assert "test: slow, since 20" in notices[0]


@pytest.mark.parametrize("step", [True, False], ids=["step", "operation"])
def test_one_that_does_not_end_is_named(runs: Runs, step: bool) -> None:
    runs.left_at_work(8, step)
    _, answer = runs.ended(runs.start(0.1, step, wait=1))
    why = answer["failed"]["why"]
    assert "an earlier run left this at work on the machine: test: slow, since 20" in why
    assert "end it" in why
    assert runs.log() == ["begin"]
    shell(runs.machine, "pkill sleep; true")
