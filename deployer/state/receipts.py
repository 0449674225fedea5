"""The measured records of what was done, one JSON file each, in receipts/ of the project folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployer.core.machine import Deployment
from deployer.state.files import write_atomically

TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Receipt:
    """kind: the verb. at: when it began, UTC. body: all that the file says."""

    kind: str
    deployment: str
    at: datetime
    path: Path
    body: Mapping[str, Any]


def write(root: Path, kind: str, deployment: Deployment, body: Mapping[str, Any], at: datetime) -> Path:
    """Write a receipt as receipts/KIND-DEPLOYMENT-UTCTIME.json and give its path.

    at: when it began, with its time zone. Two of the same second get -2, -3 at the end; none is overwritten.
    """
    folder = root / "receipts"
    folder.mkdir(parents=True, exist_ok=True)
    began = at.astimezone(UTC)
    full = {"kind": kind, "deployment": str(deployment), "at": began.isoformat(), **body}
    text = json.dumps(full, indent=2, ensure_ascii=False) + "\n"
    stem = f"{kind}-{deployment}-{began.strftime(TIME)}"
    number = 1
    while True:
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        try:
            write_atomically(path, text, 0o644, replace=False)
            return path
        except FileExistsError:
            number += 1


def read_all(root: Path, kind: str = "") -> list[Receipt]:
    """All receipts of the project, or those of one kind, oldest first. What is no receipt is left out."""
    found = []
    for path in sorted((root / "receipts").glob("*.json")):
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            receipt = Receipt(
                str(body["kind"]), str(body["deployment"]), datetime.fromisoformat(body["at"]), path, body
            )
        except (ValueError, KeyError, TypeError):
            continue
        if kind in ("", receipt.kind):
            found.append(receipt)
    return sorted(found, key=lambda receipt: (receipt.at, receipt.path.name))
