# What restores left on this machine, with sizes: what stood in a place before one (kept, and never deleted by us), and
# what one fetched that was given up. Run by `deploy doctor` and deleted by nobody but an operator; reads only.
# Answer (last line): {"before": [[path, bytes], ...], "fetched": [[path, bytes], ...], "partial": true when the time was
# over before all was counted}. The first argument: seconds for counting.
from __future__ import annotations

import contextlib
import glob
import json
import os
import sys
import time

SETTINGS = "/etc/deploy/backups/settings.json"
STATE = "/var/lib/deploy/backups"
CLUSTERS = "/var/lib/postgresql/17"


def main(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    try:
        with open(SETTINGS, encoding="utf-8") as file:
            data = json.load(file)["data"]
    except (OSError, ValueError, KeyError):
        data = []
    before = [*glob.glob(f"{CLUSTERS}/main.before-*")]
    # A restore that goes on needs what it has fetched.
    fetched = [] if under_way("database") else glob.glob(f"{CLUSTERS}/restored")
    for item in data:
        where = glob.escape(item["where"])
        before += glob.glob(f"{where}.before-*") + glob.glob(f"{where}/.before-*")
        if not under_way("files"):
            folder, name = os.path.split(where)
            fetched += glob.glob(f"{folder}/.restored-*.{name}") + glob.glob(f"{where}/.restored-*")
    partial = False
    answer: dict[str, object] = {}
    for kind, paths in (("before", before), ("fetched", fetched)):
        found = []
        for path in sorted(set(paths)):
            size, whole = measured(path, deadline)
            partial = partial or not whole
            found.append([path, size])
        answer[kind] = found
    print(json.dumps({**answer, "partial": partial}))


def under_way(part: str) -> bool:
    """It runs, or has checked all and waits for the other parts."""
    try:
        with open(f"{STATE}/restore-{part}.json", encoding="utf-8") as file:
            return json.load(file)["state"] in ("running", "checked")
    except (OSError, ValueError, KeyError):
        return False


def measured(path: str, deadline: float) -> tuple[int, bool]:
    """Bytes on the disk, and whether all of it was counted."""
    if not os.path.isdir(path) or os.path.islink(path):
        return os.lstat(path).st_blocks * 512, True
    total = 0
    for folder, _, names in os.walk(path):
        if time.monotonic() > deadline:
            return total, False
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total, True


main(float(sys.argv[1]))
