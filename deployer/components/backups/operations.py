"""Steps of `backups`, carried out by the engine."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra.api import StringCommand, operation

from deployer.ops.script import script


@operation()
def backups_program(program: str, words: Sequence[str], because: str) -> Generator[StringCommand, None, None]:
    """Run one of the component's programs. because: a digest of what it depends on, so that it runs again."""
    yield script(shlex.join(["python3", f"/usr/local/lib/deploy/backups/{program}", *words]))


@operation()
def guard_active() -> Generator[StringCommand, None, None]:
    """Ask the guard; what it said last is shown when it refuses."""
    unit = "deploy-guard.service"
    yield script(f"systemctl start {unit} && exit 0\njournalctl --no-pager -o cat -n 5 -u {unit} >&2; exit 1")
