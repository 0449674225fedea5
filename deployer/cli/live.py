"""Progress on a terminal: finished stages stay, the running one moves below them. Imported only there."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from deployer.cli import output
from deployer.cli.draw import Drawer, sentence
from deployer.core.events import Event


@dataclass
class Doing:
    """A machine's present step."""

    text: str
    began: float = field(default_factory=time.monotonic)


class LiveDrawer(Drawer):
    """Draws on standard error with rich."""

    def __init__(self, verbose: bool) -> None:
        super().__init__(verbose)
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._stages: dict[str, float] = {}
        self._machines: dict[str, Doing] = {}
        self._spinner = Spinner("line")
        self._live: Live | None = None
        self._resume()

    def __call__(self, event: Event) -> None:
        if event.kind == "stage":
            self._stage(event)
        elif event.kind in ("step", "machine") and event.machine:
            self._step(event)
        if self._live is None:
            self._resume()
        super().__call__(event)

    def line(self, event: Event) -> str | None:
        # The running stage is in the moving part.
        if event.kind == "stage" and event.status == "start":
            return None
        if event.kind == "stage":
            return sentence(event)
        if event.kind == "machine" and event.status == "start":
            return None
        return super().line(event)

    def show(self, line: str, event: Event) -> None:
        if event.kind == "stage":
            text = self._stage_line(event)
        else:
            text = Text("    " + sentence(event), style=_STYLES.get(event.kind, ""))
        if event.status == "failed":
            text.stylize("red")
        self._console.print(text)

    def pause(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    close = pause

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = Table.grid(padding=(0, 2, 0, 0))
        now = time.monotonic()
        for name, began in self._stages.items():
            rows.add_row(self._spinner, Text(name, style="bold"), _seconds(now - began))
        for machine, doing in sorted(self._machines.items()):
            rows.add_row(
                "",
                Text(f"  {machine}  {doing.text}", overflow="ellipsis", no_wrap=True),
                _seconds(now - doing.began),
            )
        if not self._stages and not self._machines:
            rows.add_row(self._spinner, "working", _seconds(now - self.began))
        yield rows

    def _resume(self) -> None:
        # transient: the moving part leaves nothing behind; what is over was printed above it.
        self._live = Live(self, console=self._console, refresh_per_second=8, transient=True)
        self._live.start()

    def _stage(self, event: Event) -> None:
        if event.status == "start":
            self._stages[event.text] = time.monotonic()
        else:
            self._stages.pop(event.text, None)
            self._machines.clear()

    def _step(self, event: Event) -> None:
        if event.status == "start":
            self._machines[event.machine] = Doing(event.text)
        elif event.status:
            self._machines.pop(event.machine, None)

    def _stage_line(self, event: Event) -> Text:
        mark = Text("failed  ", style="red") if event.status == "failed" else Text("done    ", style="green")
        took = f"  {output.clock(event.seconds)}" if event.seconds else ""
        return mark + Text(event.text) + Text(took, style="dim")


_STYLES = {"warning": "yellow", "step": "dim", "log": "dim", "change": "dim"}


def _seconds(seconds: float) -> Text:
    return Text(output.clock(seconds) if seconds >= 1 else "", style="dim")
