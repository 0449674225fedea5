#!/usr/bin/python3 -B
"""Backups of this machine's files, as root: create, status, verify, points, release, restore, restore-status, missing.

Each repository has a timer, a process and a bound of its own: one that is dead holds nobody up. Everything is
printed as JSON; exit code 1 when something failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import app_back
import restoring
import staging
from ground import FOLDER, STATE, Failure, alone, iso, read, seconds, settings, write
from repository import CACHE, Restic, point_of, tagged

# Seconds that the first, whole copy may take.
WHOLE = 24 * 3600
VERIFY_BOUND = 6 * 3600


def floor(now: float, minutes: int) -> str:
    """The newest time at which the timers of all machines elapsed."""
    hour, rest = divmod(int(now) // 60, 60)
    return iso((hour * 60 + rest // minutes * minutes) * 60)


def record(name: str) -> Path:
    return STATE / f"files-{name}.json"


def own() -> dict[str, Any]:
    """Settings of this program alone: first, release, references."""
    return read(FOLDER / "files.json", {}) or {}


def chosen(config: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = [one for one in config["repositories"] if not name or one["name"] == name]
    if not found:
        known = ", ".join(one["name"] for one in config["repositories"]) or "none"
        raise Failure(
            "choosing a repository", f"no repository is called {name!r} here", f"known here: {known}"
        )
    return found


# --- create ---


def create(config: dict[str, Any], name: str, point: str) -> list[dict[str, Any]]:
    """A snapshot in each repository, at the same time. Returns the records."""
    if not config["generation"]:
        raise Failure(
            "making a backup",
            "this deployment holds no generation: it is not the live one",
            "run `deploy up` where the stack is live",
        )
    point = point or floor(time.time(), int(config["policy"]["files"]))
    if name:
        [repository] = chosen(config, name)
        with alone(f"files-{name}") as free:
            if free:
                return [one(config, repository, point)]
            return [
                {**(read(record(name)) or {"name": name}), "busy": True, "error": None, "asked_point": point}
            ]
    words = [os.path.abspath(__file__), "create", "--point", point, "--repository"]
    names = [one["name"] for one in config["repositories"]]
    children = [
        subprocess.Popen([sys.executable, "-B", *words, each], stdout=subprocess.DEVNULL) for each in names
    ]
    for child in children:
        child.wait(WHOLE)
    return [found for found in status(config) if found["name"] in names]


def one(config: dict[str, Any], repository: dict[str, Any], point: str) -> dict[str, Any]:
    """A snapshot in one repository. What went wrong is in the record, which is written in any case."""
    name = repository["name"]
    entry = read(record(name), {}) or {}
    if entry.get("generation") != config["generation"]:
        entry = {"name": name, "generation": config["generation"]}
    entry["tried"] = iso(time.time())
    try:
        entry |= _snapshot(config, Restic(repository), point)
        entry |= {"error": None, "failed_since": ""}
    except Failure as failure:
        entry |= {"error": failure.body, "failed_since": entry.get("failed_since") or iso(time.time())}
    except (OSError, ValueError, KeyError) as error:
        body = {"what": f"backing up files to {name}", "why": repr(error), "next": "see the journal"}
        entry |= {"error": body, "failed_since": entry.get("failed_since") or iso(time.time())}
    write(record(name), entry, 0o644)
    return entry


def _snapshot(config: dict[str, Any], restic: Restic, point: str) -> dict[str, Any]:
    what = "backing up files"
    began = time.time()
    restic.ready(bool(own().get("first")))
    paths, manifest = staging.stage(config, restic.name, point)
    summary: dict[str, Any] = {}
    listing = staging.STAGING / f"{restic.name}.paths"
    listing.write_bytes(b"".join(path.encode() + b"\0" for path in paths))
    words = ["backup", "--host", config["machine"], "--tag", f"point={point}", "--group-by", "host"]
    words += ["--exclude", "**/.before-*", "--exclude", "**/.restored-*", "--no-scan"]
    # The releases' snapshots are of the same host, but no parent for these.
    if parent := (read(record(restic.name)) or {}).get("last_snapshot"):
        words += ["--parent", parent]
    code, errors = restic.transfer(
        what,
        [*words, "--files-from-raw", str(listing)],
        lambda message: summary.update(message) if message.get("message_type") == "summary" else None,
        WHOLE,
    )
    if code not in (0, 3) and parent and any("parent" in word or "no matching ID" in word for word in errors):
        # Pruned meanwhile: the next one compares with what there is.
        write(record(restic.name), {**(read(record(restic.name)) or {}), "last_snapshot": ""}, 0o644)
        return _snapshot(config, restic, point)
    restic.refuse(what, code, [code] if code not in (10, 12) else [0])
    vanished = ("no such file or directory", "file vanished", "at least one source file")
    serious = [line for line in errors if not any(word in line for word in vanished)]
    if code not in (0, 3) or (code == 3 and serious):
        raise Failure(
            f"{what} ({restic.name})",
            (serious or errors or [f"restic ended with {code}"])[-1],
            "see the journal",
        )
    # Read back: what the repository says it has.
    listed = restic.snapshots("--host", config["machine"])
    mine = [each for each in listed if point_of(each)]
    last = mine[-1] if mine else {}
    if last.get("id") != summary.get("snapshot_id"):
        raise Failure(f"{what} ({restic.name})", "the snapshot is not in the repository after it was made")
    result = {
        "last_snapshot": last["id"],
        "last_point": point_of(last),
        "last_at": iso(seconds(last["time"])),
        "size": summary.get("total_bytes_processed", 0),
        "files": summary.get("total_files_processed", 0),
        "added": summary.get("data_added_packed", summary.get("data_added", 0)),
        "snapshots": len(mine),
        "seconds": round(time.time() - began, 1),
        "absent": [item["name"] for item in manifest["data"] if item["absent"]],
    }
    return result | _release(config, restic, {tagged(each, "release") for each in listed})


def _release(config: dict[str, Any], restic: Restic, there: set[str]) -> dict[str, Any]:
    """The app as it was built, once in each repository, so that a registry's "no" does not stop a restore."""
    where = (own().get("release") or {}).get("where", "")
    if not where or not Path(where).is_dir():
        return {"release": ""}
    name = Path(where).name
    if name in there:
        return {"release": name}
    tag = f"release={name}"
    if not restic.snapshots("--tag", tag):
        words = ["backup", "--host", config["machine"], "--tag", tag, "--no-scan", where]
        code, errors = restic.transfer("backing up the release", words, lambda _: None, WHOLE)
        if code:
            raise Failure(f"backing up the release {name} ({restic.name})", (errors or [str(code)])[-1])
    return {"release": name}


# --- status, points, verify ---


def status(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known of each repository here; asks none."""
    found = []
    empty = {"last_snapshot": "", "last_point": "", "last_at": "", "size": 0, "snapshots": 0, "error": None}
    for repository in config["repositories"]:
        entry = {**empty, **(read(record(repository["name"])) or {}), "name": repository["name"]}
        if entry.get("generation") != config["generation"]:
            entry |= empty
        at = seconds(entry["last_at"])
        entry["age_seconds"] = round(time.time() - at) if at else None
        found.append(entry)
    return found


def points(repository: dict[str, Any], cache: Path | None = None) -> list[dict[str, Any]]:
    """Recovery points in a repository, the oldest first: whose files each holds."""
    restic = Restic(repository, cache)
    found: dict[str, dict[str, Any]] = {}
    for snapshot in restic.snapshots():
        if point := point_of(snapshot):
            summary = snapshot.get("summary") or {}
            entry = found.setdefault(point, {"point": point, "machines": {}})
            entry["machines"][snapshot["hostname"]] = {
                "snapshot": snapshot["id"],
                "at": iso(seconds(snapshot["time"])),
                "size": summary.get("total_bytes_processed", 0),
                "files": summary.get("total_files_processed", 0),
            }
    return [found[point] for point in sorted(found)]


def verify(repository: dict[str, Any], subset: str) -> dict[str, Any]:
    """Every pack is there and every list is sound; of the contents, the part that is asked for is read."""
    restic, began = Restic(repository), time.time()
    words = ["check", "--no-lock", f"--read-data-subset={subset}"]
    errors: list[str] = []
    try:
        code, errors = restic.transfer("verifying", words, lambda _: None, VERIFY_BOUND)
        restic.refuse("verifying", code, [code] if code not in (10, 12) else [0])
        ok, error = code == 0, None
        if code:
            error = {
                "what": f"verifying files ({restic.name})",
                "why": (errors or [f"restic check ended with {code}"])[0],
                "next": "restore from another repository; `deploy backup create` writes anew what is damaged",
            }
    except Failure as failure:
        ok, error = False, failure.body
    body = {"name": restic.name, "ok": ok, "errors": errors, "read": subset, "error": error}
    body |= {"seconds": round(time.time() - began, 1), "at": iso(time.time())}
    write(STATE / f"files-verify-{restic.name}.json", body, 0o644)
    return body


def releases(repository: dict[str, Any]) -> list[str]:
    return [tagged(one, "release") for one in Restic(repository).snapshots() if tagged(one, "release")]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("create", help="a snapshot in every repository, or in one")
    make.add_argument("--repository", default="")
    make.add_argument("--point", default="")
    verbs.add_parser("status", help="what is known here of each repository")
    check = verbs.add_parser("verify", help="look for damage")
    check.add_argument("--repository", default="")
    check.add_argument("--read", default="5%", help="how much of the contents to read: a share, or 1/10")
    look = verbs.add_parser(
        "points", help="recovery points of a repository; `-` reads it from standard input"
    )
    look.add_argument("--repository", required=True)
    for verb, help in (
        ("restore", "start what the request on standard input asks for"),
        ("restore-status", "how far it is"),
        ("release", "put back the app as it was built; request on standard input"),
    ):
        verbs.add_parser(verb, help=help)
    verbs.add_parser("restore-work", help="used by the unit")
    for verb, help in (
        ("named", "paths that the database names, one a line; where the database is"),
        ("missing", "of the paths on standard input, those that are not among the files"),
    ):
        about = verbs.add_parser(verb, help=help)
        about.add_argument("--data", required=True)
        about.add_argument("--point", default="", help="of the files: what was named later is not in it")
    options = parser.parse_args()
    try:
        return _do(options)
    except Failure as failure:
        print(json.dumps({"error": failure.body}))
        return 1


def _do(options: argparse.Namespace) -> int:
    def tell(body: Any, failed: bool = False) -> int:
        print(json.dumps(body, indent=1))
        return 1 if failed else 0

    if options.verb == "restore":
        return tell(restoring.start(json.loads(sys.stdin.read())))
    if options.verb == "restore-status":
        return tell(restoring.status())
    if options.verb == "restore-work":
        return restoring.work()
    if options.verb == "release":
        return tell(app_back.release(json.loads(sys.stdin.read())))
    if options.verb == "points" and options.repository == "-":
        return tell(points(json.loads(sys.stdin.read()), CACHE / "restore"))
    config = settings()
    if options.verb == "create":
        made = create(config, options.repository, options.point)
        return tell(made, any(entry.get("error") for entry in made))
    if options.verb == "status":
        return tell(status(config))
    if options.verb == "verify":
        done = [verify(each, options.read) for each in chosen(config, options.repository)]
        return tell(done, not all(each["ok"] for each in done))
    if options.verb == "points":
        return tell(points(chosen(config, options.repository)[0]))
    if options.verb == "named":
        sys.stdout.write(app_back.named(own(), options.data))
        return 0
    return tell(app_back.missing(own(), options.data, sys.stdin.read().splitlines(), options.point))


if __name__ == "__main__":
    sys.exit(main())
