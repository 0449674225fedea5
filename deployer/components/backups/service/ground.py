"""What the programs for files, the guard and the alarm have in common. Standard library only; lies beside them."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path("/etc/deploy/backups")
STATE = Path("/var/lib/deploy/backups")
RUN = Path("/run/deploy-backups")
PROGRAMS = Path("/usr/local/lib/deploy/backups")


class Failure(Exception):
    """what failed, why, and what to do next."""

    def __init__(self, what: str, why: str, next: str = "") -> None:
        super().__init__(f"{what}: {why}")
        self.body = {"what": what, "why": why, "next": next}


def read(path: Path, default: Any = None) -> Any:
    """JSON of a file; the default when there is none, or half a one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return default


def settings() -> dict[str, Any]:
    """What the toolkit wrote for this machine."""
    found = read(FOLDER / "settings.json")
    if not isinstance(found, dict):
        raise Failure(
            "reading the settings of backups", f"{FOLDER}/settings.json is not there", "run `deploy up`"
        )
    return found


def write(path: Path, body: Any, mode: int = 0o600) -> None:
    """The file appears whole, on the disk, or not at all."""
    # Here: many a program that reads this file writes nothing, and starts while people wait.
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(body, file, indent=1, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, mode)
        os.replace(new, path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


def run(
    what: str,
    argv: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    codes: Sequence[int] = (0,),
    next: str = "",
) -> subprocess.CompletedProcess[str]:
    """A program with a bound. Raises Failure with its last words."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired as late:
        raw = late.stderr or b""
        words = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
        raise Failure(what, f"no end after {timeout:.0f} s{last(words, ': ')}", next) from None
    except OSError as error:
        raise Failure(what, str(error), next) from None
    if done.returncode not in codes:
        why = last(done.stderr) or last(done.stdout) or f"{argv[0]} ended with {done.returncode}"
        raise Failure(what, why, next)
    return done


def last(text: str, before: str = "") -> str:
    """The last line that says something, cut to what a person reads."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return before + lines[-1][:400] if lines else ""


def iso(seconds: float) -> str:
    """2026-11-24T21:05:00Z"""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """Of a time in ISO 8601, with nanoseconds too; 0 for none. Raises ValueError."""
    if not text:
        return 0.0
    head, dot, tail = text.partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[: min(digits, 6)]}{tail[digits:]}"
    return datetime.datetime.fromisoformat(text).timestamp()


@contextlib.contextmanager
def alone(name: str, wait: float = 0) -> Iterator[bool]:
    """False when another process does the same after `wait` seconds."""
    RUN.mkdir(parents=True, exist_ok=True)
    with open(RUN / f"{name}.lock", "w") as file:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.2)
        yield True
