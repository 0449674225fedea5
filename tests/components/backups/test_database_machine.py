"""The database's backups on a real machine, to two vendors of object storage: made, damaged, and restored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deployer.core.keytext import public_ssh
from deployer.core.machine import Deployment, MachineSpec
from deployer.core.model import BackupPolicy
from deployer.pki import keys
from providers import local
from tests.components.backups.machine import STOPPED, UNIT, Database, live, wait
from tests.rig.objects import Damage, Objects
from tests.rig.remote import Remote
from tests.rig.world import NUMBER, why_not

# Of its own, so that it runs beside the world of the other tests.
BRIDGE, PREFIX = f"dbackup{NUMBER}", f"10.{246 + NUMBER % 8}.1"
LONG = pytest.mark.long
WRITER = """\
i=0; while :; do i=$((i+1)); echo "INSERT INTO writes (n) VALUES ($i); SELECT pg_sleep(0.05) \\g /dev/null"; done |
runuser -u postgres -- psql -XAtq -d postgres >/dev/null 2>&1
"""


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Objects, Objects, Database]]:
    """Two vendors, and a machine with a full backup at each."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("vendors")
    key, host_key = keys.ssh(), keys.ssh()
    gateway = f"{PREFIX}.1"
    ports = {"east": 9401, "west": 9402}
    reach = [f"tcp/{port}@{gateway}" for port in ports.values()]
    options = {
        "bridge": BRIDGE,
        "subnet": f"{PREFIX}.0/24",
        "state_dir": str(folder / "state"),
        "reach": reach,
    }
    deployment = Deployment("rig", "backups")
    provider = local.make(options, deployment)
    provider.check()
    provider.prepare()
    spec = MachineSpec(
        "db", ("all",), ssh_keys=(public_ssh(key),), host_key=host_key, host_key_public=public_ssh(host_key)
    )
    machine = provider.create_machine(deployment, spec)
    try:
        with ExitStack() as stack:
            made = []
            for name, port in ports.items():
                (folder / name).mkdir()
                vendor = Objects(folder / name, f"{name}.social.test", (gateway, port))
                made.append(stack.enter_context(vendor))
            shell = Remote(machine.address, key, public_ssh(host_key))
            shell.run(f"echo {gateway} east.social.test west.social.test >>/etc/hosts")
            policy = BackupPolicy()
            database = Database(shell, live([one.repository() for one in made], policy=policy))
            # 128 MiB, so that half of it is four segments.
            database.settings["policy"]["wal_bound"] = 0.125
            database.install()
            for vendor in made:
                wait(f"the first backup at {vendor.name}", lambda v=vendor: ready(database, v.name), 90)
            database.sql(
                "CREATE TABLE writes (n bigint PRIMARY KEY, at timestamptz DEFAULT clock_timestamp());"
            )
            yield made[0], made[1], database
    finally:
        provider.delete_machine(machine)


@pytest.fixture(autouse=True)
def served(vendors: tuple[Objects, Objects, Database]) -> Iterator[None]:
    """A test that failed half-way does not stand in the way of the next one."""
    yield
    vendors[2].serve()


def ready(database: Database, name: str) -> bool:
    entry = database.state(name)
    return bool(entry["archiving"]) and not entry["needs_full"]


def write(database: Database, seconds: float) -> list[tuple[str, int]]:
    """People write for a while; all of it gets to the repositories. (time of commit, number) of each write."""
    database.sql("TRUNCATE writes")
    database.shell.write("/root/writer.sh", WRITER)
    database.shell.run(f"timeout -k 1 {seconds:g} bash /root/writer.sh || true", timeout=seconds + 20)
    rows = database.sql(
        "SELECT to_char(pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), n"
        " FROM writes ORDER BY n"
    )
    # A commit after the last one, or no time before it could be told from the end.
    database.sql("SELECT txid_current()")
    flush(database)
    return [(line.split("|")[0], int(line.split("|")[1])) for line in rows.splitlines()]


def flush(database: Database) -> None:
    segment = database.sql("SELECT pg_walfile_name(pg_switch_wal())")
    status = f"/var/lib/postgresql/17/main/pg_wal/archive_status/{segment}.done"
    wait(f"{segment} archived", lambda: database.shell.attempt(f"test -e {status}")[0] == 0, 60)


def last_write(database: Database) -> int:
    return int(database.sql("SELECT coalesce(max(n), 0) FROM writes"))


def test_a_moment_comes_back_to_the_last_write(vendors: tuple[Objects, Objects, Database]) -> None:
    _, _, database = vendors
    rows = write(database, 4)
    flush(database)
    for name in ("east", "west"):
        status = database.status(name)
        assert status["archiving"] and not status["error"], status
        # Read back from the repository.
        assert status["newest_commit"] >= rows[-1][0][:19], (status, rows[-1])
    for name in ("east", "west"):
        at, number = random.choice(rows[:-1])
        done = database.restore(name, at, id=f"moment-{name}")
        assert done["state"] == "done", done
        assert done["recovered_to"] == at
        assert all(one["good"] for one in done["checks"]), done
        # The same request again changes nothing.
        assert database.restore(name, at, id=f"moment-{name}") == done
        database.serve()
        assert last_write(database) == number
        # Rows go on where they are; for the next one they must all be there again.
        if name == "east":
            database.sql("SELECT 1")
        assert database.sql("SHOW archive_mode; SHOW restore_command").split("\n")[0] == "on"


@LONG
def test_a_backup_right_after_a_promotion(vendors: tuple[Objects, Objects, Database]) -> None:
    """Its checkpoint takes minutes when there is something to write."""
    _, _, database = vendors
    database.sql("CHECKPOINT; CREATE TABLE filler AS SELECT generate_series(1, 200000) AS n")
    data = "/var/lib/postgresql/17/main"
    database.shell.run(
        f"runuser -u postgres -- /usr/lib/postgresql/17/bin/pg_ctl -D {data} -m immediate -w stop; systemctl stop {UNIT};"
        f" systemctl reset-failed {UNIT}; install -o postgres -g postgres /dev/null {data}/standby.signal;"
        f" systemctl start {UNIT}"
    )
    assert database.sql("SELECT pg_promote()") == "t"
    assert database.program("create", "--repository", "east", "--type", "full")["type"] == "full"
    database.sql("DROP TABLE filler")


# Two minutes, until a repository has left and is back.
@pytest.mark.long
def test_a_dead_vendor_neither_stops_nor_fills(vendors: tuple[Objects, Objects, Database]) -> None:
    east, _, database = vendors
    east.stop()
    for round in range(6):
        database.sql(f"INSERT INTO writes (n) VALUES ({1_000_000 + round})")
        database.sql("SELECT pg_switch_wal()")
    wait("east leaves", lambda: not database.state("east")["archiving"], 60)
    entry = database.state("east")
    assert "128 MiB allowed" in entry["out_why"] and entry["needs_full"]
    assert database.state("west")["archiving"]
    wait("no WAL waits", lambda: database.program("status")["wal_waiting"] < 4 << 24, 60)
    status = database.status("west")
    assert not status["error"] and status["lag_seconds"] < 60
    assert database.status("east")["error"]
    east.start()
    wait("east is back with a full backup", lambda: ready(database, "east"), 120)
    assert database.program("verify", "--repository", "east")["damaged"] == []


def test_damage_is_found_and_named(vendors: tuple[Objects, Objects, Database]) -> None:
    _, west, database = vendors
    database.program("create", "--repository", "west", "--type", "full")
    rows = []
    for _ in range(3):
        rows.append(write(database, 1))
    segment = sorted(west.keys("*/archive/main/17-1/*-*.zst"))[-2].split("/")[-1][:24]
    [key] = west.keys(f"*/{segment}-*")
    whole = west.path(key).read_bytes()

    west.damage(f"*/{segment}-*", "flip")
    found = database.program("verify", "--repository", "west")["damaged"]
    assert [one["what"] for one in found] == [f"WAL segment {segment}"], found
    done = database.restore("west", id="flipped")
    assert done["state"] == "failed" and f"the WAL segment {segment} is damaged" in done["error"]["why"], done

    west.path(key).unlink()
    done = database.restore("west", id="gone")
    why, reach = done["error"]["why"], done["error"]["next"].split()[2].rstrip(",")
    assert f"the WAL segment {segment} is missing" in why, done
    # What it offers is kept.
    done = database.restore("west", reach, id="before-it")
    assert done["state"] == "done" and done["recovered_to"] == reach, done
    database.serve()
    west.put(key, whole)


def test_what_cannot_be_restored_leaves_the_old_state(vendors: tuple[Objects, Objects, Database]) -> None:
    _, _, database = vendors
    before = last_write(database)
    repository = database.repository("west")
    cases = {
        "password does not fit": {"repository": {**repository, "database_cipher": "another"}},
        "no database of this generation": {
            "repository": {**repository, "database_key": "demo/000007/database"}
        },
    }
    for number, (why, other) in enumerate(cases.items()):
        done = database.restore("west", id=f"not-{number}", **other)
        assert done["state"] == "failed" and why in done["error"]["why"], done
        assert done["error"]["next"]
    done = database.restore("west", "2020-01-01T00:00:00Z", id="not-early")
    assert "the oldest one ended at" in done["error"]["why"]
    database.serve()
    assert last_write(database) == before


@LONG
@pytest.mark.parametrize("how", ["delete", "truncate", "flip"])
def test_a_damaged_backup_gives_way_to_the_one_before(
    vendors: tuple[Objects, Objects, Database], how: Damage
) -> None:
    """With the WAL since, the one before leads to the same moment."""
    _, west, database = vendors
    # Two of this timeline: a restore into a deployment begins a new archive, and nobody goes over two in one.
    label = [database.program("create", "--repository", "west", "--type", "full")["label"] for _ in "12"][-1]
    at, number = write(database, 1)[-1]
    keys = west.keys(f"*/backup/main/{label}/bundle/*")
    whole = {key: west.path(key).read_bytes() for key in keys}
    west.damage(f"*/backup/main/{label}/bundle/*", how)
    try:
        found = database.program("verify", "--repository", "west")["damaged"]
        done = database.restore("west", at, id=f"older-{how}", timeout=240)
    finally:
        for key, content in whole.items():
            west.put(key, content)
        west.settle()
    assert found and all(one["what"].startswith(f"backup {label}: bundle/") for one in found), found
    assert done["state"] == "done" and done["recovered_to"] == at, (at, done["error"], done)
    assert done["backup"] != label
    assert f"backup {label}: bundle/" in done["damaged"][0], done
    database.serve()
    assert last_write(database) == number


def test_another_major_version(vendors: tuple[Objects, Objects, Database]) -> None:
    """pgBackRest itself writes what it writes for a cluster of 16, into a place of its own."""
    _, _, database = vendors
    before = last_write(database)
    repository = database.repository("west")
    key = repository["database_key"].replace("000001", "000016")
    assert key != repository["database_key"]
    database.shell.run(
        f"sed 's#{repository['database_key']}#{key}#' /etc/deploy/backups/pgbackrest/west.conf >/run/other.conf;"
        " chown postgres /run/other.conf; runuser -u postgres -- pgbackrest --config=/run/other.conf --stanza=main"
        " --no-online --pg-version-force=16 stanza-create",
        timeout=60,
    )
    done = database.restore("west", id="sixteen", repository={**repository, "database_key": key})
    assert "they are of PostgreSQL 16; here is 17" in done["error"]["why"], done
    assert "move by a dump" in done["error"]["next"]
    database.serve()
    assert last_write(database) == before


@LONG
def test_another_locale(vendors: tuple[Objects, Objects, Database]) -> None:
    _, _, database = vendors
    database.sql("CREATE DATABASE odd TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C.UTF-8'")
    before = last_write(database)
    # One of this timeline, as in `test_a_damaged_backup_gives_way_to_the_one_before`.
    database.program("create", "--repository", "west", "--type", "full")
    flush(database)
    done = database.restore("west", id="odd")
    assert done["state"] == "failed" and "odd has C.UTF-8 of libc" in done["error"]["why"], done
    database.serve()
    assert last_write(database) == before
    database.sql("DROP DATABASE odd")
    flush(database)


def test_a_full_disk(vendors: tuple[Objects, Objects, Database]) -> None:
    _, _, database = vendors
    before = last_write(database)
    place = "/var/lib/postgresql"
    database.shell.run(
        f"systemctl stop {STOPPED}; rm -rf {place}/17/restored {place}/17/main.before-*; cp -a {place} /var/lib/aside;"
        f" mount -t tmpfs -o size=900m none {place}; cp -a /var/lib/aside/. {place}/"
    )
    try:
        done = database.restore("west", id="full")
        assert "MiB left" in done["error"]["why"] and "make room" in done["error"]["next"], done
        assert "elsewhere" not in done["error"]
    finally:
        database.shell.run(f"umount {place}; rm -rf /var/lib/aside")
    database.serve()
    assert last_write(database) == before


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param(("copy", "swap"), id="some"),
        pytest.param(("look", "copy", "replay", "check", "sync", "swap"), id="all", marks=LONG),
    ],
)
def test_killed_in_a_phase_it_ends_the_same(
    vendors: tuple[Objects, Objects, Database], phases: tuple[str, ...]
) -> None:
    _, _, database = vendors
    database.program("create", "--repository", "west", "--type", "full")
    rows = write(database, 2)
    for phase in phases:
        at, number = random.choice(rows[:-1])
        request = {"at": at, "id": f"killed-{phase}-{len(phases)}"}
        found = database.restore("west", **request, until_phase=phase)
        # The two renames may be over before it is killed.
        assert found["state"] in (("failed", "done") if phase == "swap" else ("failed",)), (phase, found)
        done = database.restore("west", **request)
        assert done["state"] == "done" and done["recovered_to"] == at, (phase, done)
        assert offline_last_write(database) == number


@pytest.mark.long
def test_twenty_random_moments(vendors: tuple[Objects, Objects, Database]) -> None:
    _, _, database = vendors
    for name in ("east", "west"):
        database.program("create", "--repository", name, "--type", "full")
    rows = write(database, 30)
    for turn in range(20):
        at, number = random.choice(rows[:-1])
        # The archive stays as it is: this machine goes back to the same one each time.
        done = database.restore(random.choice(("east", "west")), at, id=f"random-{turn}")
        assert done["state"] == "done" and done["recovered_to"] == at, (at, done)
        assert offline_last_write(database) == number


def offline_last_write(database: Database) -> int:
    """Read without archiving, so that no new timeline gets into the repositories."""
    database.shell.run(
        "systemd-run --quiet --unit=offline --uid=postgres /usr/lib/postgresql/17/bin/postgres"
        " -D /var/lib/postgresql/17/main --config-file=/etc/postgresql/17/main/postgresql.conf -c archive_mode=off"
    )
    try:
        return int(wait("answers", lambda: _ask(database), 30))
    finally:
        database.shell.run("systemctl stop offline")


def _ask(database: Database) -> str:
    command = "runuser -u postgres -- psql -XAtq -d postgres -c 'SELECT max(n) FROM writes'"
    code, output = database.shell.attempt(command)
    return output.strip() if code == 0 else ""
