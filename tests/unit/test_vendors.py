"""Flows over a vendor's account, with a vendor in memory: sizes, price, deleting, what is left over, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import DeployError, InputError, UnreachableError
from deployer.core.events import Event
from deployer.core.machine import ROLES, SIZES, Deployment, MachineSpec, Opening, Size
from deployer.core.plan import Change
from deployer.core.provider import ByHand
from deployer.flow import adopt as adopting
from deployer.flow import plan as planning
from deployer.flow import session as sessions
from deployer.flow import sizes
from deployer.flow import up as upping
from deployer.flow.adopt import adopt
from deployer.flow.down import down
from deployer.flow.look import View
from deployer.flow.observe import nothing
from deployer.flow.offers import offers
from deployer.flow.orphans import orphans
from deployer.flow.plan import plan
from deployer.flow.request import Request
from deployer.flow.up import up
from tests.unit.fakevendor import OFFERS, Account, Fake, machine, register, resource

US = Deployment("agora", "cloud")
ALL, DB = "agora-app-mail-sms-1", "agora-database-1"


class SilentEngine:
    """Machines that answer nothing; the tests say what was found on them."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def send(self, verb: str, **arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result({one["name"]: {} for one in arguments.get("machines", ())})
        return future

    def ask(self, verb: str, **arguments: Any) -> Any:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    made = Account()
    register(monkeypatch, made)
    monkeypatch.setattr(sessions, "Engine", SilentEngine)
    monkeypatch.setattr(upping, "_outer", lambda *_: [])
    for module in (planning, upping, adopting):
        monkeypatch.setattr(module, "look", as_wanted)
    return made


def as_wanted(session: Any, machines: Mapping[str, Any], *_: object, **__: object) -> View:
    """A look at machines on which nothing differs and every probe is green."""
    specs = session.specs(machines, {})
    green = {
        name: {
            f"{spec.name}/{probe.name}": {"ok": True, "detail": "", "seconds": 0}
            for spec in listed
            for probe in spec.probes
        }
        for name, listed in specs.items()
    }
    found = {
        name: replace(nothing(name), raw={**nothing(name).raw, "probes": green[name]}) for name in machines
    }
    return View(machines, specs, session.wanted(specs), found, ())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "project"
    (folder / "inventories").mkdir(parents=True)
    (folder / "stack.yaml").write_text("name: agora\ndomain: agora.example\napp: matrix\n")
    inventory(folder, "- roles: [app, mail, sms]\n- roles: [database]\n")
    return folder


def inventory(folder: Path, machines: str, name: str = "cloud", provider: str = "fake") -> None:
    text = f"provider: {provider}\nmachines:\n{machines}acme: {{directories: []}}\n"
    (folder / "inventories" / f"{name}.yaml").write_text(text)


class Log:
    """A sink."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def warnings(self) -> str:
        return "\n".join(event.text for event in self.events if event.kind == "warning")


def asked(root: Path, **more: Any) -> Request:
    return Request(root, "cloud", **more)


def spec(*roles: str) -> MachineSpec:
    return MachineSpec("m1", roles, sizes.total(SIZES[role] for role in roles))


# --- sizes ---


def test_roles_share_cores_and_neither_memory_nor_disk() -> None:
    assert sizes.total(SIZES[role] for role in ROLES) == Size(2, 8, 100)
    assert sizes.total([]) == Size()


def test_the_cheapest_that_fits_whatever_the_order() -> None:
    assert sizes.pick(spec("app"), "", OFFERS[::-1], volume=True).name == "m"
    assert sizes.pick(spec(*ROLES), "", OFFERS, volume=True).name == "l"


def test_the_types_disk_holds_the_data_only_where_no_volume_does() -> None:
    assert sizes.pick(spec(*ROLES), "", OFFERS, volume=False).name == "xl"


def test_an_unknown_type_is_told_with_what_fits() -> None:
    with pytest.raises(InputError) as error:
        sizes.pick(spec(*ROLES), "xxl", OFFERS, volume=True)
    assert 'no type "xxl"' in error.value.why and 'did you mean "xl"' in error.value.why
    assert "l (4 cores, 8 GiB, 12.00 EUR); xl" in error.value.next
    assert error.value.machine == "m1"


def test_nothing_fits() -> None:
    with pytest.raises(DeployError, match="none of the vendor's 4 types here has 99 cores"):
        sizes.pick(replace(spec("app"), size=Size(99, 1, 1)), "", OFFERS, volume=True)


def test_machines_are_made_of_the_type_volume_and_openings_that_follow(root: Path, account: Account) -> None:
    questions: list[str] = []
    up(asked(root, confirm=lambda question: not questions.append(question)), Log())
    app, database = account.specs[ALL], account.specs[DB]
    assert (app.type, app.volume) == ("l", 60) and (database.type, database.volume) == ("m", 40)
    assert [opening.number for opening in app.openings] == [22, 25, 80, 443]
    assert database.openings == (Opening(22),), "its own port is for the stack's machines alone"
    assert "2 machine(s) to make or start for agora@cloud, 28.00 EUR a month" in questions[0]


def test_the_named_type_is_taken_though_it_is_small(root: Path, account: Account) -> None:
    inventory(root, "- {roles: [all], type: s}\n")
    log = Log()
    up(asked(root), log)
    assert account.specs["agora-all-1"].type == "s"
    assert "less than the roles of agora-all-1 need: 2 cores, 8 GiB" in log.warnings


def both(account: Account) -> None:
    account.machines |= {ALL: machine(ALL, US), DB: machine(DB, US, type="m")}


def test_an_unchanged_up_asks_for_no_offers(root: Path, account: Account) -> None:
    both(account)
    body = up(asked(root), Log())
    assert body["changed"] == 0
    assert sorted(account.calls) == [f"drift {ALL}", f"drift {DB}", "list"]


def test_a_type_that_the_inventory_names_later_is_told(root: Path, account: Account) -> None:
    inventory(root, "- {roles: [all], type: xl}\n")
    account.machines["agora-all-1"] = machine("agora-all-1", US)
    found = plan(asked(root), Log())
    assert "agora-all-1: type l -> xl is not changed by up: stop the machine" in found.warnings[0]
    assert found.empty, "up would do nothing about it"


# --- plan ---


def test_the_plan_of_what_does_not_exist_says_what_and_how_much(root: Path, account: Account) -> None:
    found = plan(asked(root, details=True), Log())
    assert {"check", f"create {ALL}"}.isdisjoint(account.calls)
    made = {(change.machine, change.kind): change for change in found.changes if not change.component}
    assert made[ALL, "machine"].detail == "app, mail, sms; l, 18.00 EUR a month"
    assert made[DB, "volume"].name == f"{DB}: 40 GiB"
    assert made[ALL, "firewall"].detail == "lets in 22/tcp, 25/tcp, 80/tcp, 443/tcp"
    assert found.cost == {"EUR": 28.0} and found.to_json()["cost"] == {"EUR": 28.0}
    assert [place.state for place in found.machines] == ["create", "create"]
    files = {
        change.name: change for change in found.changes if change.machine == ALL and change.kind == "file"
    }
    assert files["/etc/systemd/system/var-spool-postfix.mount"].diff
    assert "+(known after create) agora-database-1" in files["/etc/deploy/hosts"].diff
    assert files["/etc/ssh/ssh_host_ed25519_key"].diff == "(secret)"
    assert "192.0.2.1 " not in "".join(change.diff for change in found.changes)


def test_the_plan_of_what_exists(root: Path, account: Account) -> None:
    both(account)
    found = plan(asked(root), Log())
    assert found.empty and found.cost == {"EUR": 25.0}
    assert "offers" not in account.calls


# --- drift ---

CLOSED = "firewall agora-cloud: rules to change: + tcp 22 from everywhere"


def test_what_was_changed_at_the_vendor_shows_and_is_put_back(root: Path, account: Account) -> None:
    both(account)
    account.drift = {ALL: [CLOSED, "server x: without the label a"], DB: [CLOSED]}
    changes = plan(asked(root), Log()).changes
    assert changes == (
        Change(ALL, "", "firewall", "agora-cloud", "change", "rules to change: + tcp 22 from everywhere"),
        Change(ALL, "", "machine", "server x", "change", "without the label a"),
    )
    assert account.specs[ALL].openings, "it is compared with what it shall be"
    body = up(asked(root), Log())
    assert body["changed"] == 2 and not account.drift
    assert up(asked(root), Log())["changed"] == 0


def test_what_only_the_operator_can_change_is_a_warning_and_nothing_to_do(
    root: Path, account: Account
) -> None:
    both(account)
    account.drift = {ALL: [ByHand("zone eu-1: the inventory says eu-2; move it by a backup")]}
    found = plan(asked(root), Log())
    told = "zone eu-1: the inventory says eu-2; move it by a backup (up does not change that)"
    assert found.empty and found.warnings[0] == told
    log = Log()
    assert up(asked(root), log)["changed"] == 0 and told in log.warnings
    assert f"mend {ALL}" not in account.calls
    account.drift[ALL].append(CLOSED)
    log = Log()
    assert up(asked(root), log)["changed"] == 1 and log.warnings.count(told) == 1
    assert "still so at the vendor" not in log.warnings
    assert f"mend {ALL}" in account.calls


def test_a_volume_that_grew_is_looked_at_again_on_its_machine(
    root: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there is to do inside shows once the vendor has made it larger."""
    both(account)
    account.drift = {DB: ["volume data: 20 GiB, to be 40 (0.88 EUR a month more)"]}
    listed = plan(asked(root), Log()).changes
    assert [(change.kind, change.name) for change in listed] == [("volume", "data")]
    looks: list[bool] = []

    def seen(*words: Any, **named: Any) -> View:
        looks.append(bool(account.drift))
        return as_wanted(*words, **named)

    monkeypatch.setattr(upping, "look", seen)
    assert up(asked(root), Log())["changed"] == 1
    assert looks == [True, False] and account.calls.count("list") == 3


def test_a_reverse_name_changed_by_hand_is_seen_and_put_back(
    root: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"203.0.113.7": "mail.agora.example"}
    monkeypatch.setattr(Fake, "reverse_dns", lambda _, machine: dict(names), raising=False)
    monkeypatch.setattr(
        Fake, "set_reverse_dns", lambda _, machine, name: names.update({machine.address: name}), raising=False
    )
    both(account)
    assert plan(asked(root), Log()).empty and up(asked(root), Log())["changed"] == 0
    names["203.0.113.7"] = "static.example.net"
    assert plan(asked(root), Log()).changes == (
        Change(
            ALL,
            "",
            "dns",
            "reverse name of 203.0.113.7",
            "change",
            "static.example.net -> mail.agora.example",
        ),
    )
    assert up(asked(root), Log())["changed"] == 1
    assert names == {"203.0.113.7": "mail.agora.example"}


def test_a_firewall_that_keeps_us_out_is_opened_again(
    root: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(account)

    def shut(session: Any, *words: Any, **named: Any) -> View:
        if account.drift:
            raise UnreachableError("connecting", "no SSH within 20 s", machine=ALL)
        return as_wanted(session, *words, **named)

    for module in (planning, upping):
        monkeypatch.setattr(module, "look", shut)
    account.drift = {ALL: [CLOSED]}
    found = plan(asked(root), Log())
    assert [change.kind for change in found.changes] == ["firewall"]
    assert f"{ALL} was not looked at: no SSH within 20 s" in found.warnings
    assert up(asked(root), Log())["changed"] == 1
    assert account.calls.count(f"mend {ALL}") == 1


def test_a_vendor_that_does_not_compare_is_a_warning(
    root: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Sequence[str]:
        raise DeployError("asking", "503")

    both(account)
    monkeypatch.setattr(Fake, "drift", fails)
    log = Log()
    assert up(asked(root), log)["changed"] == 0
    assert "could not be compared" in log.warnings and "503" in log.warnings


# --- deleting ---


def test_up_deletes_only_what_is_named(root: Path, account: Account) -> None:
    both(account)
    account.machines |= {name: machine(name, US) for name in ("old-1", "old-2")}
    log = Log()
    up(asked(root), log)
    assert {"old-1", "old-2"} <= account.machines.keys()
    assert "--allow-destroy old-1 deletes it" in log.warnings
    log = Log()
    found = plan(asked(root, allow_destroy=("old-1",)), log)
    assert [(change.name, change.action) for change in found.changes] == [("old-1", "remove")]
    assert "old-1" in account.machines
    assert up(asked(root, allow_destroy=("old-1",)), Log())["deleted"] == ["old-1"]
    assert "old-1" not in account.machines and "old-2" in account.machines
    # Broken off after the deletion and run again.
    again = Log()
    up(asked(root, allow_destroy=("old-1",)), again)
    assert "--allow-destroy old-1: there is no such machine" in again.warnings


def test_up_never_deletes_what_the_inventory_names(root: Path, account: Account) -> None:
    both(account)
    with pytest.raises(InputError, match="stands in the inventory"):
        up(asked(root, allow_destroy=(ALL,)), Log())
    assert ALL in account.machines


def kept(account: Account) -> None:
    account.resources = [
        resource("address", "left", US, price=0.6),
        resource("volume", f"{DB}-data", US, price=4.4, data=True),
        resource("volume", "other", Deployment("other", "cloud"), price=9, data=True),
    ]


def test_down_keeps_data_and_says_what_they_cost(root: Path, account: Account) -> None:
    up(asked(root), Log())
    kept(account)
    body = down(asked(root), Log())
    assert sorted(body["deleted"]) == [ALL, DB] and not account.machines
    assert body["kept"] == [{"name": f"{DB}-data", "id": f"id-{DB}-data", "price": 4.4, "currency": "EUR"}]
    assert [one.name for one in account.resources] == [f"{DB}-data", "other"], "what was left over is gone"
    assert "delete data" not in account.calls


def test_data_go_only_when_the_stack_is_named(root: Path, account: Account) -> None:
    up(asked(root), Log())
    kept(account)
    with pytest.raises(InputError, match='"agorra" is not the name of this stack'):
        down(asked(root, destroy_data="agorra"), Log())
    assert account.machines
    body = down(asked(root, destroy_data="agora"), Log())
    assert body["destroyed"] == [f"{DB}-data"] and body["kept"] == []
    assert [one.name for one in account.resources] == ["other"]


# --- offers ---


def test_offers_side_by_side(root: Path, account: Account) -> None:
    inventory(root, "- roles: [all]\n", "second", "shut")
    found = offers(Request(root), Log(), "all", ())
    assert found["size"] == {"cores": 2, "memory": 8, "disk": 100}
    assert [(row["inventory"], row["type"], row["price"]) for row in found["offers"]] == [
        ("cloud", "l", 22.0),
        ("cloud", "xl", 34.0),
    ]
    why = {one["inventory"]: one["why"] for one in found["skipped"]}
    assert why["second"] == "SHUT_TOKEN is not set; set it"
    assert "your own" in why["local"] and "your own" in why["baremetal"]
    assert len(offers(Request(root), Log(), None, ("cloud",))["offers"]) == len(OFFERS)


def test_a_price_that_nobody_could_be_asked_for_is_marked(
    root: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = [replace(offer, approximate=True) for offer in OFFERS]
    monkeypatch.setattr(Fake, "offers", lambda _: about)
    assert {row["approximate"] for row in offers(Request(root), Log(), None, ("cloud",))["offers"]} == {True}
    found = plan(asked(root), Log())
    assert found.changes[0].detail == "app, mail, sms; l, ~18.00 EUR a month"
    assert found.approximate and found.machines[0].approximate
    questions: list[str] = []
    with pytest.raises(InputError):
        up(asked(root, confirm=lambda question: bool(questions.append(question))), Log())
    assert "~28.00 EUR a month" in questions[0]
    account.machines |= {ALL: replace(machine(ALL, US), approximate=True), DB: machine(DB, US, type="m")}
    places = plan(asked(root), Log()).machines
    assert [place.approximate for place in places] == [True, False]


def test_an_inventory_with_a_mistake_holds_nobody_up_unless_it_is_named(root: Path, account: Account) -> None:
    (root / "inventories" / "torn.yaml").write_text("provider: fake\n")
    found = offers(Request(root), Log(), "app", ())
    assert found["offers"] and any(one["inventory"] == "torn" for one in found["skipped"])
    with pytest.raises(InputError):
        offers(Request(root), Log(), "app", ("torn",))


# --- orphans ---


def leftovers(account: Account) -> None:
    account.resources = [
        resource("machine", ALL, US, price=12.5),
        resource("volume", f"{ALL}-data", US, price=4, data=True),
        resource("address", "lost", Deployment("agora", "elsewhere"), price=0.6),
        resource("volume", "lost", Deployment("agora", "elsewhere"), price=1, data=True),
        resource("machine", "their-1", Deployment("theirs", "cloud"), price=3),
    ]


def test_orphans_are_what_belongs_to_nothing_that_runs(root: Path, account: Account) -> None:
    leftovers(account)
    found = orphans(Request(root), Log(), (), ())
    assert [(row["kind"], row["name"]) for row in found["orphans"]] == [
        ("address", "lost"),
        ("volume", "lost"),
        ("machine", "their-1"),
    ]
    first, _, theirs = found["orphans"]
    assert first["why"] == "no inventory elsewhere is here" and first["age"] > 0 and first["price"] == 0.6
    assert "not this project's and has machines: see whose it is" in theirs["why"]
    assert found["cost"] == {"EUR": 4.6}
    assert not [call for call in account.calls if call.startswith("delete")]


def test_of_a_deployment_without_machines_everything_is_left_over(root: Path, account: Account) -> None:
    leftovers(account)
    account.resources = account.resources[1:2]
    (row,) = orphans(Request(root), Log(), (), ("cloud",))["orphans"]
    assert row["why"] == "data that a down has kept" and row["data"]
    # But a machine that this computer has seen may be away for a moment only.
    both(account)
    up(asked(root), Log())
    assert orphans(Request(root), Log(), (), ("cloud",))["orphans"] == []


@pytest.mark.parametrize("name", [ALL, f"{ALL}-data", "volume:nothing"])
def test_what_belongs_to_something_is_never_deleted(name: str, root: Path, account: Account) -> None:
    leftovers(account)
    with pytest.raises(InputError, match="no orphan is called"):
        orphans(Request(root), Log(), (name,), ())
    assert len(account.resources) == 5


def test_only_named_orphans_are_deleted(root: Path, account: Account) -> None:
    leftovers(account)
    with pytest.raises(InputError, match="may be several"):
        orphans(Request(root), Log(), ("lost",), ())
    questions: list[str] = []
    request = Request(root, confirm=lambda question: not questions.append(question))
    found = orphans(request, Log(), ("volume:lost",), ())
    assert "(lost: with data) for ever" in questions[0]
    assert [row["kind"] for row in found["deleted"]] == ["volume"]
    assert [one.kind for one in account.resources] == ["machine", "volume", "address", "machine"]
    with pytest.raises(InputError, match="before anything was deleted"):
        orphans(replace(request, confirm=lambda _: False), Log(), ("their-1",), ())
    assert len(account.resources) == 4


# --- adopt ---


def test_adopt_rebuilds_what_this_computer_knows(root: Path, account: Account) -> None:
    up(asked(root), Log())
    state = root / ".deploy" / "cloud"
    before = {name: (state / name).read_text() for name in ("machines.json",)}
    for path in state.iterdir():
        path.unlink()
    account.machines["extra"] = machine("extra", US)
    found = adopt(asked(root), Log())
    assert {name: (state / name).read_text() for name in before} == before
    assert "203.0.113.7 ssh-ed25519 " in (state / "known_hosts").read_text()
    assert [row["name"] for row in found["machines"]] == [ALL, DB]
    assert found["unwanted"] == ["extra"] and found["missing"] == [] and found["changes"] == 0


def test_adopt_of_machines_that_do_not_answer(
    root: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> View:
        raise UnreachableError("connecting", "no SSH", "see whether it runs", machine=ALL)

    up(asked(root), Log())
    del account.machines[DB]
    monkeypatch.setattr(adopting, "look", away)
    found = adopt(asked(root), Log())
    assert found["changes"] is None and found["missing"] == [DB]
    assert "not looked at: no SSH" in found["notes"][0]


def test_there_is_nothing_to_adopt(root: Path, account: Account) -> None:
    up(asked(root), Log())
    account.machines.clear()
    with pytest.raises(DeployError, match="no machine of it exists"):
        adopt(asked(root), Log())
