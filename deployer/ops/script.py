"""A bash script as a pyinfra command, sent on standard input so that nothing of it is in an argument list."""

from __future__ import annotations

import shlex

from pyinfra.api import StringCommand

# Locks of commands that must not run twice at once; a restart empties the folder.
LOCKS = "/run/deploy-steps"
# What `alone` prints when another holds the lock starts so.
BUSY = "an earlier run left this at work on the machine: "


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


def alone(command: StringCommand, key: str, name: str, wait: float) -> StringCommand:
    """The command under the machine's lock `key`, so that none is started beside what a killed run left at work.

    Where the lock is not free within `wait` seconds, it prints BUSY, the name, since when, and fails.
    """
    path = shlex.quote(f"{LOCKS}/{key.replace('/', '.')}")
    inner = f"date '+%F %T %Z' >{path}; {command.get_raw_value()}"
    # -o: what the command leaves running in the background does not hold the lock.
    guarded = StringCommand(
        f"mkdir -p {LOCKS}; flock -o -w {wait:g} -E 98 {path} sh -c {shlex.quote(inner)}; code=$?;"
        f" if [ $code -eq 98 ]; then cat >/dev/null; echo {shlex.quote(BUSY + name)}, since $(cat {path}); fi;"
        " exit $code"
    )
    guarded.connector_arguments.update(command.connector_arguments)
    return guarded
