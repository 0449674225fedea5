"""`restore` killed anywhere, and from repositories that are damaged, or do not fit: it ends the same, or says what is wrong
and leaves what was there as it was."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from deployer.core import generation
from deployer.core.component import Secret
from deployer.project.bundle import Bundle
from tests.e2e.conftest import Deployed, local_section, project
from tests.e2e.killing import Event, killed
from tests.e2e.matrix import Person, number
from tests.e2e.operator import Run
from tests.e2e.scratch import console, error, nothing_to_do, within
from tests.e2e.writing import Writer, nothing_between_is_missing, numbers
from tests.rig.objects import Damage, Objects
from tests.rig.world import GATEWAY, NUMBER, World

DOMAIN, MACHINE = "broken.social.test", "broken-all-1"
STACK = f"name: broken\ndomain: {DOMAIN}\napp: matrix\nbackup: {{files: 1, late: 60}}\n"
DATABASE, FILES = "deploy-restore-database.service", "deploy-restore-files.service"
# Moments of a restore: an event's kind, words and status, and seconds after it.
MOMENTS = [
    ("notice", "restore from", "", 0.0),
    ("machine", "create machine", "start", 0.1),
    ("stage", "files", "start", 0.3),
    ("step", "database:", "start", 0.0),
    ("step", "database fetched and checked", "ok", 0.1),
    ("notice", "the release", "", 0.0),
    ("stage", "start database", "start", 0.5),
    ("stage", "start app", "start", 1.5),
]

pytestmark = pytest.mark.long


@dataclass
class Broken(Deployed):
    """vendors: of object storage. written: number -> content of what was written. pictures: uri -> bytes."""

    vendors: dict[str, Objects]
    person: Person
    room: str
    machine: Path
    written: dict[int, dict[str, object]]
    pictures: dict[str, bytes]
    # The project and the vendors as they are when the deployment was taken down.
    kept: Path

    def console(self, command: str, *, check: bool = True) -> str:
        return console(self.machine, command, check=check)

    def sql(self, text: str, database: str = "synapse") -> str:
        return self.console(f'runuser -u postgres -- psql -XAtq -d {database} -c "{text}"').strip()

    def same(self) -> None:
        """All that was written is there, and can be read by who wrote it."""
        self.person.doors = self.doors
        self.person.log_in()
        found = numbers(self.person, self.room)
        assert found == self.written
        for uri, data in self.pictures.items():
            assert self.person.download(uri) == data

    def restored(self, done: dict[str, Any]) -> None:
        """After a good restore of what was taken down: the next generation, once; nothing missing, nothing left over."""
        self.summary = done
        assert done["restore"]["generation"] == 2 and done["restore"]["lacks"] == [], done["restore"]
        for vendor in self.vendors.values():
            claims = [key.rpartition("/")[2] for key in vendor.keys("*/generations/*")]
            assert claims == ["000001.json", "000002.json"], (vendor.name, claims)
        self.same()
        assert not (self.folder / ".deploy/local/restore.json").exists()
        nothing_to_do(self.operator)
        left = self.console(
            "ls -d /var/lib/postgresql/17/restored /run/deploy-restore/* 2>/dev/null;"
            " find / -xdev -name '.restored-*' 2>/dev/null; systemctl --failed --no-legend --plain;"
            f" systemctl list-units --all --no-legend --plain {DATABASE} {FILES}",
            check=False,
        )
        assert left.strip() == "", left

    def untouched(self) -> None:
        """What was there before a restore that failed starts with `up`, and is what it was."""
        self.summary = self.operator.good("up", "--yes").result
        self.same()

    def fails(self, *words: str, options: tuple[str, ...] = ("--json",)) -> dict[str, Any]:
        """Run `restore`, which must fail with 1 and say what, why and what to do; its error."""
        return refused(self.operator.run("restore", "--yes", *words, options=options))

    def again(self) -> None:
        """As it was when it had been taken down."""
        if (self.folder / ".deploy/local/machines.json").exists() or self.machine.exists():
            self.operator.run("down", "--yes")
        for name, folder in (("project", self.folder), *((n, v.store) for n, v in self.vendors.items())):
            shutil.rmtree(folder)
            shutil.copytree(self.kept / name, folder, symlinks=True)
        for vendor in self.vendors.values():
            vendor.settle()


def refused(run: Run) -> dict[str, Any]:
    assert run.code == 1, (run.code, run.out[-3000:], run.err[-3000:])
    found = error(run)
    assert found["what"] and found["why"] and found["next"], found
    return found


@pytest.fixture(scope="module")
def living(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """It serves, somebody wrote, and all of that lies with both vendors."""
    folder = tmp_path_factory.mktemp("broken")
    with ExitStack() as stack:
        vendors = {}
        for name, port in (("east", 9111), ("west", 9112)):
            host = f"{name}{NUMBER or ''}.social.test"
            vendors[name] = stack.enter_context(Objects(folder / name, host, (GATEWAY, port), name=name))
            rig.set_records([{"name": host, "type": "A", "value": GATEWAY}])
            stack.enter_context(vendors[name].known())
        text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(rig, package_layer)
        text += f"  reach: [{', '.join(one.reach for one in vendors.values())}]\n"
        text += "repositories:\n" + "".join(one.section(f"{name}.crt") for name, one in vendors.items())
        operator = project(folder / "project", DOMAIN, "local", text, folder / "home", "broken")
        (operator.folder / "stack.yaml").write_text(STACK, encoding="utf-8")
        for name, one in vendors.items():
            (operator.folder / f"{name}.crt").write_text(one.ca, encoding="utf-8")
        summary = operator.good("up", "--yes").result
        machine = rig.folder / "machines" / "machines" / MACHINE
        made = Broken(
            operator,
            DOMAIN,
            summary,
            vendors,
            None,
            "",
            machine,
            {},
            {},
            folder / "kept",  # type: ignore[arg-type]
        )
        write(made)
        yield made
        operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


def write(made: Broken) -> None:
    digits = number()
    made.person = Person(
        made.doors,
        DOMAIN,
        mail=f"reader{digits}@elsewhere.test",
        number=digits,
        mailbox=lambda to: made.operator.inbox("mail", to),
        phone=lambda to: made.operator.inbox("sms", to.removeprefix("0")),
    )
    assert made.person.sign_up().status == 200
    made.person.log_in()
    made.room = made.person.make_room()
    with Writer(made.person, made.room, every=0.05) as writer:
        writer.wait_for(11)
        made.operator.good("backup", "create")
        # WAL after the backup, which a restore cannot do without.
        for _ in range(3):
            made.sql("SELECT pg_switch_wal()")
            writer.wait_for(max(writer.taken) + 3)
    made.written = numbers(made.person, made.room)
    nothing_between_is_missing(made.written)
    made.pictures = dict(writer.pictures.values())
    made.operator.good("backup", "create")
    archived(made)


def archived(made: Broken) -> None:
    """Until both vendors have all that was written so far."""
    segment = made.sql("SELECT pg_walfile_name(pg_switch_wal())")
    for vendor in made.vendors.values():
        within(60, f"{segment} at {vendor.name}", lambda one=vendor: one.keys(f"*/archive/*/{segment}-*"))


@contextlib.contextmanager
def damage(vendor: Objects, pattern: str, how: Damage, last: int = 0) -> Iterator[list[str]]:
    """Damage what matches (only the `last` newest by name), for a while; the keys."""
    chosen = vendor.keys(pattern)[-last:]
    assert chosen, f"{vendor.name} holds nothing like {pattern}"
    before = {key: vendor.path(key).read_bytes() for key in chosen}
    for key in chosen:
        vendor.damage(key.replace("[", "[[]"), how)
    try:
        yield chosen
    finally:
        for key, content in before.items():
            vendor.put(key, content)
        vendor.settle()


def segments(vendor: Objects, number: int = 1) -> list[str]:
    """Keys of the WAL segments of a generation, the oldest first."""
    found = vendor.keys(f"*/{number:06d}/database/archive/main/*/????????????????????????-*")
    return sorted(found, key=lambda key: key.rpartition("/")[2])


# --- it does not fit: the old state stays ---


def test_a_wrong_identity(living: Broken, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n", encoding="utf-8")
    run = living.operator.run("restore", "--yes", options=("--json", "--identity", str(other)))
    assert run.code != 0
    found = error(run)
    assert "identity" in f"{found['what']} {found['why']}" and found["next"], found
    living.same()


def test_a_wrong_cipher(living: Broken) -> None:
    identity = living.operator.home / ".config/deploy/identity.txt"
    names = [secret.name for secret in generation.ciphers(1, "east")]
    right = {name: Bundle(living.folder, (), identity).values[name] for name in names}
    put(living, identity, dict.fromkeys(names, "x" * 32))
    try:
        found = living.fails("--from", "east")
    finally:
        put(living, identity, right)
    assert "password does not fit" in found["why"], found
    living.untouched()


def put(living: Broken, identity: Path, values: Mapping[str, str]) -> None:
    bundle = Bundle(living.folder, (), identity)
    for name, value in values.items():
        bundle.put(Secret(name, "given"), value)
    bundle.save()


def test_a_missing_segment(living: Broken) -> None:
    east = living.vendors["east"]
    key = segments(east)[-2]
    segment = key.rpartition("/")[2][:24]
    with damage(east, key, "delete"):
        verified = living.operator.run("backup", "verify", "--repository", "east")
        assert verified.code == 1
        assert any(segment in f"{one['what']} {one['why']}" for one in bad(verified)), verified.result
        found = living.fails("--from", "east")
        assert segment in found["why"] and "missing" in found["why"], found
        assert "restore to 20" in found["next"] and "another repository" in found["next"], found
        living.untouched()


def bad(run: Run) -> list[dict[str, str]]:
    return [one for entry in run.result["repositories"] for one in entry["damaged"]]


@pytest.mark.long
def test_another_locale(living: Broken) -> None:
    living.sql("CREATE DATABASE odd TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C.UTF-8'", "postgres")
    archived(living)
    found = living.fails("--from", "east")
    assert "odd has C.UTF-8 of libc" in found["why"], found
    living.untouched()
    living.sql("DROP DATABASE odd", "postgres")
    archived(living)


@pytest.mark.long
def test_a_full_disk_for_the_database(living: Broken) -> None:
    where = "/var/lib/postgresql"
    # What a restore that was given up has fetched is not needed.
    living.console(
        f"systemctl stop 'postgresql@*' && rm -rf {where}/17/restored {where}/17/main.before-* &&"
        f" cp -a {where} /var/lib/aside && mount -t tmpfs -o size=1000m none {where} &&"
        f" cp -a /var/lib/aside/. {where}/"
    )
    try:
        found = living.fails("--from", "east")
        assert "MiB left" in found["why"] and "make room" in found["next"], found
        living.untouched()
    finally:
        living.console(
            f"systemctl stop 'postgresql@*'; rm -rf /var/lib/aside; cp -a {where} /var/lib/aside && umount {where}"
            f" && rm -rf {where}/* && cp -a /var/lib/aside/. {where}/ && rm -rf /var/lib/aside"
        )
    living.untouched()


@pytest.mark.long
def test_a_full_disk_for_the_files(living: Broken) -> None:
    media = living.console("ls -d /var/lib/matrix/*media* | head -1").strip()
    living.console(f"cp -a {media} /var/lib/aside && mount -t tmpfs -o size=64k none {media}")
    try:
        found = living.fails("--from", "east")
        assert "disk is full" in found["why"] and "make room" in found["next"], found
    finally:
        living.console(f"umount {media} && rm -rf /var/lib/aside")
    living.untouched()


# --- damage: the other repository ---

PLACES = {
    "database": "*/000001/database/backup/main/*F/bundle/*",
    "files": "*/000001/files/data/*",
}


@pytest.mark.long
@pytest.mark.parametrize("part", PLACES)
@pytest.mark.parametrize("how", ["delete", "truncate", "flip"])
def test_damage_is_named(living: Broken, part: str, how: Damage) -> None:
    with damage(living.vendors["east"], PLACES[part], how) as keys:
        verified = living.operator.run("backup", "verify", "--repository", "east")
        assert verified.code == 1
        named = [one for one in bad(verified) if one["part"] == part]
        assert named and all(one["what"] and one["why"] for one in named), verified.result
        found = living.fails("--from", "east")
        assert "damage" in found["why"] and "another repository" in found["next"], (found, keys)
        living.untouched()


# --- all is gone, and comes back ---


@pytest.fixture(scope="module")
def gone(living: Broken) -> Broken:
    """After the tests above: taken down, and kept as it is then."""
    archived(living)
    living.operator.good("down", "--yes")
    shutil.copytree(living.folder, living.kept / "project", symlinks=True)
    for name, vendor in living.vendors.items():
        shutil.copytree(vendor.store, living.kept / name)
    return living


def at(kind: str, words: str, status: str) -> Callable[[Event], bool]:
    return lambda event: (
        event["kind"] == kind and event["text"].startswith(words) and event.get("status", "") == status
    )


@pytest.mark.parametrize(
    "moments",
    [pytest.param(MOMENTS[1::2], id="some"), pytest.param(MOMENTS, id="all", marks=pytest.mark.long)],
)
def test_killed_again_and_again(gone: Broken, moments: list[tuple[str, str, str, float]]) -> None:
    """One `restore` after the other is killed, each a little further on, and then one is left alone."""
    gone.again()
    for kind, words, status, after in moments:
        process = gone.operator.start("restore", "--yes")
        assert killed(process, at(kind, words, status), after), f"it ended before {words}"
    gone.restored(gone.operator.good("restore", "--yes").result)


def test_a_damaged_repository_gives_way(gone: Broken) -> None:
    """None was named: the next one is taken, and what is wrong with the first is told."""
    gone.again()
    east = gone.vendors["east"]
    key = segments(east)[-2]
    with damage(east, key, "flip"):
        run = gone.operator.good("restore", "--yes")
    told = [event["text"] for event in run.events if event["kind"] == "warning"]
    assert any("taking west instead" in text and key.rpartition("/")[2][:24] in text for text in told), told
    assert run.result["restore"]["repository"] == "west"
    gone.restored(run.result)


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS, ids=[f"{words}-{status}" for _, words, status, _ in MOMENTS])
def test_killed_once(gone: Broken, moment: tuple[str, str, str, float]) -> None:
    gone.again()
    kind, words, status, after = moment
    process = gone.operator.start("restore", "--yes")
    assert killed(process, at(kind, words, status), after), f"it ended before {words}"
    gone.restored(gone.operator.good("restore", "--yes").result)


@pytest.mark.long
@pytest.mark.parametrize("unit", [DATABASE, FILES])
@pytest.mark.parametrize("after", [0.0, 1.0, 3.0])
def test_the_work_on_the_machine_is_killed(gone: Broken, unit: str, after: float) -> None:
    gone.again()
    beside = threading.Thread(target=_kill, args=(gone, unit, after))
    beside.start()
    run = gone.operator.run("restore", "--yes")
    beside.join(120)
    if run.code:
        assert "killed" in refused(run)["why"] or "ended while" in refused(run)["why"], run.out[-1000:]
        run = gone.operator.good("restore", "--yes")
    gone.restored(run.result)


def _kill(gone: Broken, unit: str, after: float) -> None:
    _until_active(gone, unit)
    time.sleep(after)
    gone.console(f"systemctl kill --kill-whom=all --signal=KILL {unit}", check=False)


def _until_active(gone: Broken, unit: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError, OSError):
            if gone.console(f"systemctl is-active {unit}", check=False).strip() == "active":
                return
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.parametrize("after", [0.5, 3.0])
def test_the_machine_starts_anew_in_the_middle(gone: Broken, after: float) -> None:
    gone.again()
    process = gone.operator.start("restore", "--yes")
    _until_active(gone, DATABASE)
    time.sleep(after)
    gone.console("systemd-run --on-active=0 --timer-property=AccuracySec=50ms systemctl reboot --force")
    out, _ = process.communicate(timeout=300)
    assert process.returncode in (0, 1), out[-2000:]
    run = gone.operator.good("restore", "--yes") if process.returncode else Run(0, out, "")
    gone.restored(run.result)
