"""`bin/bench`: choose what to measure, print the table, write JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import backups, first, machines, moving, single
from tests.bench.figures import Figure, show
from tests.bench.place import bench_world
from tests.e2e.operator import CHECKOUT
from tests.rig.world import why_not

# name -> (what it measures, how): each can be run alone.
PARTS: dict[str, tuple[str, Callable[..., list[Figure]]]] = {
    "help": ("deploy --help", single.help_text),
    "one": ("unchanged up of the stack on one machine, without latency and at 50 ms; memory", single.one),
    "first": ("the first up, against a plain script that installs the same", first.first),
    "bluesky": ("the same with Bluesky, and its unchanged up", first.bluesky),
    "machines": ("unchanged up of the stack on 1, 2 and 4 machines at 50 ms, in turn", machines.machines),
    "bare": ("unchanged up of 1, 2, 4 and 16 machines with base only at 50 ms, in turn", machines.bare),
    "backups": (
        "restore of database and files beside their tools by hand; archiving and commits",
        backups.backups,
    ),
    "moving": ("the pause of a move with 0.1, 1 and 5 GB of database, and 20,000 files", moving.moving),
}
# Those that take long, and those whose sizes can be changed.
LONG, SCALED = ("first", "bluesky", "backups", "moving"), ("backups", "moving")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bin/bench",
        description="Measure speed and size on real machines. Without a name: everything.",
        epilog="\n".join(f"{name:9} {words}" for name, (words, _) in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # `choices` would refuse an empty list.
    parser.add_argument("parts", nargs="*", metavar="NAME", help=f"{', '.join(PARTS)}")
    parser.add_argument("--runs", type=int, default=7, help="counted runs of each quick figure")
    parser.add_argument("--json", type=Path, default=CHECKOUT / "tests" / "artefacts" / "bench.json")
    parser.add_argument("--quick", action="store_true", help="without " + ", ".join(LONG))
    parser.add_argument(
        "--scale", type=float, default=1, help="sizes of `backups` and `moving`, as a share (default 1)"
    )
    asked = parser.parse_args()
    if unknown := sorted(set(asked.parts) - set(PARTS)):
        parser.error(f"no measurement is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if reason := why_not():
        sys.exit(f"bench: {reason}")
    chosen = [
        name for name in PARTS if name in asked.parts or not (asked.parts or (asked.quick and name in LONG))
    ]
    at, before = datetime.now(UTC).isoformat(timespec="seconds"), os.getloadavg()[0]
    figures: list[Figure] = []
    with (
        bench_world() as world,
        tempfile.TemporaryDirectory(prefix="deploy-bench-", dir="/var/tmp") as folder,
    ):
        for name in chosen:
            more = {"scale": asked.scale} if name in SCALED else {}
            figures += PARTS[name][1](world, Path(folder) / name, asked.runs, **more)
    about = {
        "at": at,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load before": before,
        "load after": os.getloadavg()[0],
        "parts": chosen,
        "scale": asked.scale,
    }
    print(", ".join(f"{key}: {value}" for key, value in about.items()))
    show(figures)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    listed = [figure.to_json() for figure in figures]
    asked.json.write_text(json.dumps({**about, "figures": listed}, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {asked.json}")
    if not figures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
