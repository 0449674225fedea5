"""The app after a restore: as it was built, from the repository, and what the database names among its files.

Not a program.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from ground import Failure, run, seconds
from repository import CACHE, Restic, tagged

# Seconds for fetching a release.
BOUND = 24 * 3600
# Seconds before a point in which a file may have been named already and was not yet written.
WRITTEN = 60


def release(request: dict[str, Any]) -> dict[str, Any]:
    """request: repository, where (the folder of the release). Nothing happens when it is there."""
    where = Path(request["where"])
    if where.is_dir():
        return {"release": where.name, "found": True, "fetched": False}
    restic = Restic(request["repository"], CACHE / "restore")
    found = [one for one in restic.snapshots() if tagged(one, "release") == where.name]
    if not found:
        return {"release": where.name, "found": False, "fetched": False}
    new = where.with_name(where.name + ".restored.tmp")
    new.mkdir(parents=True, exist_ok=True)
    words = ["restore", "--no-lock", f"{found[-1]['id']}:{found[-1]['paths'][0]}", "--target", str(new)]
    code, errors = restic.transfer("fetching the release", words, lambda _: None, BOUND)
    if code:
        why = (errors or [f"restic ended with {code}"])[0]
        raise Failure(f"fetching the release {where.name}", why, "take another repository, or build it anew")
    new.chmod(0o755)
    subprocess.run(["sync", "-f", str(new)], timeout=600, check=False)
    os.rename(new, where)
    return {"release": where.name, "found": True, "fetched": True}


def _reference(own: dict[str, Any], data: str) -> dict[str, Any]:
    for entry in own.get("references", []):
        if entry["name"] == data:
            found: dict[str, Any] = entry
            return found
    raise Failure("comparing database and files", f"no query for {data!r} is in the app's manifest", "")


def named(own: dict[str, Any], data: str) -> str:
    """Paths below the data that the database names, each with a tab and its time (seconds since 1970) where the manifest
    says that too. Where the database is."""
    entry = _reference(own, data)
    argv = ["runuser", "-u", "postgres", "--", "psql", "-X", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
    argv += ["-d", entry["database"], "-f", "-"]
    done = run("asking the database for files", argv, timeout=600, stdin=entry["query"])
    return done.stdout


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def missing(own: dict[str, Any], data: str, lines: list[str], point: str = "") -> dict[str, Any]:
    """What the database names and the files lack. point: of the files; what was named later can not be in it."""
    where = Path(_reference(own, data)["where"])
    named = [line.partition("\t") for line in lines if line]
    until = seconds(point) - WRITTEN if point else float("inf")
    gone = [(path, _number(at) >= until) for path, _, at in named if not (where / path).is_file()]
    lost, newer = ([path for path, later in gone if later is which] for which in (False, True))
    return {
        "data": data,
        "named": len(named),
        "missing": len(lost),
        "paths": lost[:200],
        "newer": len(newer),
        "newer_paths": newer[:200],
    }
