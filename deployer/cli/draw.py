"""Drawing events: plain lines, JSON lines, or (cli/live.py) lines that move on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from deployer.cli import output
from deployer.cli.failures import Declined
from deployer.cli.options import Settings
from deployer.core.errors import InputError
from deployer.core.events import Event

# What the operator sees without -v.
_QUIET_KINDS = ("stage", "machine", "warning", "notice")


class Drawer:
    """A sink. Plain lines on standard error: one when a stage starts, one when it has taken a while."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.began = time.monotonic()
        # Not yet shown to somebody who is to be asked about them.
        self.changes: list[Event] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "change":
            self.changes.append(event)
        line = self.line(event)
        if line is not None:
            self.show(line, event)

    def show(self, line: str, event: Event) -> None:
        output.note(line)

    def line(self, event: Event) -> str | None:
        """The event as one line, or None when it is not for this operator."""
        failed = event.status == "failed"
        if not self.verbose:
            if event.kind == "probe":
                if not failed:
                    return None
            elif event.kind not in _QUIET_KINDS and not failed:
                return None
            # A stage of no time needs no second line.
            if event.kind == "stage" and event.status != "start" and not failed and (event.seconds or 0) < 1:
                return None
        return f"{self.elapsed():>6}  {sentence(event)}"

    def elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        return f"{minutes}:{seconds:02}"

    def ask(self, question: str) -> bool:
        """Show the changes so far, then ask. Raises Declined on no."""
        self.pause()
        for line in summary(self.changes):
            output.note(line)
        self.changes.clear()
        if not click.confirm(question, err=True):
            raise Declined
        return True

    def pause(self) -> None:
        """Stop moving: something else is written now."""

    def close(self) -> None:
        """Nothing more comes."""


class JsonDrawer(Drawer):
    """JSON lines on standard output."""

    def __call__(self, event: Event) -> None:
        output.write_json(event.kind, event.to_json())


def sentence(event: Event) -> str:
    """The event in words: "app-1: installing 61 packages: failed (12 s)"."""
    text = f"{event.machine}: {event.text}" if event.machine else event.text
    if event.kind == "warning":
        text = f"warning: {text}"
    elif event.status == "ok" and event.kind == "machine":
        pass  # its text says what is so now
    elif event.status and event.status != "start":
        # "ok" is said as "done": a stage that is over need not have changed anything.
        text += ": done" if event.status == "ok" else f": {event.status}"
    if event.seconds is not None and event.seconds >= 0.05:
        text += f" ({output.clock(event.seconds)})"
    return text


def summary(changes: list[Event]) -> list[str]:
    """What would be done, counted: a line a machine."""
    if not changes:
        return []
    counts: dict[str, dict[str, int]] = {}
    for event in changes:
        kind = f"{event.data.get('action', 'change')} {event.data.get('kind', 'thing')}"
        of_machine = counts.setdefault(event.machine or "everywhere", {})
        of_machine[kind] = of_machine.get(kind, 0) + 1
    lines = ["Changes:"]
    lines += output.table(
        [
            (machine, ", ".join(f"{kind} {count}" for kind, count in kinds.items()))
            for machine, kinds in counts.items()
        ]
    )
    return lines


def drawer(chosen: Settings) -> Drawer:
    """The one that suits where the output goes."""
    if chosen.json:
        return JsonDrawer(chosen.verbose)
    if output.live():
        from deployer.cli.live import LiveDrawer

        return LiveDrawer(chosen.verbose)
    return Drawer(chosen.verbose)


@contextmanager
def drawing(chosen: Settings) -> Iterator[Drawer]:
    """A drawer for the time of a verb; it is out of the way before a result or an error is printed."""
    made = drawer(chosen)
    try:
        yield made
    finally:
        made.close()


def confirmation(chosen: Settings, made: Drawer, yes: bool, what: str) -> Any:
    """What a flow calls to ask. Raises InputError at once when there is nobody to ask and no --yes."""
    if yes:
        return lambda question: True
    if chosen.json or not output.interactive():
        raise InputError(
            f"asking before {what}", "there is no terminal to ask on", "add --yes to agree beforehand"
        )
    return made.ask
