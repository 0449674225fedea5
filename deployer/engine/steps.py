"""Operations and steps as pyinfra runs them: found by name, bound to their arguments, one at a time on a machine."""

from __future__ import annotations

import importlib
import json
import shlex
import time
from collections.abc import Callable, Generator
from typing import Any

import gevent
from pyinfra.api import StringCommand, operation
from pyinfra.api.host import Host

from deployer.ops.script import BUSY, alone, script

# Seconds that an operation waits for itself, left at work on the machine by a run that was killed.
BUSY_WAIT = 300.0


def find(name: str) -> Any:
    """ "tree.placed" is deployer.ops.tree.placed; "database/role" is deployer.components.database.operations.role."""
    if "/" in name:
        component, function = name.split("/")
        return getattr(importlib.import_module(f"deployer.components.{component}.operations"), function)
    module, function = name.split(".")
    return getattr(importlib.import_module(f"deployer.ops.{module}"), function)


def bound(function: Any, arguments: dict[str, Any]) -> Any:
    @operation()
    def bound() -> Generator[Any, None, None]:
        yield from function._inner(**arguments)

    return bound


def single(function: Any, key: str, name: str, wait: float) -> Any:
    """The operation, whose commands wait for those of the same key that another run left at work on the machine."""

    @operation()
    def waiting_operation() -> Generator[Any, None, None]:
        for command in function._inner():
            yield alone(command, key, name, wait)

    return waiting_operation


def watched(function: Any, watch: Callable[[], None]) -> Any:
    """The operation, with `watch` running beside it."""

    @operation()
    def seen() -> Generator[Any, None, None]:
        job = gevent.spawn(watch)
        try:
            yield from function._inner()
        finally:
            job.kill(block=False)

    return seen


def step_of(
    function: Any, step: dict[str, Any], name: str, host: Host, waiting: Callable[[str], None]
) -> Any:
    """The operation, skipped when its check passes and it was done with the same arguments, and marked when done.

    The check runs now, after files were written, not only when the plan was made.
    """
    path = f"/var/lib/deploy/steps/{step['key']}"
    # It reads its input in either case: writing to a command that has ended already breaks this step.
    look = StringCommand(
        f'if test "$(cat {shlex.quote(path)} 2>/dev/null)" = {shlex.quote(_marker(step["digest"]))};'
        " then exec bash -s; fi; cat >/dev/null; exit 1"
    )
    probe = alone(look, step["key"], name, 0)

    @operation()
    def checked() -> Generator[Any, None, None]:
        deadline = time.monotonic() + BUSY_WAIT
        told = False
        while True:
            done, output = host.run_shell_command(probe, _stdin=step["check"], _timeout=60)
            if done:
                return
            busy = next((line for line in output.stdout_lines if line.startswith(BUSY)), "")
            if not busy or time.monotonic() > deadline:
                break
            if not told:
                waiting(busy)
            told = True
            gevent.sleep(1)
        # Where it is still at work, the first command says so and fails.
        yield from function._inner()
        yield script(
            f"mkdir -p $(dirname {shlex.quote(path)})\n"
            f"printf %s {shlex.quote(_marker(step['digest']))} > {shlex.quote(path)}.new\n"
            f"mv {shlex.quote(path)}.new {shlex.quote(path)}"
        )

    return checked


def _marker(digest: str) -> str:
    return json.dumps({"digest": digest})
