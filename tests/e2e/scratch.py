"""A deployment to break and to mend, and what one who stands at its machine's console can do."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.project.bundle import Bundle
from providers.local import processes
from tests.e2e.conftest import Deployed
from tests.e2e.operator import Operator, Run
from tests.rig.argv import Recorder


@dataclass
class Scratch(Deployed):
    """first: the `up` that made it, with -v --debug, under the eyes of `recorder`; machines: where their disks are."""

    first: Run
    recorder: Recorder
    machines: Path
    name: str = "scratch-all-1"

    @property
    def disk(self) -> Path:
        """The machine's root folder, seen from outside."""
        return self.machines / self.name / "root"

    def console(self, command: str, *, check: bool = True) -> str:
        """Output of a shell command on the machine, without SSH."""
        return console(self.machines / self.name, command, check=check)

    def broken(self, *words: str, options: tuple[str, ...] = ("--json",)) -> dict[str, Any]:
        """Run `up`, which must fail with 1; its error as the operator's programs read it."""
        run = self.operator.run("up", "--yes", *words, options=options)
        assert run.code == 1, (run.code, run.out[-3000:], run.err[-3000:])
        return error(run)

    def mended(self) -> dict[str, Any]:
        """Run `up`, which must end green and leave nothing to do."""
        return mended(self.operator)

    def secrets(self) -> dict[str, str]:
        """Every value of the bundle."""
        identity = self.operator.home / ".config/deploy/identity.txt"
        return Bundle(self.folder, (), identity).values


def console(machine: Path, command: str, *, check: bool = True) -> str:
    leader = processes.leader(machine)
    assert leader, f"{machine.name} does not run"
    done = subprocess.run(
        ["nsenter", "--all", "-t", str(leader), "--", "bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not check or done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def error(run: Run) -> dict[str, Any]:
    """The error object, the last line of --json."""
    last: dict[str, Any] = json.loads(run.out.strip().splitlines()[-1])
    assert last["kind"] == "error", run.out[-2000:]
    return last


def mended(operator: Operator) -> dict[str, Any]:
    run = operator.good("up", "--yes")
    summary: dict[str, Any] = run.result
    assert all(probe["ok"] for probe in summary["probes"]), summary["probes"]
    warnings = [event for event in run.events if event["kind"] == "warning"]
    assert not warnings, warnings
    return summary


def nothing_to_do(operator: Operator) -> None:
    run = operator.run("plan", "--exit-code")
    assert run.code == 0, (run.code, run.out[-3000:], run.err[-2000:])


def pause_at(
    process: subprocess.Popen[str], reached: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Read events of a running verb until one is as wanted. The verb goes on meanwhile."""
    assert process.stdout
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if reached(seen[-1]):
            return seen
    raise AssertionError(f"it ended before: {seen[-3:]}")


def within(seconds: float, what: str, found: Callable[[], Any]) -> Any:
    """Wait until `found` gives something; a failure says what was waited for."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(0.1)
    return result
