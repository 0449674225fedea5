"""Phases: pyinfra's State, used once for each (stage, component).

pyinfra prepares everything before it runs anything, orders hosts by index and lets a State run once. So a
phase adds its operations, runs them, stops if any machine failed, and resets the State. Only this file
touches those internals; tests/engine pins what it relies on.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from typing import Any

import gevent
from paramiko import SSHException
from pyinfra.api import BaseStateCallback, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta, add_op
from pyinfra.api.operations import run_ops

from deployer.engine import steps
from deployer.engine.hosts import EngineError, Hosts
from deployer.engine.steps import bound, find, single, step_of
from deployer.ops.script import BUSY

# Seconds a component may take from started to green.
SETTLE = 60.0
# Seconds until a step that waits is asked what for, and from one answer to the next.
WATCH = (5.0, 20.0)


class Phases:
    def __init__(self, hosts: Hosts, event: Callable[..., None]) -> None:
        self._hosts = hosts
        self._event = event

    def apply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run request["phases"] in order. Returns {"failed": null} or the first failure:
        {"machine", "phase", "step", "why", "detail"}; phases after it did not run."""
        for phase in request["phases"]:
            failure = self._phase(phase)
            if failure:
                return {"failed": failure}
        return {"failed": None}

    def _phase(self, phase: dict[str, Any]) -> dict[str, Any] | None:
        started = time.monotonic()
        self._event(
            kind="stage",
            text=phase["name"],
            status="start",
            data={"machines": sorted({*phase["hosts"], *phase.get("beside", {})})},
        )
        failure = self._operations(phase) or self._settle(phase)
        self._event(
            kind="stage",
            text=phase["name"],
            status="failed" if failure else "ok",
            seconds=round(time.monotonic() - started, 2),
        )
        return failure

    # --- operations ---

    def _operations(self, phase: dict[str, Any]) -> dict[str, Any] | None:
        state = self._hosts.state
        assert state is not None
        added: list[tuple[Host, dict[str, Any], OperationMeta]] = []
        narrator = _Narrator(self._event)
        state.callback_handlers[:] = [narrator]
        for name, operations in phase["hosts"].items():
            host = self._hosts.host(name)
            for entry in operations:
                # Named: pyinfra logs the arguments of an operation without a name; and bound beforehand, so that
                # an argument may be called like one of pyinfra's own.
                function = self._function(entry, host)
                meta = add_op(state, function, host=host, name=entry["name"], _timeout=entry["timeout"])[host]
                narrator.names[host.name, meta._hash] = entry["name"]
                added.append((host, entry, meta))
        beside = [
            gevent.spawn(self._beside, self._hosts.host(name), entry, phase)
            for name, operations in phase.get("beside", {}).items()
            for entry in operations
        ]
        try:
            # no_wait: each machine goes through the phase at its own pace; the phase itself is the barrier.
            broken = _quietly(lambda: run_ops(state, no_wait=True))
        finally:
            _reset(state)
            gevent.joinall(beside)
        for host, entry, meta in added:
            if meta.is_complete() and meta.did_succeed():
                continue
            output = meta._combined_output
            lines = output.output_lines if output else []
            why = _why(lines) if meta.is_complete() else "; ".join(broken) or "the connection broke"
            return self._failure(host.name, phase, entry, why, lines)
        return next((job.value for job in beside if job.value), None)

    def _function(self, entry: dict[str, Any], host: Host) -> Any:
        """The operation, one at a time on its machine, whoever started it."""
        function = bound(find(entry["operation"]), entry["args"])
        if "step" not in entry:
            return single(function, entry["operation"], entry["name"], steps.BUSY_WAIT)

        def waiting(busy: str) -> None:
            text = f"{busy}; waiting for its end, at most {steps.BUSY_WAIT:g} s"
            self._event(kind="notice", text=text, machine=host.name)

        # step_of has waited already.
        function = single(function, entry["step"]["key"], entry["name"], 1)
        if entry["step"].get("progress"):
            function = steps.watched(function, lambda: self._watch(entry, host.name))
        return step_of(function, entry["step"], entry["name"], host, waiting)

    def _watch(self, entry: dict[str, Any], machine: str) -> None:
        """Say what a step waits for, for as long as it does: after a few seconds, then where it is another."""
        said, pause = "", WATCH[0]
        while True:
            gevent.sleep(pause)
            try:
                _, out, _ = self._hosts.execute(machine, "bash -s", entry["step"]["progress"].encode(), 20)
            except EngineError:
                # The step itself meets the same and says it better.
                return
            line = (out.strip().splitlines() or [""])[-1]
            if line and line != said:
                self._event(kind="notice", text=f"{entry['name']}: {line}", machine=machine)
                said, pause = line, WATCH[1]

    def _beside(self, host: Host, entry: dict[str, Any], phase: dict[str, Any]) -> dict[str, Any] | None:
        """Run a step while the phase's operations run on the same machine; outside of pyinfra's State, which has one
        operation a machine at a time."""
        began = time.monotonic()
        self._event(kind="step", text=entry["name"], machine=host.name, status="start")
        failure = None
        for command in self._function(entry, host)._inner():
            stdin = command.connector_arguments["_stdin"]
            try:
                ok, output = host.run_shell_command(command, _stdin=stdin, _timeout=entry["timeout"])
            except (TimeoutError, OSError, SSHException) as error:
                failure = self._failure(host.name, phase, entry, str(error) or type(error).__name__, [])
                break
            if not ok:
                failure = self._failure(
                    host.name, phase, entry, _why(output.output_lines), output.output_lines
                )
                break
        self._event(
            kind="step",
            text=entry["name"],
            machine=host.name,
            status="failed" if failure else "ok",
            seconds=round(time.monotonic() - began, 2),
        )
        return failure

    def _failure(
        self, machine: str, phase: dict[str, Any], entry: dict[str, Any], why: str, lines: list[str]
    ) -> dict[str, Any]:
        return {
            "machine": machine,
            "phase": phase["name"],
            "step": entry["name"],
            "why": why,
            "detail": "\n".join(lines[-25:]),
            "journal": self._journal(machine, phase),
        }

    # --- green, then remembered ---

    def _settle(self, phase: dict[str, Any]) -> dict[str, Any] | None:
        """Wait until the probes of the phase are green, then write the applied digests."""
        jobs = {
            name: gevent.spawn(self._settle_one, name, phase, probes)
            for name, probes in phase.get("probes", {}).items()
        }
        gevent.joinall(list(jobs.values()))
        for job in jobs.values():
            if job.value:
                return dict(job.value)
        for name, digests in phase.get("applied", {}).items():
            self._hosts.execute(name, "python3 -c " + shlex.quote(_WRITE), json.dumps(digests).encode(), 20)
        return None

    def _settle_one(self, name: str, phase: dict[str, Any], probes: dict[str, Any]) -> dict[str, Any] | None:
        deadline = time.monotonic() + SETTLE
        while probes:
            try:
                found = self._hosts.remote(name, "observe", {"probes": probes}, 60)["probes"]
            except EngineError as error:
                found = {key: {"ok": False, "detail": error.why} for key in probes}
            red = {key: result for key, result in found.items() if not result["ok"]}
            if not red:
                break
            if time.monotonic() > deadline:
                key, result = next(iter(red.items()))
                return {
                    "machine": name,
                    "phase": phase["name"],
                    "step": f"probe {key}",
                    "why": f"not green {SETTLE:g} s after it was started: {result['detail'] or 'no answer'}",
                    "detail": "",
                    "journal": self._journal(name, phase),
                }
            gevent.sleep(0.3)
        return None

    def _journal(self, name: str, phase: dict[str, Any]) -> str:
        """The last lines that the phase's services wrote, and the state of those that are not active."""
        units = phase.get("journal", {}).get(name, [])
        if not units:
            return ""
        listed = " ".join(shlex.quote(unit) for unit in units)
        command = (
            f"systemctl list-units --no-legend --plain --state=failed,activating -- {listed}; "
            + "journalctl --no-pager -o short --since=-15min -n 15 "
            + " ".join("-u " + shlex.quote(unit) for unit in units)
        )
        try:
            return self._hosts.execute(name, command, b"", 15)[1]
        except EngineError as error:
            return f"(its journal cannot be read: {error.why})"


_WRITE = """
import json, os, sys
os.makedirs("/var/lib/deploy/applied", exist_ok=True)
for name, digests in json.load(sys.stdin).items():
    path = "/var/lib/deploy/applied/" + name
    with open(path + ".new", "w") as file:
        json.dump(digests, file); file.flush(); os.fsync(file.fileno())
    os.replace(path + ".new", path)
"""


def _why(lines: list[str]) -> str:
    busy = next((line for line in lines if line.startswith(BUSY)), "")
    return (
        f"{busy}; it did not end. See there what hangs (ps -ef) and end it" if busy else "the command failed"
    )


def _reset(state: State) -> None:
    """Make the State usable again, keeping its connections."""
    for host in state.inventory:
        host.op_hash_order.clear()
        state.ops[host] = {}
        host.executing_op_hash = host.nested_executing_op_hash = None
        host.in_op = False
    state.op_meta.clear()
    state.is_executing = False


def _quietly(work: Callable[[], None]) -> list[str]:
    """Do it; what broke in its greenlets, in words, instead of tracebacks on the terminal. Failed commands are not
    among them: those are read from the operations' results."""
    broken: list[str] = []

    def note(context: object, kind: type[BaseException], value: BaseException, trace: object) -> None:
        if not isinstance(value, PyinfraError):
            broken.append(f"{kind.__name__}: {value}")

    hub = gevent.get_hub()
    kept, hub.print_exception = hub.print_exception, note
    try:
        work()
    finally:
        hub.print_exception = kept
    return broken


class _Narrator(BaseStateCallback):
    """Turns pyinfra's callbacks into events. pyinfra declares them static and calls them on an instance."""

    def __init__(self, event: Callable[..., None]) -> None:
        self._event = event
        self._started: dict[tuple[str, str], float] = {}
        # By machine and operation: pyinfra names an operation by its place, which several machines share.
        self.names: dict[tuple[str, str], str] = {}

    def operation_host_start(self, state: State, host: Host, op_hash: str) -> None:  # type: ignore[override]
        self._started[host.name, op_hash] = time.monotonic()
        if op_hash in state.ops[host]:
            self._event(kind="step", text=self.names[host.name, op_hash], machine=host.name, status="start")

    def operation_host_success(self, state: State, host: Host, op_hash: str, retry_count: int = 0) -> None:  # type: ignore[override]
        self._done(state, host, op_hash, "ok")

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        self._done(state, host, op_hash, "failed")

    def _done(self, state: State, host: Host, op_hash: str, status: str) -> None:
        seconds = time.monotonic() - self._started.get((host.name, op_hash), time.monotonic())
        self._event(
            kind="step",
            text=self.names[host.name, op_hash],
            machine=host.name,
            status=status,
            seconds=round(seconds, 2),
        )
