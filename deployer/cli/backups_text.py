"""Drawing what the verbs about backups found: as text for a person, or as the last JSON line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.cli import output, results
from deployer.cli.options import Settings
from deployer.core.amounts import size as size


def _json(result: object, chosen: Settings) -> bool:
    if chosen.json:
        output.write_json("result", {"data": result})
    return chosen.json


def age(seconds: float | None) -> str:
    """How long ago, as a person reads it; days from two on."""
    if seconds is None:
        return ""
    days = int(seconds // 86400)
    return f"{days} d" if days >= 2 else output.clock(max(seconds, 0.0))


def _moment(text: str) -> str:
    """2026-11-24T20:45:00Z as 2026-11-24 20:45 (UTC), which is as exact as a table needs."""
    return text[:16].replace("T", " ") if text else ""


def archiving(row: Mapping[str, Any]) -> str:
    """The state of a repository's archiving in a word or two."""
    if row["archiving"] is None:
        return ""
    if not row["archiving"]:
        return f"out since {_moment(row['out_since'])}" if row["out_since"] else "out"
    return "needs a full backup" if row["needs_full"] else "yes"


def proof(row: Mapping[str, Any]) -> str:
    """ "2026-11-20 03:10 drill, 2 min 05 s, 84 MB/s": the last restore from it."""
    found = row.get("proven")
    if not found:
        return "never"
    words = [f"{_moment(found['at'])} {found['kind']}" + ("" if found["ok"] else " FAILED")]
    if found.get("seconds") is not None:
        words.append(output.clock(float(found["seconds"])))
    if found.get("rate") is not None:
        words.append(f"{float(found['rate']):.0f} MB/s")
    return ", ".join(words)


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """`backup list` for a person; --json has every field."""
    return [
        {
            "repository": row["name"],
            "vendor": row["vendor"],
            "archiving": archiving(row),
            "last_full": _moment(row["last_full"]) or "none",
            "last_diff": _moment(row["last_diff"]),
            "size": size(row["size"]),
            "newest_commit": f"{age(row['lag'])} ago" if row["lag"] is not None else "none",
            "files": f"{age(row['files_age'])} ago" if row["files_age"] is not None else "none",
            "points": str(row["points"]),
            "proven": proof(row),
        }
        for row in rows
    ]


def _failed(found: Sequence[str]) -> None:
    for text in found:
        output.write(output.style(f"failed: {text}", sys.stdout, fg="red"))


def created(result: Mapping[str, Any], chosen: Settings) -> None:
    if _json(result, chosen):
        return
    results.table(
        [
            {
                "repository": one["repository"],
                "type": one.get("type", ""),
                "backup": one.get("label", ""),
                "size": size(one.get("size") or 0),
                "took": output.clock(float(one.get("seconds") or 0)),
            }
            for one in result["database"]
        ]
    )
    _failed(result["failed"])
    if result["ok"]:
        text = f"Backed up: point {result['point']}, generation {result['generation']}."
        output.write(output.style(text, sys.stdout, fg="green"))


def listed(result: Mapping[str, Any], chosen: Settings) -> None:
    if _json(result, chosen):
        return
    results.table(table(result["repositories"]))
    for row in result["repositories"]:
        why = [f"left the archiving: {row['out_why']}"] if row["out_why"] else []
        why += [row["error"]] if row["error"] else []
        if row["proven"] and not row["proven"]["ok"]:
            why.append(f"last {row['proven']['kind']}: {row['proven']['why'].splitlines()[0]}")
        for text in why:
            output.write(output.style(f"{row['name']}: {text}", sys.stdout, fg="yellow"))
    _failed(result["failed"])
    output.write(f"Generation {result['generation']}. Times are UTC.")


def points(result: Mapping[str, Any], chosen: Settings, last: int) -> None:
    if _json(result, chosen):
        return
    for one in result["repositories"]:
        found = one["points"]
        output.write(output.style(one["repository"], sys.stdout, bold=True))
        for point in found[-last:]:
            note = "" if point["complete"] else f"  only {', '.join(point['machines'])}"
            output.write(f"  {point['at']}{note}")
        more = f", the newest {last} of them above" if len(found) > last else ""
        output.write(f"  {len(found)} point(s){more}")


def verified(result: Mapping[str, Any], chosen: Settings) -> None:
    if _json(result, chosen):
        return
    for one in result["repositories"]:
        took = output.clock(float(one["seconds"]))
        if not one["damaged"]:
            output.write(f"{one['repository']}: all as it was written ({took})")
        for bad in one["damaged"]:
            text = f"{one['repository']}: {bad['part']}: {bad['what']}: {bad['why']}"
            output.write(output.style(text, sys.stdout, fg="red"))
    if not result["ok"]:
        output.write(
            "Damaged. What can still be restored: deploy backup points; a new start of this repository: "
            "deploy backup create --type full"
        )


def pruned(result: Mapping[str, Any], chosen: Settings) -> None:
    if _json(result, chosen):
        return
    for one in result["repositories"]:
        if "generation" in one:
            output.write(
                f"{one['repository']}: generation {one['generation']} deleted ({one['objects']} objects)"
            )
            continue
        if "database" in one:
            database = one["database"]
            gone = ", ".join(database["deleted"]) or "nothing"
            output.write(
                f"{one['repository']}: database: deleted {gone}; {len(database['kept'])} backup(s) left"
            )
        if "files" in one:
            files = one["files"]
            output.write(
                f"{one['repository']}: files: deleted {files['deleted']} snapshot(s); {files['kept']} left"
            )
    _failed(result["failed"])


def queues(result: Mapping[str, Any], chosen: Settings) -> None:
    """How much waits; after a release, what became of it."""
    if _json(result, chosen):
        return
    rows = result["queues"]
    results.table(
        [
            {
                "machine": one["machine"],
                "queue": one["kind"],
                "held": str(one["waiting"]),
                "expired": _count(one["expired"]),
                "received": _count(one["received"]),
                "released": "" if one["released"] is None else str(one["released"]),
                "dropped": _count(one["dropped"]),
            }
            for one in rows
        ]
    )
    if any(one["held"] for one in rows):
        output.write("What is held goes out with: deploy queue release")
    elif not any(one["released"] for one in rows):
        output.write("Nothing is held.")


def _count(number: int) -> str:
    return str(number) if number else ""
