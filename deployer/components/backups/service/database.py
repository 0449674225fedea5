"""The database's backups on its machine. Run as root; prints one JSON object; exit code 1 with {"error": ...}.

configure [--check]            write the configurations of pgBackRest; --check: are they as they shall be?
prepare                        put every repository that answers into the archiving; never fails
create --repository R [--type full|diff|auto] | create --due
status                         of every repository, the newest commit read back from it
verify --repository R          what is damaged or missing: {"damaged": [{"what", "why"}]}
restore                        request on standard input: see database_restore.py
restore-status
whole-since                    request on standard input, of a repository: {"since"}, from when on it has no gap
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import archiving
import database_conf
import database_create
import database_restore
import database_verify
import database_wal
import pgbackrest
from database_choice import Choice
from pgbackrest import Failed


def status_of(wanted: dict[str, Any], entry: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        **{key: entry[key] for key in ("archiving", "out_since", "out_why", "needs_full")},
        **dict.fromkeys(("last_full", "last_diff", "newest_wal", "newest_commit", "error"), ""),
        "size": 0,
        "lag_seconds": None,
    }
    try:
        conf = database_create.conf(name)
        held = pgbackrest.info(conf)
        last = database_create.last_backups(held)
        found["last_full"], found["last_diff"] = last["full"], last["diff"]
        found["size"] = sum(one["info"]["repository"]["delta"] for one in held["backup"])
        ends = [one["max"] for one in held["archive"] if one["max"]]
        if ends:
            found["newest_wal"] = max(ends)
            first = next(one["min"] for one in held["archive"] if one["max"] == max(ends))
            commit = database_wal.newest_commit(conf, database_wal.segments_to(max(ends), first))
            found["newest_commit"] = commit
            if commit:
                lag = pgbackrest.now() - pgbackrest.parse(commit)
                found["lag_seconds"] = round(lag.total_seconds(), 1)
    except Failed as error:
        found["error"] = error.error
    return found


def status(wanted: dict[str, Any]) -> dict[str, Any]:
    state = archiving.read(wanted)["repositories"] if wanted["generation"] else {}
    with ThreadPoolExecutor(max(1, min(8, len(state)))) as pool:
        found = list(pool.map(lambda item: status_of(wanted, item[1], item[0]), state.items()))
    return {
        "at": pgbackrest.iso(pgbackrest.now()),
        "generation": wanted["generation"],
        "wal_waiting": archiving.measure(wanted).total if wanted["generation"] else 0,
        "wal_bound": int(float(wanted["policy"]["wal_bound"]) * (1 << 30)),
        "repositories": found,
    }


def prepare(wanted: dict[str, Any]) -> dict[str, Any]:
    state = archiving.read(wanted)["repositories"]
    out = [name for name, entry in state.items() if not entry["archiving"]]
    found: dict[str, Any] = {}

    def one(name: str) -> None:
        try:
            # The watch asks a dead one without end, and says so: `up` does not wait for that.
            database_create.bring_in(wanted, name, patience=5, bound=30)
            found[name] = "in the archiving"
        except Failed as error:
            why = error.error["why"]
            found[name] = error.error
            archiving.update(wanted, lambda repositories: _out(repositories[name], why))

    with ThreadPoolExecutor(max(1, min(8, len(out)))) as pool:
        list(pool.map(one, out))
    return {"repositories": found}


def _out(entry: dict[str, Any], why: str) -> None:
    """One that was asked and did not come in is out; whoever asks it besides notes why more exactly."""
    if not entry["archiving"] and not entry["out_since"]:
        entry["out_since"] = pgbackrest.iso(pgbackrest.now())
        entry["out_why"] = entry["out_why"] or why


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.verb == "restore":
        return database_restore.start(json.load(sys.stdin))
    if arguments.verb == "restore-status":
        return database_restore.status()
    if arguments.verb == "whole-since":
        return {"since": Choice(json.load(sys.stdin)).whole_since()}
    wanted = pgbackrest.settings()
    if arguments.verb == "configure":
        if not arguments.check:
            database_conf.configure(wanted)
        return {"configured": database_conf.configured(wanted)}
    if arguments.verb == "prepare":
        return prepare(wanted)
    if arguments.verb == "create" and arguments.due:
        return {"repositories": database_create.create_due(wanted)}
    if arguments.verb == "create":
        return database_create.create(wanted, arguments.repository, arguments.type)
    if arguments.verb == "verify":
        name = arguments.repository
        pgbackrest.repository(wanted, name)
        gaps = archiving.read(wanted)["repositories"][name]["gaps"]
        return database_verify.verify(name, database_create.conf(name), gaps)
    return status(wanted)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("configure").add_argument("--check", action="store_true")
    create = verbs.add_parser("create")
    which = create.add_mutually_exclusive_group(required=True)
    which.add_argument("--repository")
    which.add_argument("--due", action="store_true")
    create.add_argument("--type", choices=("full", "diff", "auto"), default="auto")
    verbs.add_parser("verify").add_argument("--repository", required=True)
    for name in ("prepare", "status", "restore", "restore-status", "whole-since"):
        verbs.add_parser(name)
    arguments = parser.parse_args()
    try:
        found = run(arguments)
    except Failed as error:
        print(json.dumps({"error": error.error}))
        return 1
    print(json.dumps(found))
    if found.get("configured") is False:
        return 1
    # Of `create --due`; in a status an error is an answer.
    due = getattr(arguments, "due", False)
    return 1 if due and any("error" in one for one in found["repositories"]) else 0


if __name__ == "__main__":
    sys.exit(main())
