"""System users of the services."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra.api import StringCommand, operation

from deployer.ops.script import script


@operation()
def present(users: Sequence[Sequence[object]]) -> Generator[StringCommand, None, None]:
    """users: [name, home, [supplementary groups]]; made without log-in and without a home folder."""
    lines = []
    for name, home, groups in users:
        user = shlex.quote(str(name))
        lines.append(
            f"id -u {user} >/dev/null 2>&1 || useradd --system --user-group --no-create-home"
            f" --home-dir {shlex.quote(str(home))} --shell /usr/sbin/nologin {user}"
        )
        assert isinstance(groups, list)
        lines += [f"usermod -aG {shlex.quote(str(group))} {user}" for group in groups]
    yield script("\n".join(lines))
