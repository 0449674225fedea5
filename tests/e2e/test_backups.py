"""A stack with two backup vendors: what lies there, what happens when one is dead, and the way back from one of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.e2e.conftest import Deployed, local_section, project
from tests.e2e.matrix import Person, number
from tests.e2e.scratch import error, within
from tests.e2e.writing import Writer, nothing_between_is_missing, numbers, unhindered
from tests.rig.objects import Objects
from tests.rig.world import GATEWAY, NUMBER, World

STACK = """\
name: kept
domain: kept.social.test
app: matrix
backup: {files: 1, late: 5, wal_bound: 1}
"""
# More than half of what WAL may take.
SEGMENTS = """for i in $(seq 36); do echo 'SELECT txid_current(); SELECT pg_switch_wal();'; done |
runuser -u postgres -- psql -XAtq -d postgres >/dev/null"""
# seconds; what a repository holds may be so old
RECOVERY_POINT = 60


@dataclass
class Kept(Deployed):
    """vendors: of object storage; person: who signed up; room: where they write."""

    vendors: dict[str, Objects]
    person: Person
    room: str

    def archive(self, name: str) -> dict[str, Any]:
        listed = self.operator.good("backup", "list").result
        (one,) = [entry for entry in listed["repositories"] if entry["name"] == name]
        found: dict[str, Any] = one
        return found

    def sql(self, text: str) -> str:
        machine = "kept-all-1"
        return self.operator.on(machine, f'runuser -u postgres -- psql -XAtq -d synapse -c "{text}"').strip()


@pytest.fixture(scope="module")
def kept(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("kept")
    with ExitStack() as stack:
        vendors = {}
        for name, port in (("east", 9101), ("west", 9102)):
            host = f"{name}{NUMBER or ''}.social.test"
            vendors[name] = stack.enter_context(Objects(folder / name, host, (GATEWAY, port), name=name))
            rig.set_records([{"name": host, "type": "A", "value": GATEWAY}])
            stack.enter_context(vendors[name].known())
        section = local_section(rig, package_layer)
        section += f"  reach: [{', '.join(one.reach for one in vendors.values())}]\n"
        text = "provider: local\nmachines:\n- roles: [all]\n" + section
        drilled = text
        text += "repositories:\n" + "".join(one.section(f"{name}.crt") for name, one in vendors.items())
        operator = project(folder / "project", "kept.social.test", "local", text, folder / "home", "kept")
        (operator.folder / "stack.yaml").write_text(STACK, encoding="utf-8")
        (operator.folder / "inventories" / "drill.yaml").write_text(drilled, encoding="utf-8")
        for name, one in vendors.items():
            (operator.folder / f"{name}.crt").write_text(one.ca, encoding="utf-8")
        summary = operator.good("up", "--yes").result
        made = Kept(operator, "kept.social.test", summary, vendors, None, "")  # type: ignore[arg-type]
        digits = number()
        made.person = Person(
            made.doors,
            made.domain,
            mail=f"reader{digits}@elsewhere.test",
            number=digits,
            mailbox=lambda to: operator.inbox("mail", to),
            phone=lambda to: operator.inbox("sms", to.removeprefix("0")),
        )
        assert made.person.sign_up().status == 200
        made.person.log_in()
        unhindered(operator, "kept-all-1", made.person)
        made.room = made.person.make_room()
        yield made
        operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


def test_everything_lies_with_both_vendors(kept: Kept) -> None:
    created = kept.operator.good("backup", "create").result
    assert created["ok"]
    for name in kept.vendors:
        one = kept.archive(name)
        assert one["archiving"] and one["last_full"], one
        assert one["lag"] <= RECOVERY_POINT, one
        assert kept.vendors[name].keys("*/database/backup/*"), "no backup of the database"
        assert kept.vendors[name].keys("*/files/snapshots/*"), "no snapshot of the files"
        assert kept.vendors[name].keys("*/catalogue/*/secrets.age"), "no bundle"
    # Beside other tests a probe may take longer than it is given.
    deadline = time.monotonic() + 60
    while (status := kept.operator.run("status")).code and time.monotonic() < deadline:
        time.sleep(2)
    assert status.code == 0, (status.result["problems"], status.result["probes"])


def test_nothing_is_left_to_do(kept: Kept) -> None:
    assert kept.operator.good("up", "--yes").result["changed"] == 0
    assert kept.operator.good("plan", "--exit-code").result["changes"] == []


def test_a_wrong_identity_opens_nothing(kept: Kept, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n", encoding="utf-8")
    run = kept.operator.run("restore", "--yes", options=("--json", "--identity", str(other)))
    found = error(run)
    assert run.code != 0 and "identity" in f"{found['what']} {found['why']}" and found["next"], found
    assert kept.operator.run("status").code == 0


@pytest.mark.long
def test_a_dead_vendor_stops_nobody(kept: Kept) -> None:
    kept.vendors["east"].stop()
    try:
        with Writer(kept.person, kept.room) as writer:
            writer.wait_for(10)
            time.sleep(40)
            west = kept.archive("west")
            kept.operator.on("kept-all-1", SEGMENTS)
            within(60, "word that east is out", lambda: "east is out of the archiving" in problems(kept))
            writer.wait_for(max(writer.taken) + 5)
        assert not writer.refused, f"{writer.refused} were refused"
        assert west["archiving"] and west["lag"] <= RECOVERY_POINT, west
        assert kept.archive("west")["lag"] <= RECOVERY_POINT
        east = kept.archive("east")
        assert east["error"] and not east["archiving"], east
    finally:
        kept.vendors["east"].start()
    # By itself, with a full backup.
    deadline = time.monotonic() + 300
    while True:
        east = kept.archive("east")
        good = not east["error"] and east["archiving"] and not east["needs_full"]
        if good and east["lag"] <= RECOVERY_POINT and kept.operator.run("status").code == 0:
            break
        assert time.monotonic() < deadline, (east, problems(kept))
        time.sleep(5)


def problems(kept: Kept) -> str:
    """What makes `status` fail, which then ends with 1."""
    run = kept.operator.run("status")
    assert run.code == (1 if run.result["problems"] else 0), run.result
    return "; ".join(run.result["problems"])


@pytest.mark.parametrize(
    ("words", "proven"),
    [
        (("--from", "west"), ["west"]),
        pytest.param(("--each", "--at", "random"), ["east", "west"], marks=pytest.mark.long),
    ],
)
def test_a_vendor_is_enough_for_a_drill(kept: Kept, words: tuple[str, ...], proven: list[str]) -> None:
    drilled = kept.operator.good("drill", *words).result
    assert drilled["ok"], drilled
    assert [one["repository"] for one in drilled["drills"]] == proven
    for one in drilled["drills"]:
        assert any("signed up" in text for text in one["checks"]), one


@pytest.mark.long
def test_the_service_comes_back_with_all_that_was_written(kept: Kept) -> None:
    with Writer(kept.person, kept.room) as writer:
        writer.wait_for(12)
        kept.operator.good("backup", "create")
        time.sleep(5)
    before = numbers(kept.person, kept.room)
    time.sleep(RECOVERY_POINT)
    kept.operator.good("down", "--yes")
    done = kept.operator.good("restore", "--yes", "--from", "west").result
    kept.summary = done
    kept.person.doors = kept.doors
    record = done["restore"]
    assert record["generation"] == 2 and record["lacks"] == [], record
    kept.person.log_in()
    after = numbers(kept.person, kept.room)
    assert nothing_between_is_missing(after) == max(before)
    for uri, data in writer.pictures.values():
        assert kept.person.download(uri) == data
    held = kept.operator.good("queue", "status").result
    assert held is not None
    assert kept.operator.good("queue", "release").code == 0
    assert kept.operator.good("plan", "--exit-code").result["changes"] == []
