"""Moving: does the pause grow with the data? One stack between two places, with more of it each time.

Sizes at scale 1: databases of 0.1, 1 and 5 GB (random text, which hardly compresses) and 20,000 files of 2 GB at the end.
Every move after the first leads back to a side that has followed since, so the copy is measured once.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployer.core.keytext import public_ssh
from deployer.core.machine import Deployment
from providers import local
from tests.bench.backups import archive
from tests.bench.figures import Figure
from tests.bench.place import local_section, operator, reaching, vendors
from tests.e2e.operator import Operator
from tests.rig.objects import Objects
from tests.rig.remote import Remote
from tests.rig.world import World

PORTS = {"east": 9505, "west": 9506}
NAME = "moving"
PLACES = ("here", "there")
# Bytes of the database before each move, and the files' share of theirs.
SIZES = (100_000_000, 1_000_000_000, 5_000_000_000)
FILES, FILES_BYTES = 20_000, 2_000_000_000
# Seconds for one move.
PATIENCE = 3600
FILL_DATABASE = """\
set -eo pipefail
psql() { runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d synapse "$@"; }
psql -c "CREATE TABLE IF NOT EXISTS bench_posts (id bigserial PRIMARY KEY, body text)"
head -c BYTES /dev/urandom | base64 -w 960 | psql -c "COPY bench_posts (body) FROM STDIN"
psql -c "VACUUM ANALYZE bench_posts" -c CHECKPOINT
"""
# Arguments: where, first number, number behind the last, bytes of one on average.
FILL_FILES = """\
import os, random, sys
where, first, last, size = sys.argv[1], *map(int, sys.argv[2:])
random.seed(first)
for one in range(first, last):
    folder = f"{where}/bench/{one // 100:03d}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{one:05d}", "wb") as file:
        file.write(os.urandom(int(random.uniform(0.2, 1.8) * size)))
"""


def moving(world: World, folder: Path, runs: int, scale: float) -> list[Figure]:
    """Three moves. On a machine with two cores everything is on the same disk, so copying is slower than it need be."""
    world.start_names()
    reaching(world, PORTS)
    figures: list[Figure] = []
    with ExitStack() as stack:
        stores = stack.enter_context(vendors(world, folder, PORTS))
        for one in stores.values():
            stack.enter_context(one.known())
            world.set_records([{"name": one.host, "type": "A", "value": one.address}])
        who = _project(world, folder / "operator", stores)
        for place in PLACES:
            stack.callback(replace(who, inventory=place).run, "down", "--yes")
        # On a busy computer a probe may be late; the next run goes on from there.
        if who.run("up", "--yes").code:
            who.good("up", "--yes")
        who.good("backup", "create", timeout=PATIENCE)
        place, words = "here", ["--from", "here", "--to", "there"]
        before = 0
        for index, size in enumerate(SIZES):
            wanted = int(size * scale)
            _fill(who, place, wanted - before, index, scale)
            before = wanted
            # What was written at once would otherwise be backed up, vacuumed and moved at the same time.
            replace(who, inventory=place).run("backup", "create", timeout=PATIENCE)
            # Gigabytes written within a minute: this computer's one disk would be busy with them in the pause.
            os.sync()
            done = who.run("migrate", *words, "--yes", timeout=PATIENCE)
            for _ in range(2):
                if done.code:
                    # Moved, and a probe was late while the new side makes its first backups.
                    done = who.run("migrate", "--resume", "--yes", timeout=PATIENCE)
            if done.code:
                print(f"no move: {done.out[-2000:]}{done.err[-500:]}")
                break
            figures += _figures(done.result["migrate"], wanted)
            place = "there" if place == "here" else "here"
            words = ["--back"]
    return figures


def _project(world: World, folder: Path, stores: Mapping[str, Objects]) -> Operator:
    text = local_section(world) + f"  nameservers: [{world.internet.address}]\n"
    text += "repositories:\n" + "".join(one.section(f"{name}.crt") for name, one in stores.items())

    def inventory(place: str) -> str:
        return f"provider: local\nmachines:\n- {{name: {NAME}-{place}, roles: [all]}}\n" + text

    who = operator(folder, NAME, "here", inventory("here"))
    (who.folder / "inventories" / "there.yaml").write_text(inventory("there"), encoding="utf-8")
    for name, one in stores.items():
        (who.folder / f"{name}.crt").write_text(one.ca, encoding="utf-8")
    return who


def _fill(who: Operator, place: str, more: int, index: int, scale: float) -> None:
    """So many more bytes in the database, and a third of the files."""
    machine = f"{NAME}-{place}"
    provider = local.make(_options(who, place), Deployment(NAME, place))
    address = next(
        one.address for one in provider.list_machines(Deployment(NAME, place)) if one.name == machine
    )
    shell = Remote(
        address,
        who.secret("ssh/deploy") + "\n",
        public_ssh(who.secret(f"ssh/host/{machine}") + "\n"),
    )
    data = json.loads(shell.run("cat /etc/deploy/backups/settings.json"))["data"]
    media = next(one["where"] for one in data if one["name"].endswith("media"))
    # Their WAL goes to the other side only; base64 makes 4 of 3.
    archive(shell, on=False)
    shell.run(f"bash -c {shlex.quote(FILL_DATABASE.replace('BYTES', str(more * 3 // 4)))}", timeout=PATIENCE)
    archive(shell, on=True)
    count = int(FILES * scale)
    first, last = (count * part // len(SIZES) for part in (index, index + 1))
    arguments = f"{media} {first} {last} {FILES_BYTES // FILES}"
    shell.run(f"python3 -c {shlex.quote(FILL_FILES)} {arguments}", timeout=PATIENCE)
    shell.run(f"chown -R --reference={media} {media}")
    shell.close()


def _options(who: Operator, place: str) -> dict[str, Any]:
    import yaml

    text = (who.folder / "inventories" / f"{place}.yaml").read_text(encoding="utf-8")
    options: dict[str, Any] = yaml.safe_load(text)["local"]
    return options


def _figures(record: Mapping[str, Any], size: int) -> list[Figure]:
    words = f"{size / 1e9:.2g} GB"
    phases = {one["name"]: one["seconds"] for one in record["phases"]}
    watch = record.get("watch") or {}
    pause = Figure(f"pause of a move with {words}", "s", [record["pause_seconds"]], machines=2)
    pause.note = (
        f"of it the app's start {record['app_start_seconds']:.2f} s; longest wait seen from outside "
        f"{watch.get('longest_wait', 0):.2f} s, {watch.get('failed', 0)} failed; "
        + ", ".join(f"{name} {seconds:.2f}" for name, seconds in record["cutover"].items())
    )
    copy = Figure("  copy before it", "s", [phases.get("copy", 0.0)], machines=2)
    return [pause, copy, Figure("  the whole command", "s", [record["total_seconds"]], machines=2)]
