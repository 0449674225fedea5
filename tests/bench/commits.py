"""What archiving to two repositories costs commits: the same load with it and without it, in turn."""

from __future__ import annotations

from tests.bench.figures import Figure
from tests.components.backups.machine import Database
from tests.rig.remote import Remote

# Many short turns: what else the computer does comes in waves.
RUNS = 6
# Seconds of each turn; connections.
SECONDS, CLIENTS = 8, 4
# What the load is -> transactions a second, 0 for as many as there can be.
LOADS = {"100 a second": 100, "as many as possible": 0}
PGBENCH = "/usr/lib/postgresql/17/bin/pgbench"
# Prints median and 99th percentile of the microseconds, and the number. A finished segment at the start: there is
# always one to be archived.
LOAD = """\
set -eo pipefail
rm -f /tmp/commits.*
runuser -u postgres -- psql -Xq -d postgres -o /dev/null -c "SELECT pg_switch_wal()"
cd /tmp
runuser -u postgres -- {program} -n -N -c {clients} -T {seconds} {rate} -l --log-prefix=/tmp/commits postgres >/dev/null
cat /tmp/commits.* | cut -d' ' -f3 | sort -n | awk '{{ all[NR] = $1 }} END {{
    print all[int((NR + 1) / 2)], all[int(NR * 0.99)], NR }}'
"""


def commits(database: Database, runs: int, size: int) -> list[Figure]:
    """size: of pgbench's tables, 15 MB each."""
    from tests.bench.backups import archive

    shell = database.shell
    shell.run(f"runuser -u postgres -- {PGBENCH} -q -i -s {size} postgres", timeout=300)
    figures = []
    for words, rate in LOADS.items():
        found: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
        for number in range(runs + 1):
            for on in (False, True):
                archive(shell, on=on)
                turn = _turn(shell, rate)
                # The first round warms up.
                if number:
                    found[on].append(turn)
        figures += _figures(words, found)
    archive(shell, on=True)
    return figures


def _turn(shell: Remote, rate: int) -> tuple[float, float, float]:
    """Milliseconds: median, 99th percentile; transactions a second."""
    text = LOAD.format(
        program=PGBENCH, clients=CLIENTS, seconds=SECONDS, rate=f"--rate={rate}" if rate else ""
    )
    median, late, number = map(int, shell.run("bash -s", stdin=text, timeout=SECONDS + 120).split())
    return median / 1000, late / 1000, number / SECONDS


def _figures(words: str, found: dict[bool, list[tuple[float, float, float]]]) -> list[Figure]:
    figures = []
    for index, what in enumerate(("median", "99th percentile")):
        off, on = ([turn[index] for turn in found[way]] for way in (False, True))
        figures += [
            Figure(f"commit, {words}: {what}, without archiving", "ms", off),
            Figure(f"commit, {words}: {what}, to two repositories", "ms", on),
            Figure(
                "  with against without", "times", [one / other for one, other in zip(on, off, strict=True)]
            ),
        ]
    done = {way: sum(turn[2] for turn in turns) / len(turns) for way, turns in found.items()}
    figures[0].note = f"{done[False]:.0f} transactions a second without archiving, {done[True]:.0f} with it"
    return figures


def some_wal(database: Database) -> None:
    """A few segments after the backup, all of them in the repositories, for a restore to replay."""
    from tests.components.backups.machine import wait

    database.shell.run(
        f"cd /tmp; runuser -u postgres -- {PGBENCH} -n -N -c {CLIENTS} -T 10 postgres", timeout=120
    )
    segment = database.sql("SELECT pg_walfile_name(pg_switch_wal())")
    done = f"test -e /var/lib/postgresql/17/main/pg_wal/archive_status/{segment}.done"
    wait(f"{segment} archived", lambda: database.shell.attempt(done)[0] == 0, 300)
