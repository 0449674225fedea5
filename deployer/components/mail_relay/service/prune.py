#!/usr/bin/python3
"""Bounds a Maildir: removes what is older than DAYS, then the oldest until it is at most BYTES.

prune.py MAILDIR DAYS BYTES
"""

from __future__ import annotations

import os
import sys
import time


def main(folder: str, days: float, limit: int) -> int:
    found = []
    for part in ("new", "cur", "tmp"):
        path = os.path.join(folder, part)
        if not os.path.isdir(path):
            continue
        for entry in os.scandir(path):
            status = entry.stat(follow_symlinks=False)
            found.append((status.st_mtime, status.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    oldest = time.time() - days * 86400
    removed = 0
    for modified, size, path in sorted(found):
        if modified >= oldest and total <= limit:
            break
        # Somebody who reads the mailbox may have moved it in between.
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        total -= size
        removed += 1
    if removed:
        print(f"{folder}: removed {removed}, {total} bytes left")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
