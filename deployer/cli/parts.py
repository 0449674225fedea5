"""What drawings are made of: headings, tables, probes, notes, verdicts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from deployer.cli import output
from deployer.cli.options import Settings

# So many changes are named after `up`; of more, --verbose tells.
FEW = 12


def as_json(data: object, chosen: Settings) -> bool:
    """Write the result as JSON when that was asked for. Returns whether it was."""
    if chosen.json:
        output.write_json("result", {"data": data})
    return chosen.json


def heading(text: str, content: object = True) -> None:
    """A heading, when there is something to stand below it."""
    if content:
        output.write(output.style(text, sys.stdout, bold=True))


def lines(texts: Iterable[str]) -> None:
    for line in texts:
        output.write(line)


def pairs(found: object) -> list[str]:
    if isinstance(found, Mapping):
        return output.table([(str(key), cell(value)) for key, value in found.items()])
    return [f"  {cell(item)}" for item in found] if isinstance(found, list | tuple) else []


def machines(found: object, title: str = "Machines") -> None:
    heading(title, found)
    if isinstance(found, list | tuple) and all(isinstance(item, Mapping) for item in found):
        lines(records(found))
    else:
        lines(pairs(found))


def probes(found: object) -> None:
    """Probes in a line when all are green; else the others are named, with why."""
    if not isinstance(found, list | tuple) or not found:
        return
    wrong = [probe for probe in found if not probe.get("ok")]
    if not wrong:
        output.write(output.style("Probes", sys.stdout, bold=True) + f"  all {len(found)} green")
        return
    output.write(
        output.style("Probes", sys.stdout, bold=True) + f"  {len(found) - len(wrong)} of {len(found)} green"
    )
    for probe in wrong:
        word = "degraded" if probe.get("degrades") else "red"
        place = f"{probe['machine']}: " if probe.get("machine") else ""
        name = "/".join(str(probe[key]) for key in ("component", "name") if probe.get(key))
        text = f"  {word:<8}  {place}{name}: {probe.get('detail') or 'no answer'}"
        output.write(odd(text) if word == "degraded" else bad(text))


def notes(found: object) -> None:
    if isinstance(found, list | tuple):
        for text in found:
            output.write(f"note: {text}")


def verdict(result: Mapping[str, Any], text: str) -> None:
    """The last line; a degraded deployment is named so, with its reasons where there are."""
    degraded = result.get("degraded")
    if not degraded:
        output.write(output.style(text, sys.stdout, fg="green"))
        return
    output.write(odd(f"{text} Degraded: it serves, but something is missing:"))
    lines(odd(f"  {reason}") for reason in degraded)


def records(found: object, indent: str = "  ") -> list[str]:
    """Records as a table with their keys as headings."""
    if not isinstance(found, list | tuple) or not found:
        return []
    keys = list(dict.fromkeys(key for record in found for key in record))
    # A column that says nothing takes no room.
    keys = [key for key in keys if any(record.get(key) not in (None, "", [], {}) for record in found)]
    rows = [[key.replace("_", " ") for key in keys]]
    rows += [[cell(record.get(key)) for key in keys] for record in found]
    return output.table(rows, indent)


def cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    return f"{value:g}" if isinstance(value, float) else str(value)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def bad(text: str) -> str:
    return output.style(text, sys.stdout, fg="red")


def odd(text: str) -> str:
    return output.style(text, sys.stdout, fg="yellow")
