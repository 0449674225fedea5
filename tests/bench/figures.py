"""A figure, and the table of them."""

from __future__ import annotations

import statistics
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field


@dataclass
class Figure:
    """name: what was measured; unit; runs: every single value; aim: what the design asks for (0: nothing).

    machines: how many; round_trip: milliseconds to each. here, there: CPU seconds of each run on the operator's side
    (deploy and its engine) and on all machines together, where they were measured.
    """

    name: str
    unit: str
    runs: list[float] = field(default_factory=list)
    aim: float = 0
    note: str = ""
    machines: int = 0
    round_trip: int = 0
    here: list[float] = field(default_factory=list)
    there: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"median": self.median}


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


HEAD = ("machines", "RTT ms", "n", "median", "min", "max", "CPU here", "CPU there", "aim")


def show(figures: Sequence[Figure]) -> None:
    """Print the table. CPU: median seconds."""
    if not figures:
        print("nothing was measured")
        return
    width = max(len(figure.name) for figure in figures)
    print(f"{'':{width}}  " + "  ".join(f"{word:>9}" for word in HEAD))
    for figure in figures:
        cells = [
            str(figure.machines or ""),
            str(figure.round_trip) if figure.machines else "",
            str(len(figure.runs)),
            *(f"{number:.2f}" for number in (figure.median, min(figure.runs), max(figure.runs))),
            *(f"{statistics.median(cpu):.2f}" if cpu else "" for cpu in (figure.here, figure.there)),
            f"{figure.aim:g}" if figure.aim else "",
        ]
        line = f"{figure.name:{width}}  " + "  ".join(f"{cell:>9}" for cell in cells) + f"  {figure.unit}"
        print(line)
        if figure.note:
            print(textwrap.fill(figure.note, 100, initial_indent="    ", subsequent_indent="    "))
