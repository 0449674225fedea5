#!/usr/bin/python3 -B
"""A move of the whole service to other machines, as far as it happens on them. Run as root; answers in JSON.

    prepare    folders, the standby's role; a machine of the new side is closed until it is promoted
    standby    begin to copy and follow the database of the old side
    files      begin passes of the files
    status     how far all of it is
    progress   how far the switchover is: asked every second while people wait, so nothing else is looked at
    cutover    begin the switchover; {"id", "max_pause", "old_is_dead"} on standard input
    reopen     the old side serves again; never after it gave its permit
    follow     the old side's database follows the new one
    end        tunnels, slots and records go
    trial      the switchover on a copy that is thrown away: what the new side takes
    serve      what sshd starts for a peer

Used by units: fence, conduct, tunnel database|forward, work standby|files.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The programs of backups lie in the folder next to ours: the guard, and what all programs of the machine share.
sys.path.append(str(Path(__file__).resolve().parent.parent / "backups"))

import state
from ground import Failure

# The other modules are read where they are used: a peer's word starts this program anew, in the pause too.


def status(config: dict[str, Any]) -> dict[str, Any]:
    import after
    import copies
    import cutover as switchover
    import fence
    import standby

    return {
        "standby": standby.status(config),
        "files": copies.status(config),
        "cutover": switchover.status(config),
        "fence": fence.shown(fence.load()),
        "follow": after.followed(config),
    }


def progress(config: dict[str, Any]) -> dict[str, Any]:
    import cutover as switchover

    return {"cutover": switchover.status(config)}


def reopen(config: dict[str, Any]) -> dict[str, Any]:
    import fence

    state.side(config, "old", "reopening")
    return fence.reopen(config, {}, "an operator asked for it")


def cutover(config: dict[str, Any]) -> dict[str, Any]:
    import cutover as switchover

    return switchover.cutover(config, json.loads(sys.stdin.read()))


def tunnel(config: dict[str, Any], which: str) -> int:
    import tunnel as tunnels

    return tunnels.run(config, which)


def elsewhere(module: str, name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda config: getattr(importlib.import_module(module), name)(config)


ANSWERS = {
    "prepare": elsewhere("preparing", "prepare"),
    "standby": elsewhere("standby", "start"),
    "files": elsewhere("copies", "start"),
    "status": status,
    "progress": progress,
    "cutover": cutover,
    "reopen": reopen,
    "follow": elsewhere("after", "follow"),
    "end": elsewhere("after", "end"),
    "trial": elsewhere("trial", "run"),
}
WORK = {
    ("serve",): elsewhere("serve", "serve"),
    ("conduct",): elsewhere("conduct", "run"),
    ("tunnel", "database"): lambda config: tunnel(config, "database"),
    ("tunnel", "forward"): lambda config: tunnel(config, "forward"),
    ("work", "standby"): elsewhere("standby", "work"),
    ("work", "files"): elsewhere("copies", "work"),
}


def main() -> int:
    words = tuple(sys.argv[1:])
    try:
        if len(words) == 1 and words[0] in ANSWERS:
            print(json.dumps(ANSWERS[words[0]](state.settings()), indent=1))
            return 0
        if words == ("fence",):
            import deadman

            return deadman.main()
        if words in WORK:
            return int(WORK[words](state.settings()))
    except Failure as failure:
        print(json.dumps({"error": failure.body}), flush=True)
        return 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        body = {"what": f"move.py {' '.join(words)}", "why": f"{type(error).__name__}: {error}"}
        print(json.dumps({"error": {**body, "next": "a mistake of ours: see the journal"}}), flush=True)
        raise
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
