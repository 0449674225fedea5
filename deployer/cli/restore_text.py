"""Drawing what came back, and what was proven."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.cli import output, parts, results
from deployer.cli.options import Settings


def restored(result: Mapping[str, Any], chosen: Settings) -> None:
    """What `up` says, and what came back."""
    if parts.as_json(result, chosen):
        return
    record = result.get("restore") or {}
    results.up({**result, "changes": ()}, chosen)
    parts.heading("Restored")
    rows = [
        ["from", f"{record.get('repository')}, generation {record.get('from_generation')}"],
        ["database as of", str(record.get("recovered_to") or "unknown")],
        ["files as of", str(record.get("point") or "unknown")],
        ["now generation", str(record.get("generation"))],
        *([name, output.clock(float(took))] for name, took in (record.get("seconds") or {}).items()),
        ["in all", output.clock(float(record.get("total_seconds") or 0))],
    ]
    if "recovery_point_seconds" in record:
        rows.insert(3, ["lost at most", f"{record['recovery_point_seconds']:g} s before the restore began"])
    if record.get("mb_per_second"):
        rows.append(["speed", f"{record['mb_per_second']:g} MB/s"])
    parts.lines(output.table(rows))
    parts.lines([f"missing: {text}" for text in (record.get("lacks") or ())[: parts.FEW]])


def drilled(result: Mapping[str, Any], chosen: Settings) -> None:
    """A line for each repository, then what was checked, or why it failed."""
    if parts.as_json(result, chosen):
        return
    rows = [
        [
            one["repository"],
            "proven" if one["ok"] else "FAILED",
            one.get("recovered_to") or "",
            output.clock(float(one.get("total_seconds") or 0)),
        ]
        for one in result["drills"]
    ]
    parts.heading("Drills")
    parts.lines(output.table(rows))
    for one in result["drills"]:
        said = str(one["why"]).splitlines() if one.get("why") else one.get("checks") or ()
        parts.lines([f"{one['repository']}: {text}" for text in said])
