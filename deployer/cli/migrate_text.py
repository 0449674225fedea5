"""What migrate and retire say at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.cli import output, results
from deployer.cli.options import Settings
from deployer.core import amounts


def migrated(result: Mapping[str, Any], chosen: Settings) -> None:
    """What `up` says of the new side, then how the move went."""
    if chosen.json:
        output.write_json("result", {"data": result})
        return
    record = result.get("migrate")
    if record is None:
        for note in result.get("notes") or ():
            output.write(note)
        return
    results.up({**result, "changes": ()}, chosen)
    output.write("Moved")
    rows = [
        ["from", str(record["from"])],
        ["to", f"{record['to']}, generation {record['generation']}"],
        *([one["name"], output.clock(float(one["seconds"]))] for one in record["phases"]),
        [
            "pause",
            f"{record['pause_seconds']:g} s, of it {record['app_start_seconds']:g} s the app's own start",
        ],
    ]
    if parts := record.get("parts"):
        moved = (f"{name} {amounts.size(part['bytes'])}" for name, part in parts.items())
        rows.append(["moved", ", ".join(moved)])
    watch = record.get("watch") or {}
    if watch:
        seen = f"{watch['requests']} requests, {watch['failed']} failed, the longest wait {watch['longest_wait']:.1f} s"
        rows.append(["from outside", seen])
    for line in output.table(rows):
        output.write(f"  {line}")
    for text in record.get("verified") or ():
        output.write(f"  verified: {text}")


def retired(result: Mapping[str, Any], chosen: Settings) -> None:
    """What is gone, what was replaced, and what the operator must see to."""
    if chosen.json:
        output.write_json("result", {"data": result})
        return
    record = result["retired"]
    output.write(f"{record['old']} is retired: {len(record['deleted'])} machine(s) deleted.")
    output.write(f"{len(record['rotated'])} secret(s) replaced and brought to the machines that serve.")
    for text in record["not_rotated"]:
        output.write(f"  not replaced: {text}")
    for one in record["kept_volumes"]:
        output.write(f"  the data volume {one['name']} stays: deploy down --destroy-data deletes it")
