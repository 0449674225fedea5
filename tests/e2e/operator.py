"""The operator at the keyboard: runs bin/deploy in a project folder, as documented, and reads what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
# seconds; a first `up` on a cold computer
LONGEST = 900


@dataclass
class Run:
    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """What the verb returned: the last JSON object's data."""
        last = json.loads(self.out.strip().splitlines()[-1])
        assert last["kind"] == "result", last
        return last["data"]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.strip().splitlines()[:-1]]


@dataclass
class Operator:
    """folder: the project; home: the operator's home folder, so that no identity of the real one is used."""

    folder: Path
    inventory: str
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, *words: str, options: tuple[str, ...] = ("--json",)) -> subprocess.Popen[str]:
        verb, *rest = words
        alone = verb in ("init", "version", "secrets", "completion", "migrate", "retire") or (
            verb == "adopt" and "--from" in rest
        )
        target = [] if alone else ["--provider", self.inventory]
        argv = [
            str(CHECKOUT / "bin" / "deploy"),
            "--project",
            str(self.folder),
            *options,
            verb,
            *target,
            *rest,
        ]
        environment = {**os.environ, "HOME": str(self.home), **self.environment}
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd="/",
        )

    def run(self, *words: str, options: tuple[str, ...] = ("--json",), timeout: float = LONGEST) -> Run:
        process = self.start(*words, options=options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(
                f"{words} did not end within {timeout} s:\n{out[-3000:]}\n{err[-3000:]}"
            ) from None
        return Run(process.returncode, out, err)

    def good(self, *words: str, options: tuple[str, ...] = ("--json",), timeout: float = LONGEST) -> Run:
        done = self.run(*words, options=options, timeout=timeout)
        assert done.code == 0, (
            f"deploy {' '.join(words)} ended with {done.code}:\n{done.out[-4000:]}\n{done.err[-4000:]}"
        )
        return done

    def on(self, machine: str, command: str, *, code: int = 0) -> str:
        """Standard output of a command on a machine, through `deploy exec`."""
        run = self.run("exec", "--machine", machine, "--", "bash", "-c", command)
        (one,) = run.result
        assert one["code"] == code, one
        return str(one["stdout"])

    def secret(self, name: str) -> str:
        shown = self.run("secrets", "show", name, options=())
        assert shown.code == 0, shown.err
        return shown.out.strip()

    def restart(self, machine: str) -> None:
        """Reboot a machine and wait until it answers as another boot."""
        read = "cat /proc/sys/kernel/random/boot_id; cat /proc/1/stat | cut -d' ' -f22"
        before = self.on(machine, read)
        self.on(machine, "systemd-run --on-active=1 --timer-property=AccuracySec=100ms systemctl reboot")
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            time.sleep(1)
            run = self.run("exec", "--machine", machine, "--", "bash", "-c", read)
            if run.code == 0 and run.result[0]["stdout"] != before:
                return
        raise AssertionError(f"{machine} did not come back within 90 s")

    def inbox(self, kind: str, to: str) -> str:
        """Text of the newest caught message of the kind to `to`; waits for it."""
        run = self.good("inbox", f"--{kind}", "--to", to, "--last", "1", "--wait", "20")
        assert run.result, f"no {kind} to {to}"
        return str(run.result[-1]["text"])
