"""A bash script as a pyinfra command, sent on standard input so that nothing of it is in an argument list."""

from __future__ import annotations

import shlex

from pyinfra.api import StringCommand


def script(text: str, *, user: str = "root", folder: str = "/") -> StringCommand:
    """Run `text` with bash, stopping at the first error.

    Secrets may stand in `text`; inside it hand them on by standard input or files, never as arguments.
    """
    login = "" if user == "root" else f"runuser -u {shlex.quote(user)} -- "
    command = StringCommand(f"cd {shlex.quote(folder)} && {login}bash -s")
    command.connector_arguments["_stdin"] = "set -euo pipefail\n" + text + "\n"
    return command
