"""What is wrong in the operator's files: collected, put in plain words, shown all at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from deployer.core.errors import InputError

# The way to a value: keys and list positions.
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Mark:
    """Where something stands. source: the scalar as written (never what a variable held)."""

    file: str
    line: int
    source: str = field(default="", repr=False)
    # Written without quotes and without variables.
    plain: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Mistakes:
    """Collects mistakes; `stop` raises them together."""

    def __init__(self) -> None:
        self._found: list[tuple[str, int, str]] = []
        self._places: set[tuple[str, str]] = set()

    def add(self, mark: Mark, place: Place | str, why: str) -> None:
        where = place if isinstance(place, str) else dotted(place)
        line = f"{mark}: {where}: {why}" if where else f"{mark}: {why}"
        self._places.add((mark.file, where))
        entry = (mark.file, mark.line, line)
        if entry not in self._found:
            self._found.append(entry)

    def __len__(self) -> int:
        return len(self._found)

    def at(self, file: str, place: Place) -> bool:
        """Something at this place is wrong already, so that what a schema says of it adds nothing."""
        return (file, dotted(place)) in self._places

    @property
    def lines(self) -> list[str]:
        """One line a mistake, file by file in the order they were read, then by line."""
        files = list(dict.fromkeys(file for file, _, _ in self._found))
        return [text for _, _, text in sorted(self._found, key=lambda m: (files.index(m[0]), m[1]))]

    def stop(self) -> None:
        """Raise InputError if anything was found."""
        if not self._found:
            return
        count = len(self._found)
        raise InputError(
            "checking the project's files",
            f"{count} mistakes" if count > 1 else "1 mistake",
            "correct the file and run it again; nothing was touched",
            detail="\n".join(self.lines),
        )


def dotted(place: Place) -> str:
    """machines[1].roles"""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "roles"?`, or the list when nothing is near."""
    # 7 ms that a run without mistakes does not pay.
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known are: {', '.join(names)}" if names else ""
