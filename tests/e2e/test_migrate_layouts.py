"""A service on two machines, its database apart, moves onto one machine and back while somebody writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.conftest import Deployed, local_section, project
from tests.e2e.matrix import Person, number
from tests.e2e.operator import Operator
from tests.e2e.writing import Writer, numbers, unhindered
from tests.rig.objects import Objects
from tests.rig.world import GATEWAY, NUMBER, World

# Three machines and two moves: seven minutes.
pytestmark = pytest.mark.long

NAME, DOMAIN = "pair", "pair.social.test"
LAYOUTS = {
    "two": "- roles: [app, mail, sms]\n- {name: pair-data-1, roles: [database]}\n",
    "one": "- {name: pair-whole-1, roles: [all]}\n",
}


class Pair(Deployed):
    """operator: at the inventory that is live first."""

    def at(self, layout: str) -> Operator:
        return replace(self.operator, inventory=layout)

    def somebody(self, layout: str) -> Person:
        """Signed up at the public doors, by a mail and an SMS that this layout sent."""
        digits, operator = number(), self.at(layout)
        found = Person(
            self.doors,
            self.domain,
            mail=f"reader{digits}@elsewhere.test",
            number=digits,
            mailbox=lambda to: operator.inbox("mail", to),
            phone=lambda to: operator.inbox("sms", to.removeprefix("0")),
        )
        assert found.sign_up().status == 200
        found.log_in()
        return found


@pytest.fixture(scope="module")
def pair(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        stores = {}
        for name, port in (("east", 9701), ("west", 9702)):
            host = f"{name}{NUMBER or ''}.social.test"
            stores[name] = stack.enter_context(Objects(folder / name, host, (GATEWAY, port), name=name))
            rig.set_records([{"name": host, "type": "A", "value": GATEWAY}])
            stack.enter_context(stores[name].known())
        section = local_section(rig, package_layer)
        section += f"  reach: [{', '.join(one.reach for one in stores.values())}]\n"
        section += "repositories:\n" + "".join(one.section(f"{name}.crt") for name, one in stores.items())
        texts = {name: f"provider: local\nmachines:\n{text}{section}" for name, text in LAYOUTS.items()}
        operator = project(folder / "project", DOMAIN, "two", texts["two"], folder / "home", NAME)
        (operator.folder / "inventories" / "one.yaml").write_text(texts["one"], encoding="utf-8")
        for name, one in stores.items():
            (operator.folder / f"{name}.crt").write_text(one.ca, encoding="utf-8")
        for layout in LAYOUTS:
            stack.callback(replace(operator, inventory=layout).run, "down", "--yes")
        yield Pair(operator, DOMAIN, operator.good("up", "--yes").result)
    shutil.rmtree(folder, ignore_errors=True)


def test_two_machines_onto_one_and_back(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    person = pair.somebody("two")
    unhindered(pair.operator, "pair-data-1", person)
    room, told = person.make_room(), []
    # Who knows the first machine's address only goes on there: it sends on what it gets.
    with Writer(person, room) as writer:
        writer.wait_for(5)
        for layout, words in (("one", ("--from", "two", "--to", "one")), ("two", ("--back",))):
            done = pair.at(layout).good("migrate", "--yes", *words).result["migrate"]
            told.append(f"{done['from']} -> {done['to']}: pause {done['pause_seconds']:.2f} s")
            writer.wait_for(max(writer.taken) + 10)
            other = "two" if layout == "one" else "one"
            assert pair.at(layout).good("plan", "--exit-code").result["changes"] == []
            assert pair.at(layout).good("status").result["ok"]
            assert pair.at(other).run("status").result["standby_of"] == f"{NAME}@{layout}"
    assert not writer.refused, f"{writer.refused} requests were refused"
    found = numbers(person, room)
    assert set(writer.taken) <= set(found), sorted(set(writer.taken) - set(found))
    for uri, data in writer.pictures.values():
        assert person.download(uri) == data
    assert pair.somebody("two")
    with capsys.disabled():
        print(f"\n{'; '.join(told)}; {len(writer.taken)} writes, {len(writer.pictures)} pictures")
