"""The one place where a failure is printed and becomes an exit code.

0 done; 1 failed; 2 bad usage or bad input, nothing was touched; 3 changes pending (plan --exit-code);
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

import click

from deployer.cli import output
from deployer.cli.options import Settings
from deployer.core.errors import DeployError


class Declined(DeployError):
    """The operator answered no."""

    def __init__(self) -> None:
        super().__init__("asking you", "you said no; nothing was changed")


def show(error: BaseException, chosen: Settings, verb: str) -> int:
    """Print what went wrong. Returns the exit code."""
    if chosen.debug and not isinstance(error, click.ClickException):
        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        return _usage(error, chosen)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _interrupted(chosen, verb)
    if isinstance(error, DeployError):
        if chosen.json:
            output.write_json("error", {**error.to_json(), "exit_code": error.exit_code})
        elif isinstance(error, Declined):
            output.note("You said no: nothing was changed.")
        else:
            _tell(str(error))
        return error.exit_code
    return _bug(error, chosen)


def _tell(text: str) -> None:
    first, *rest = text.splitlines()
    output.note(output.style("error: ", sys.stderr, fg="red", bold=True) + first)
    for line in rest:
        output.note(output.style(line, sys.stderr, bold=True) if line.startswith("next: ") else line)


def _usage(error: click.ClickException, chosen: Settings) -> int:
    ctx = getattr(error, "ctx", None)
    help_command = f"{ctx.command_path} --help" if ctx else "deploy --help"
    message = error.format_message()
    if chosen.json:
        data = {"error": "UsageError", "what": "reading the command line", "machine": None, "why": message}
        output.write_json("error", {**data, "next": help_command, "detail": "", "exit_code": 2})
    else:
        output.note(output.style("error: ", sys.stderr, fg="red", bold=True) + message)
        output.note(output.style(f"next: {help_command}", sys.stderr, bold=True))
    return 2


# What Ctrl-C leaves behind, by verb.
_LEFT = {
    "up": "What was done so far stays; the next `deploy up` continues from there.",
    "down": "What was removed so far is gone; the next `deploy down` removes the rest.",
    "app": "Where `app upgrade` had begun, the same command goes on; deploy app status says what serves.",
    "rollback": "Where it had begun, the same command goes on; deploy app status says what serves.",
}


def _interrupted(chosen: Settings, verb: str) -> int:
    left = _LEFT.get(verb, "Nothing was left half done.")
    if chosen.json:
        data = {"error": "Interrupted", "what": verb, "machine": None, "why": "stopped by Ctrl-C"}
        output.write_json("error", {**data, "next": left, "detail": "", "exit_code": 130})
    else:
        output.note(f"\nStopped by Ctrl-C. {left}")
    return 130


def _bug(error: BaseException, chosen: Settings) -> int:
    text = clean("".join(traceback.format_exception(error)))
    where = _write_log(text, chosen.root)
    summary = clean(f"{type(error).__name__}: {error}".splitlines()[0])[:300]
    if chosen.json:
        data = {"error": "Bug", "what": "running the toolkit", "machine": None, "why": summary}
        output.write_json(
            "error", {**data, "next": "rerun with --debug", "detail": str(where), "exit_code": 1}
        )
    else:
        output.note(
            output.style("error: ", sys.stderr, fg="red", bold=True)
            + f"this is a bug of the toolkit, not of your stack ({summary}); details are in {where}"
        )
        output.note(
            output.style(
                "next: run it again with --debug, and report it with that file", sys.stderr, bold=True
            )
        )
    return 1


def _write_log(text: str, root: Path) -> Path:
    """Write a log that only its owner can read, into .deploy/ of the project or a temporary folder."""
    name = time.strftime("bug-%Y%m%d-%H%M%S-") + f"{os.getpid()}.log"
    if (root / "stack.yaml").is_file():
        path = root / ".deploy" / name
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            return path
        except OSError:
            pass  # a read-only project folder: the temporary folder will do
    handle, temporary = tempfile.mkstemp(prefix="deploy-", suffix=f"-{name}")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return Path(temporary)


_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"  # PEM
    r"|AGE-SECRET-KEY-[0-9A-Z]+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # a password in a URL
    r"|\b[0-9a-f]{32,}\b"
    # Random text has all three kinds of characters; names and paths seldom have.
    r"|(?=[A-Za-z0-9_+=-]*[0-9])(?=[A-Za-z0-9_+=-]*[a-z])(?=[A-Za-z0-9_+=-]*[A-Z])[A-Za-z0-9_+=-]{16,}",
    re.DOTALL,
)
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL", re.IGNORECASE)


def clean(text: str) -> str:
    """Mask what looks like a secret, and the values of environment variables that are named like one."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return _SECRET.sub("***", text)
