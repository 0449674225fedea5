"""Drawing what the verbs about the app found: as text for a person, or as the last JSON line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from deployer.cli import output, results
from deployer.cli.options import Settings
from deployer.core.amounts import size


def _json(result: object, chosen: Settings) -> bool:
    if chosen.json:
        output.write_json("result", {"data": result})
    return chosen.json


def answered(result: Mapping[str, Any], chosen: Settings) -> None:
    _json(result, chosen)


def status(result: Mapping[str, Any], chosen: Settings) -> None:
    """A line a release, then what would come and whether there is a way back."""
    if _json(result, chosen):
        return
    rows = [
        [
            str(one["release"]),
            str(one["state"]),
            str(one["last_put_in_service"])[:16].replace("T", " "),
            output.clock(float(one["pause_seconds"])) if one["pause_seconds"] else "",
            size(int(one["bytes"])),
            ", ".join(_migration(mark) for mark in one["migrations"]),
        ]
        for one in result["kept"]
    ]
    heads = ["release", "", "put in service", "pause", "size", "migrations"]
    for line in output.table([heads, *rows] if rows else []):
        output.write(line)
    coming = result["next"]
    if coming:
        runs = ", ".join(_migration(mark) for mark in coming["migrations"])
        text = f"{coming['release']}" + (f", with the migrations {runs}" if runs else ", without a migration")
        output.write(f"next: {text} (deploy app upgrade)")
    else:
        output.write("next: nothing; the project's files say what serves")
    back = result["way_back"]
    if back and back["migrations"]:
        names = ", ".join(back["migrations"])
        output.write(
            f"back: {back['release']}, but {names} cannot be undone (deploy rollback says what to do)"
        )
    elif back:
        output.write(f"back: {back['release']} (deploy rollback)")
    for note in result["notes"]:
        output.write(f"note: {note}")
    if not result["ok"]:
        bad = f"No release serves; {result['current'] or 'none'} is in use."
        output.write(output.style(bad, sys.stdout, fg="red"))


def _migration(mark: Mapping[str, Any]) -> str:
    return str(mark["name"]) + ("" if mark["reversible"] else " (cannot be undone)")


def changed(result: Mapping[str, Any], chosen: Settings) -> None:
    """What `up` says, and the change of release."""
    if _json(result, chosen):
        return
    release = result["release"]
    if "probes" in result:
        results.up({**result, "changes": ()}, chosen)
    for path in result["files"]:
        output.write(f"written: {path}")
    if not result["changed_release"]:
        same = release["from"] == release["to"]
        output.write(f"{release['to']} serves already." if same else f"The files say {release['to']} now.")
        return
    point = f"; recovery point {release['recovery_point']}" if release.get("recovery_point") else ""
    pause = output.clock(float(release["pause_seconds"]))
    output.write(
        f"{release['app']}: {release['from'] or 'nothing'} -> {release['to']}, {pause} without the app{point}"
    )


def made(result: Mapping[str, Any], chosen: Settings) -> None:
    if _json(result, chosen):
        return
    for path in result["files"]:
        output.write(f"written: {path}")
    for note in result["notes"]:
        output.write(f"note: {note}")


def checked(result: Mapping[str, Any], chosen: Settings) -> None:
    """A line for each thing that was found, then the verdict."""
    if _json(result, chosen):
        return
    for one in result["findings"]:
        key = f"{one['key']}: " if one["key"] else ""
        line = f"{one['where']}: {key}{one['text']}"
        output.write(
            output.style(line, sys.stdout, fg="red") if one["wrong"] else f"{line} (worth a look, not wrong)"
        )
    for text in result["skipped"]:
        output.write(f"not checked: {text}")
    if result["checked"]:
        output.write(f"checked: {', '.join(result['checked'])}")
    wrong = sum(1 for one in result["findings"] if one["wrong"])
    if wrong:
        output.write(output.style(f"{wrong} thing{'s' if wrong > 1 else ''} wrong.", sys.stdout, fg="red"))
    else:
        output.write(output.style(f"The app {result['app']} is in order.", sys.stdout, fg="green"))
