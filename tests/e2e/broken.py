"""A deployment whose restores are broken off, and whose repositories are damaged: what those tests share."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.core.component import Secret
from deployer.project.bundle import Bundle
from tests.e2e.conftest import Deployed, local_section, project
from tests.e2e.matrix import Person, number
from tests.e2e.operator import CHECKOUT, Run
from tests.e2e.scratch import console, error, nothing_to_do, within
from tests.e2e.writing import Writer, nothing_between_is_missing, numbers
from tests.rig.objects import Damage, Objects
from tests.rig.world import GATEWAY, NUMBER, World

DOMAIN, MACHINE = "broken.social.test", "broken-all-1"
STACK = f"name: broken\ndomain: {DOMAIN}\napp: matrix\nbackup: {{files: 1, late: 60}}\n"
DATABASE, FILES = "deploy-restore-database.service", "deploy-restore-files.service"
# The app is the project's own: as it is shipped, with a step for after a restore.
AFTER = """
after_restore:
- name: jump
  runtime: synapse
  command: "{runtime}/bin/python {config}/jump.py {config}/homeserver.yaml"
"""
JUMP = """\
import sys

import psycopg2
import yaml

settings = yaml.safe_load(open(sys.argv[1]))["database"]["args"]
names = ("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert")
connection = psycopg2.connect(**{name: settings[name] for name in names if name in settings})
with connection, connection.cursor() as cursor:
    cursor.execute("CREATE TABLE IF NOT EXISTS jumps (at timestamptz DEFAULT now())")
    cursor.execute("INSERT INTO jumps DEFAULT VALUES")
"""


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

    def restored(self, done: dict[str, Any], *, broken_off: bool = False) -> None:
        """After a good restore of what was taken down: the next generation, once; nothing missing, nothing left over; the
        app's own step for after a restore was run. broken_off: some restores before it were, and may have run it too."""
        self.summary = done
        assert done["restore"]["generation"] == 2 and done["restore"]["lacks"] == [], done["restore"]
        for vendor in self.vendors.values():
            claims = [key.rpartition("/")[2] for key in vendor.keys("*/generations/*")]
            assert claims == ["000001.json", "000002.json"], (vendor.name, claims)
        self.same()
        jumps = int(self.sql("SELECT count(*) FROM jumps"))
        assert jumps >= 1 if broken_off else jumps == 1, jumps
        assert not (self.folder / ".deploy/local/restore.json").exists()
        nothing_to_do(self.operator)
        left = self.console(
            "ls -d /var/lib/postgresql/17/restored /run/deploy-restore/* 2>/dev/null;"
            " ls /var/lib/deploy/app/matrix/restored 2>/dev/null;"
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


def jumping(root: Path) -> None:
    """The project's own app, which notes in its database that a restore was."""
    folder = root / "templates/apps/matrix"
    shutil.copytree(CHECKOUT / "templates/apps/matrix", folder)
    manifest = (folder / "app.yaml").read_text(encoding="utf-8")
    assert "\nfiles:\n" in manifest
    manifest = manifest.replace("\nfiles:\n", "\nfiles:\n  - {template: jump.py.j2, path: jump.py}\n")
    (folder / "app.yaml").write_text(manifest + AFTER, encoding="utf-8")
    (folder / "jump.py.j2").write_text(JUMP, encoding="utf-8")


@contextlib.contextmanager
def deployed(rig: World, layer: Path, folder: Path) -> Iterator[Broken]:
    """It serves, somebody wrote, and all of that lies with both vendors. It is taken down at the end."""
    with ExitStack() as stack:
        vendors = {}
        for name, port in (("east", 9111), ("west", 9112)):
            host = f"{name}{NUMBER or ''}.social.test"
            vendors[name] = stack.enter_context(Objects(folder / name, host, (GATEWAY, port), name=name))
            rig.set_records([{"name": host, "type": "A", "value": GATEWAY}])
            stack.enter_context(vendors[name].known())
        text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(rig, layer)
        text += f"  reach: [{', '.join(one.reach for one in vendors.values())}]\n"
        text += "repositories:\n" + "".join(one.section(f"{name}.crt") for name, one in vendors.items())
        operator = project(folder / "project", DOMAIN, "local", text, folder / "home", "broken")
        (operator.folder / "stack.yaml").write_text(STACK, encoding="utf-8")
        jumping(operator.folder)
        for name, one in vendors.items():
            (operator.folder / f"{name}.crt").write_text(one.ca, encoding="utf-8")
        summary = operator.good("up", "--yes").result
        machine = rig.folder / "machines" / "machines" / MACHINE
        kept = folder / "kept"
        made = Broken(operator, DOMAIN, summary, vendors, None, "", machine, {}, {}, kept)  # type: ignore[arg-type]
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


def put(made: Broken, values: Mapping[str, str]) -> None:
    """Other values into the operator's bundle."""
    bundle = Bundle(made.folder, (), made.operator.home / ".config/deploy/identity.txt")
    for name, value in values.items():
        bundle.put(Secret(name, "given"), value)
    bundle.save()
