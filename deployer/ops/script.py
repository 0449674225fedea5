"""A bash script as a pyinfra command, sent on standard input so that nothing of it is in an argument list."""

from __future__ import annotations

import shlex

from pyinfra.api import StringCommand


def script(text: str, *, user: str = "root", folder: str = "/") -> StringCommand:
    """Run `text` with bash, stopping at the first error, or not at all where it did not arrive whole.

    Secrets may stand in `text`; inside it hand them on by standard input or files, never as arguments.
    """
    login = "" if user == "root" else f"runuser -u {shlex.quote(user)} -- "
    command = StringCommand(f"cd {shlex.quote(folder)} && {login}bash -s")
    # Bash runs what it has read; between braces it first reads to the end. A connection that breaks halfway must not
    # leave it with half a line, and a command that reads its standard input must not swallow the next ones.
    command.connector_arguments["_stdin"] = "{ set -euo pipefail\n" + text + "\nexit\n}\n"
    return command
