"""Backups: a restore beside what its tools need by hand, what archiving costs commits, and the way back of a stack.

Sizes at scale 1: a database of 2 GB (random text, which hardly compresses) and 5,000 files of 1 GB in all.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployer.components.backups import files as files_spec
from deployer.components.backups import guard
from deployer.components.backups import spec as backups_spec
from deployer.core.component import Data
from deployer.flow.wanted import render
from tests.bench import commits, gone
from tests.bench.figures import Figure
from tests.bench.place import reaching, vendors
from tests.components.backups.machine import Database, live, wait
from tests.rig.remote import Remote
from tests.rig.world import World

# Restores of each kind, in turn.
RUNS = 3
# Seconds that one may take.
PATIENCE = 1800
# What the design asks for, against by hand.
AIM = 1.25
FILES = 5000
# The rest of the 2 GB is pgbench's.
DATABASE_BYTES, FILES_BYTES = 1_800_000_000, 1_000_000_000
MEDIA = Data("media", "files", "/var/lib/bench/media", "/var/lib/bench")
PORTS = {"east": 9501, "west": 9502}

# FILES files of random sizes around the mean, in folders of 100. Arguments: where, number, bytes in all.
FILL_FILES = """\
import os, random, sys
where, number, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random.seed(1)
for one in range(number):
    folder = f"{where}/{one // 100:03d}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{one:05d}", "wb") as file:
        file.write(os.urandom(int(random.uniform(0.2, 1.8) * size / number)))
"""
# 960 letters a row: with what a row and a page cost, 8 rows a page of 8192 bytes.
FILL_DATABASE = """\
set -eo pipefail
psql() { runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d postgres "$@"; }
psql -c "CREATE TABLE posts (body text)"
head -c BYTES /dev/urandom | base64 -w 960 | psql -c "COPY posts FROM STDIN"
psql -c "ALTER TABLE posts ADD id bigserial PRIMARY KEY" -c "VACUUM ANALYZE posts"
"""

# Both parts at once, as `deploy restore` starts them; the programs' own notes say when they have ended.
OURS = """\
import json, pathlib, subprocess, sys, time
requests = json.load(sys.stdin)
began, ended = time.monotonic(), {}
for part, request in requests.items():
    subprocess.run(["python3", f"/usr/local/lib/deploy/backups/{part}.py", "restore"], input=json.dumps(request),
                   text=True, check=True, stdout=subprocess.DEVNULL)
while len(ended) < len(requests):
    time.sleep(0.1)
    for part, request in requests.items():
        found = json.loads(pathlib.Path(f"/var/lib/deploy/backups/restore-{part}.json").read_text())
        if part not in ended and found["id"] == request["id"] and found["state"] != "running":
            ended[part] = {**found, "after": time.monotonic() - began}
print(json.dumps(ended))
"""

# Both tools at once, with the settings that the programs give them; the database until it takes writes.
BY_HAND = """\
set -eo pipefail
since() { awk -v began=$1 'BEGIN { getline now < "/proc/uptime"; split(now, a, " "); printf "%.2f\\n", a[1] - began }'; }
cd /
began=$(cut -d' ' -f1 /proc/uptime)
new=/var/lib/postgresql/17/byhand
cores=$(nproc)
database() {
    install -d -m 700 -o postgres -g postgres $new
    runuser -u postgres -- pgbackrest --config=/etc/deploy/backups/pgbackrest/east.conf --stanza=main \
        --pg1-path=$new --process-max=$((cores < 2 ? 2 : cores > 8 ? 8 : cores)) --log-level-console=off \
        --archive-mode=off --type=default restore
    since $began >/run/copied
    systemd-run --quiet --collect --unit=byhand --uid=postgres /usr/lib/postgresql/17/bin/postgres \
        --config-file=/etc/postgresql/17/main/postgresql.conf -c data_directory=$new -c archive_mode=off
    until [ "$(runuser -u postgres -- psql -XAtq -d postgres -c 'SELECT pg_is_in_recovery()' 2>/dev/null)" = f ]; do
        sleep 0.1
    done
    since $began >/run/database
}
files() {
    restic --cache-dir /var/cache/byhand --cacert /etc/deploy/backups/east.crt -o s3.bucket-lookup=path \
        --quiet restore latest:/var/lib/bench/media --target /var/lib/bench/byhand
    since $began >/run/files
}
database & one=$!
files & other=$!
wait $one
wait $other
since $began
cat /run/copied /run/database /run/files
"""


def backups(world: World, folder: Path, runs: int, scale: float) -> list[Figure]:
    """On one machine with a database and files, and two vendors: commits first, since they make WAL to replay."""
    with _machine(world, folder) as database:
        _fill(database, scale)
        slower = commits.commits(database, min(runs, commits.RUNS), max(1, round(10 * scale)))
        restores = _restores(database, min(runs, RUNS), scale)
    return [*restores, *gone.gone(world, folder / "gone", scale), *slower]


@contextmanager
def _machine(world: World, folder: Path) -> Iterator[Database]:
    """PostgreSQL and the programs of both parts, made from the specs as `up` does it."""
    folder.mkdir(parents=True)
    reaching(world, PORTS)
    machine, shell = world.bare("backups")
    with ExitStack() as stack:
        stack.callback(world.provider.delete_machine, machine)
        stack.callback(shell.close)
        stores = stack.enter_context(vendors(world, folder, PORTS))
        names = " ".join(one.host for one in stores.values())
        shell.run(f"echo {next(iter(stores.values())).address} {names} >>/etc/hosts")
        database = Database(shell, live([one.repository() for one in stores.values()]))
        database.settings["data"] = [asdict(MEDIA)]
        database.install()
        _files_programs(shell, database)
        yield database


def _files_programs(shell: Remote, database: Database) -> None:
    shell.run("apt-get -q -y install --no-install-recommends restic", timeout=300)
    for file in (*files_spec.programs(), guard.program("ground.py")):
        shell.write(file.path, render(file, Path("/nonexistent")).decode())
        shell.run(f"chmod {file.mode:o} {file.path}")
    shell.write(files_spec.SETTINGS, json.dumps({"first": True, "release": {}, "references": []}))
    shell.run(f"mkdir -p {MEDIA.where}")
    assert json.loads(shell.run(f"cat {backups_spec.SETTINGS}"))["data"]


def fill(shell: Remote, media: str, scale: float) -> None:
    """The data, as root on a machine whose database runs. Their WAL goes nowhere: it would take longer than they."""
    archive(shell, on=False)
    number, size = max(1, int(FILES * scale)), int(FILES_BYTES * scale)
    shell.run(f"python3 - {shlex.quote(media)} {number} {size}", stdin=FILL_FILES, timeout=PATIENCE)
    # base64 makes four bytes of three, and a page of 8192 bytes holds 8 rows of 960.
    script = FILL_DATABASE.replace("BYTES", str(int(DATABASE_BYTES * scale * 3 / 4 * 8 * 961 / 8192)))
    shell.run("bash -s", stdin=script, timeout=PATIENCE)
    archive(shell, on=True)


def archive(shell: Remote, *, on: bool) -> None:
    """Every segment to all repositories, or nowhere; takes a reload."""
    command = "RESET archive_command" if on else "SET archive_command = '/bin/true'"
    shell.run(
        f'runuser -u postgres -- psql -Xq -d postgres -c "ALTER SYSTEM {command}" -c "SELECT pg_reload_conf()"'
    )


def _fill(database: Database, scale: float) -> None:
    for name in PORTS:
        wait(f"{name} in the archiving", lambda one=name: database.state(one)["archiving"], 120)
    fill(database.shell, MEDIA.where, scale)


# --- restores ---


def _restores(database: Database, runs: int, scale: float) -> list[Figure]:
    shell = database.shell
    made = database.program("create", "--repository", "east", "--type", "full", timeout=PATIENCE)
    assert "error" not in made or not made["error"], made
    shell.run("python3 /usr/local/lib/deploy/backups/files.py create --repository east", timeout=PATIENCE)
    commits.some_wal(database)
    shell.run("systemctl stop deploy-backups-watch deploy-backups-heartbeat postgresql@17-main")
    ours = Figure("restore of database and files, by the programs", "s")
    hand = Figure("pgbackrest restore and restic restore by hand, at once", "s")
    after = Figure("  one after the other", "s")
    for number in range(runs):
        # Each goes first in half of the rounds.
        if number % 2:
            by_hand, found = _by_hand(database), _ours(database, f"bench-{number}")
        else:
            found, by_hand = _ours(database, f"bench-{number}"), _by_hand(database)
        whole, copied, ready, fetched = by_hand
        ours.runs.append(max(one["after"] for one in found.values()))
        ours.note = "; ".join(_phases(part, one) for part, one in found.items())
        hand.runs.append(whole)
        after.runs.append(ready + fetched)
        hand.note = (
            f"database copied after {copied:.1f} s, ready after {ready:.1f}; files there after {fetched:.1f}"
        )
    size = sum(int(one["total_bytes"]) for one in found.values())
    ratio = Figure("  the programs against by hand, at once", "times", aim=AIM)
    ratio.runs = [one / other for one, other in zip(ours.runs, hand.runs, strict=True)]
    speed = Figure("  the programs", "MB/s", [size / 1e6 / one for one in ours.runs])
    speed.note = f"{size / 1e6:.0f} MB in all, at scale {scale:g}"
    return [ours, hand, after, ratio, speed]


def _clean(shell: Remote) -> None:
    """No cache, nothing of the run before, and nothing left to be written."""
    shell.run(
        "rm -rf /var/lib/postgresql/17/*.before-* /var/lib/postgresql/17/byhand /var/lib/bench/*.before-*"
        " /var/lib/bench/byhand /var/cache/byhand /var/cache/deploy-backups; sync",
        timeout=PATIENCE,
    )


def _ours(database: Database, id: str) -> dict[str, Any]:
    _clean(database.shell)
    request = {"id": id, "repository": database.repository("east"), "target": {"kind": "latest"}, "point": ""}
    request |= {"data": [asdict(MEDIA)], "hold_queues": True, "amcheck": False}
    database.shell.write("/run/ours.py", OURS)
    text = json.dumps({"database": request, "files": request})
    found: dict[str, Any] = json.loads(
        database.shell.run("python3 /run/ours.py", stdin=text, timeout=PATIENCE)
    )
    assert all(one["state"] == "done" for one in found.values()), found
    return found


def _by_hand(database: Database) -> list[float]:
    """Seconds: in all; until the database was copied; until it took writes; until the files were there."""
    _clean(database.shell)
    one = database.repository("east")
    place = f"s3:{one['endpoint']}/{one['bucket']}/{one['files_key']}"
    environment = {"RESTIC_PASSWORD": one["files_password"], "RESTIC_REPOSITORY": place}
    environment |= {"AWS_ACCESS_KEY_ID": one["key"], "AWS_SECRET_ACCESS_KEY": one["secret"]}
    script = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()) + BY_HAND
    try:
        out = database.shell.run("bash -s", stdin=script, timeout=PATIENCE)
    finally:
        database.shell.run("systemctl stop byhand || true")
    return [float(line) for line in out.split()[-4:]]


def _phases(part: str, found: dict[str, Any]) -> str:
    words = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["seconds"].items())
    return f"{part} {found['after']:.1f} s ({words})"
