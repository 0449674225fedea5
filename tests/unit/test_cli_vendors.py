"""The verbs about vendors and money on the command line: what the flows are asked, and what is printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from deployer.core.plan import Change, Place, Plan
from tests.unit.test_cli import Run, Stub, project, run, stub

__all__ = ["project", "run", "stub"]

Runner = Callable[..., Run]
OFFER = {
    "inventory": "rack",
    "provider": "fake",
    "type": "m",
    "cores": 2,
    "memory": 4.0,
    "disk": 40,
    "volume": 40,
}
ORPHAN = {
    "inventory": "rack", "kind": "volume", "name": "old-data", "id": "7", "deployment": "old@rack",
    "age": 9 * 86400.0, "price": 4.4, "currency": "EUR", "data": True, "why": "data that a down has kept",
}  # fmt: skip
SKIPPED = [{"inventory": "local", "why": "it sells no machines: they are your own"}]

PLAN = Plan(
    (
        Change("a", "", "machine", "a", "create", "app; m, 10.40 EUR a month"),
        Change("a", "cache", "file", "/etc/x.conf", "change", "content", diff="--- x\n+++ x\n-one\n+two"),
    ),
    machines=(
        Place("a", "create", ("app",), "m", "", 40, 10.4, "EUR"),
        Place("old", "remove", (), "l", "203.0.113.7", 0, 12.5, "EUR"),
    ),
)


@pytest.fixture
def asked(stub: Stub) -> list[Any]:
    """What the flows were asked, request first."""
    seen: list[Any] = []

    def offers(request: Any, sink: Any, *words: Any) -> dict[str, Any]:
        seen.append((request, *words))
        row = {**OFFER, "price": 10.4, "currency": "EUR", "approximate": "table" in words[1]}
        size = {"cores": 2, "memory": 3.0, "disk": 40}
        return {"role": words[0] or "", "size": size if words[0] else {}, "offers": [row], "skipped": SKIPPED}

    def orphans(request: Any, sink: Any, *words: Any) -> dict[str, Any]:
        seen.append((request, *words))
        if words[0]:
            return {"orphans": [], "cost": {}, "deleted": [ORPHAN], "skipped": SKIPPED}
        return {"orphans": [ORPHAN], "cost": {"EUR": 4.4}, "deleted": [], "skipped": []}

    def adopt(request: Any, sink: Any) -> dict[str, Any]:
        seen.append((request,))
        return {
            "deployment": "demo@rack",
            "machines": [
                {"name": "a", "status": "running", "address": "203.0.113.7", "type": "", "created": ""}
            ],
            "missing": ["b"],
            "unwanted": [],
            "changes": None,
            "written": ["/x/machines.json"],
            "notes": ["the machines were not looked at: no SSH"],
        }

    for name, function in (("offers", offers), ("orphans", orphans), ("adopt", adopt)):
        stub(name, function)
    return seen


def test_offers(project: Any, run: Runner, asked: list[Any]) -> None:
    done = run("offers", "--role", "app", "--provider", "rack", "--provider", "local")
    assert done.code == 0 and asked[0][1:] == ("app", ("rack", "local"), ())
    assert done.out.splitlines() == [
        "For app: 2 cores, 3 GiB of memory, 40 GiB of disk",
        "  inventory  type  cores  memory  disk    volume  price",
        "  rack       m     2      4 GiB   40 GiB  40 GiB  10.40 EUR a month",
        "skipped local: it sells no machines: they are your own",
    ]
    assert run("offers", "--json").json[-1]["data"]["offers"][0]["price"] == 10.4
    assert run("offers", "--role", "cook").code == 2


def test_prices_that_the_vendor_did_not_say_are_marked(
    project: Any, run: Runner, asked: list[Any], stub: Stub
) -> None:
    assert "  40 GiB  ~10.40 EUR a month\n" in run("offers", "--provider", "table").out
    about = replace(PLAN, machines=(replace(PLAN.machines[0], approximate=True),))
    stub("plan", lambda request, sink: about)
    done = run("plan", "--provider", "rack")
    assert "  40 GiB  ~10.40 EUR a month\n" in done.out
    assert "All machines: ~10.40 EUR a month; traffic is not counted." in done.out
    assert run("plan", "--provider", "rack", "--json").json[-1]["data"]["approximate"] is True


def test_orphans(project: Any, run: Runner, asked: list[Any]) -> None:
    done = run("orphans")
    assert done.code == 0 and asked[0][1:] == ((), (), ())
    row = "  rack       volume  old-data  7   old@rack    9 days  4.40 EUR a month  holds data  data that a down has kept"
    assert done.out.splitlines()[1:] == [row, "1 left over: 4.40 EUR a month."]
    assert run("orphans", "--json").json[-1]["data"]["orphans"] == [ORPHAN]


def test_orphans_are_deleted_by_name_and_not_without_a_yes(
    project: Any, run: Runner, asked: list[Any]
) -> None:
    refused = run("orphans", "--delete", "old-data")
    assert refused.code == 2 and "add --yes" in refused.err and not asked
    done = run("orphans", "--delete", "old-data", "--delete", "8", "--yes")
    assert asked[0][1] == ("old-data", "8") and asked[0][0].confirm("go?")
    assert "deleted volume old-data (7)\n" in done.out
    assert "Nothing is left over at the vendors that were asked." in done.out


def test_adopt(project: Any, run: Runner, asked: list[Any]) -> None:
    done = run("adopt", "--provider", "rack")
    assert done.code == 0 and asked[0][0].provider == "rack"
    assert done.out.splitlines()[1:] == [
        "  a     running  203.0.113.7",
        "missing: b",
        "wrote /x/machines.json",
        "note: the machines were not looked at: no SSH",
        "This computer knows demo@rack now.",
    ]


def test_the_plan_shows_machines_price_and_what_differs_in_files(
    project: Any, run: Runner, stub: Stub
) -> None:
    seen: list[Any] = []
    stub("plan", lambda request, sink: seen.append(request) or PLAN)
    done = run("plan", "--provider", "rack", "--allow-destroy", "old")
    assert (seen[0].allow_destroy, seen[0].details) == (("old",), False)
    assert "  a     to be made     m                  40 GiB  10.40 EUR a month\n" in done.out
    assert "All machines: 10.40 EUR a month; traffic is not counted.\n" in done.out
    assert "+two" not in done.out
    assert "      -one\n      +two\n" in run("plan", "--provider", "rack", "-v").out
    data = run("plan", "--provider", "rack", "--json").json[-1]["data"]
    assert seen[-1].details and data["cost"] == {"EUR": 10.4}
    assert data["machines"][1]["state"] == "remove" and data["changes"][1]["diff"].endswith("+two")


def test_what_up_and_down_may_destroy(project: Any, run: Runner, stub: Stub) -> None:
    seen: list[Any] = []
    stub("up", lambda request, sink: seen.append(request) or {"changed": 0, "seconds": 1})
    kept = [{"name": "a-data", "id": "7", "price": 4.4, "currency": "EUR"}]
    stub(
        "down",
        lambda request, sink: seen.append(request) or {"deleted": ["a"], "destroyed": ["b"], "kept": kept},
    )
    run("up", "--provider", "rack", "--yes", "--allow-destroy", "x", "--allow-destroy", "y")
    done = run("down", "--provider", "rack", "--yes", "--destroy-data", "demo")
    assert (seen[0].allow_destroy, seen[1].destroy_data) == (("x", "y"), "demo")
    assert "deleted the data volume b\n" in done.out
    assert "the data volume a-data (7) stays, 4.40 EUR a month\n" in done.out
    assert "--destroy-data STACKNAME" in done.out
