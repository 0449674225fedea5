"""The verb doctor."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from deployer.cli import output
from deployer.cli.draw import drawing
from deployer.cli.options import Verb, request, settings, target

# Status, its heading, and its colour; what needs somebody comes last, where the eye is.
_GROUPS = (
    ("skipped", "Skipped", None),
    ("ok", "Good", "green"),
    ("warn", "Warnings", "yellow"),
    ("fail", "Failed", "red"),
)


@click.command(cls=Verb)
@target
def doctor(provider: str | None, inventory: Path | None) -> int:
    """Find out what would go wrong.

    Before money is spent, and after: credentials, quota, price, port 25 out, reverse names, blocklists, DNS,
    clocks, disks, certificates. Says under each finding what to do. Changes nothing. Ends with 1 when a
    check failed.

    \b
    Example:
      deploy doctor --provider hetzner
      deploy doctor --provider hetzner --json | tail -1
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.doctor import doctor as flow

        result = flow(asked, draw)
    if chosen.json:
        output.write_json("result", {"data": result})
    else:
        _show(result)
    return 0 if result["ok"] else 1


def _show(result: Mapping[str, Any]) -> None:
    findings = result["findings"]
    width = {key: max((len(one[key]) for one in findings), default=0) for key in ("what", "where")}
    for status, heading, colour in _GROUPS:
        group = [one for one in findings if one["status"] == status]
        if group:
            output.write(output.style(heading, sys.stdout, bold=True, fg=colour))
        for one in group:
            cells = (one["what"].ljust(width["what"]), one["where"].ljust(width["where"]), one["found"])
            output.write("  " + "  ".join(cells).rstrip())
            if one["next"] and status in ("warn", "fail"):
                output.write(f"    next: {one['next']}")
    _verdict(result)


def _verdict(result: Mapping[str, Any]) -> None:
    counts, seconds = result["counts"], output.clock(float(result["seconds"]))
    words = [f"{counts['ok']} good"]
    words += [f"{counts['warn']} to think about"] if counts["warn"] else []
    words += [f"{counts['skipped']} skipped"] if counts["skipped"] else []
    if result["ok"]:
        colour = "yellow" if counts["warn"] else "green"
        text = f"Nothing failed: {', '.join(words)}, in {seconds}."
    else:
        colour = "red"
        text = f"{counts['fail']} failed, {', '.join(words)}, in {seconds}."
    output.write(output.style(text, sys.stdout, fg=colour))
