"""Which snapshots a restore of files takes: for each of the data one that has it. Not a program."""

from __future__ import annotations

import json
from typing import Any

from ground import FOLDER, Failure, read, seconds
from repository import Restic, point_of
from staging import STAGING

# What is wanted, the snapshot that has it, and what its manifest says of it.
Chosen = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def choose(restic: Restic, request: dict[str, Any]) -> tuple[list[Chosen], dict[str, Any]]:
    """For each of the wanted data, the snapshot that has it: of the point, or the newest before the target. The second
    is for the record of the restore: lacks, points, recovered_to, total_bytes."""
    target, point = request["target"], request.get("point", "")
    until = seconds(target["time"]) if target["kind"] == "time" else float("inf")
    usable = [
        one
        for one in restic.snapshots()
        if point_of(one) and (point_of(one) == point if point else seconds(point_of(one)) <= until)
    ]
    if not usable:
        wanted = f"of the point {point}" if point else f"before {target.get('time', 'now')}"
        raise Failure(
            f"restoring files from {restic.name}",
            f"there is no snapshot {wanted}",
            "see `deploy backup list`, or take another repository",
        )
    newest: dict[str, dict[str, Any]] = {one["hostname"]: one for one in usable}
    # This machine's own name first, then the newest.
    mine = str(request.get("machine") or (read(FOLDER / "settings.json", {}) or {}).get("machine", ""))
    order = sorted(newest.values(), key=lambda one: (one["hostname"] == mine, point_of(one)), reverse=True)
    manifests = [(one, manifest(restic, one)) for one in order]
    chosen: list[Chosen] = []
    lacks: list[str] = []
    points: dict[str, str] = {}
    for item in request["data"]:
        found = [
            (snapshot, {**entry, "users": held["users"], "groups": held["groups"]})
            for snapshot, held in manifests
            for entry in held["data"]
            if entry["name"] == item["name"] and entry["kind"] == item["kind"] and not entry["absent"]
        ]
        if not found:
            lacks.append(item["name"])
            continue
        snapshot, entry = found[0]
        points[item["name"]] = point_of(snapshot)
        chosen.append((item, snapshot, entry))
    sizes = {one["id"]: (one.get("summary") or {}).get("total_bytes_processed", 0) for _, one, _ in chosen}
    return chosen, {
        "lacks": lacks,
        "points": points,
        "recovered_to": min(points.values(), default=""),
        "total_bytes": sum(sizes.values()),
    }


def manifest(restic: Restic, snapshot: dict[str, Any]) -> dict[str, Any]:
    what, path = "reading the manifest of a snapshot", f"{staged(snapshot)}/manifest.json"
    try:
        found: dict[str, Any] = json.loads(restic.ask(what, "dump", "--no-lock", snapshot["id"], path))
    except Failure as failure:
        raise damaged(what, restic, failure.body["why"]) from None
    return found


def damaged(what: str, restic: Restic, why: str) -> Failure:
    """What restic's failure while it reads means to an operator."""
    return Failure(
        f"{what} from {restic.name}",
        f"the repository is damaged, or did not answer: {why}",
        "take an earlier point or another repository; `deploy backup verify` tells what is damaged",
    )


def staged(snapshot: dict[str, Any]) -> str:
    """The folder of copies in a snapshot: it bears the repository's name of that time."""
    [found] = [path for path in snapshot["paths"] if str(path).startswith(f"{STAGING}/")]
    return str(found)
