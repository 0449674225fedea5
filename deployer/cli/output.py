"""Where output goes: results to standard output, the rest to standard error. A reader may leave early."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

import click

from deployer.core.amounts import clock as clock


def interactive() -> bool:
    """A person sits in front of it, who can be shown moving lines and asked questions."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def live() -> bool:
    """Standard output and error are terminals that can redraw lines."""
    return sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def colour(stream: IO[str]) -> bool:
    """See https://no-color.org."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, stream: IO[str], **how: Any) -> str:
    return click.style(text, **how) if colour(stream) else text


class Reader:
    """Whether somebody still reads standard output (`deploy status | head` closes it)."""

    gone = False


def discard_output(stream: IO[str] = sys.stdout) -> None:
    """Let what is still buffered go nowhere, so that the interpreter's own flush at exit is quiet too."""
    Reader.gone = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def write(text: str) -> None:
    """One line of a result, to standard output."""
    if Reader.gone:
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


def note(text: str) -> None:
    """One line for a person, to standard error."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        discard_output(sys.stderr)


def write_json(kind: str, data: Mapping[str, Any]) -> None:
    """One JSON object on a line: {"kind": KIND, ...}."""
    write(json.dumps({"kind": kind, **data}, default=str, ensure_ascii=False))


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows as aligned columns. The last column is as long as it is."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines
