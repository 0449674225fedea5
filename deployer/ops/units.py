"""systemd units of a component."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra.api import StringCommand, operation

from deployer.ops.script import script


def _quoted(names: Sequence[str]) -> str:
    return " ".join(shlex.quote(name) for name in names)


@operation()
def converged(
    stop: Sequence[str],
    enable: Sequence[str],
    start: Sequence[str],
    restart: Sequence[str],
    reload: Sequence[str],
) -> Generator[StringCommand, None, None]:
    """Stop and mask `stop`; enable `enable`; then start, restart and reload. Reading the files of units again
    comes first and is cheap. A unit that fails to start fails the operation; its journal is shown by the engine."""
    lines = ["systemctl daemon-reload"]
    if stop:
        # Masked: neither a package's script nor an init script of the same name starts it again.
        lines.append(f"systemctl mask --now --quiet {_quoted(stop)} 2>/dev/null")
        lines.append(
            f"systemctl stop {_quoted(stop)} 2>/dev/null || ! systemctl is-active --quiet {_quoted(stop)}"
        )
    if enable:
        lines.append(f"systemctl enable --quiet {_quoted(enable)}")
    if restart or start:
        # A unit that gave up earlier may try again now: its configuration has changed since.
        lines.append(f"systemctl reset-failed {_quoted([*restart, *start])} 2>/dev/null || true")
    if restart:
        lines.append(f"systemctl restart {_quoted(restart)}")
    if start:
        lines.append(f"systemctl start {_quoted(start)}")
    if reload:
        lines.append(f"systemctl reload-or-restart {_quoted(reload)}")
    yield script("\n".join(lines))
