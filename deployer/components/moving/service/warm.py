"""What the app's start will read is in memory before anybody waits for it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

# Bytes and seconds that are read at most.
BYTES, BOUND = 2 << 30, 20


def warm(config: dict[str, Any]) -> None:
    """Read the release before the pause: the copies of files and database have pushed it out of memory, if it ever was
    there, and the app's first start would read it from the disk while people wait."""
    plan = Path(f"/etc/deploy/app-switch/{config['app']}.json")
    if not (config["app"] and plan.exists()):
        return
    known = json.loads(plan.read_text(encoding="utf-8"))
    left, end = BYTES, time.monotonic() + BOUND
    for folder, _, names in os.walk(Path(known["home"]) / "releases" / known["release"]):
        for name in names:
            path = Path(folder, name)
            try:
                if path.is_symlink() or not path.is_file():
                    continue
                left -= len(path.read_bytes()) if path.stat().st_size <= left else 0
            except OSError:
                continue
        if left <= 0 or time.monotonic() > end:
            return
