"""Exactly one is live: what `up` and `down` do about generations. Repositories are folders, the vendor is in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer import storage
from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.core.generation import Generation
from deployer.core.machine import Deployment
from deployer.flow import generations
from deployer.flow import plan as planning
from deployer.flow import session as sessions
from deployer.flow import up as upping
from deployer.flow.down import down
from deployer.flow.plan import plan
from deployer.flow.request import Request
from deployer.flow.secrets import rotate, set_secret
from deployer.flow.session import Session
from deployer.flow.up import up
from deployer.project.bundle import Bundle
from tests.unit.fakevendor import Account, register, resource
from tests.unit.test_vendors import Log, SilentEngine, as_wanted

US, OTHER = "agora@cloud", "agora@other"
FIRST = "agora/generations/000001.json"


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    made = Account()
    register(monkeypatch, made)
    monkeypatch.setattr(sessions, "Engine", SilentEngine)
    monkeypatch.setattr(upping, "_outer", lambda *_: [])
    for module in (planning, upping):
        monkeypatch.setattr(module, "look", as_wanted)
    return made


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: Account) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "project" / "inventories").mkdir(parents=True)
    (tmp_path / "project" / "stack.yaml").write_text("name: agora\ndomain: agora.example\napp: matrix\n")
    for name in ("east", "west"):
        (tmp_path / name).mkdir()
    for name in ("cloud", "other"):
        inventory(tmp_path / "project", "east", "west", name=name)
    return tmp_path / "project"


def inventory(root: Path, *repositories: str, name: str = "cloud") -> None:
    listed = "".join(f"- {{name: {one}, kind: path, path: {root.parent / one}}}\n" for one in repositories)
    text = f"provider: fake\nmachines:\n- roles: [all]\nacme: {{directories: []}}\nrepositories:\n{listed}"
    (root / "inventories" / f"{name}.yaml").write_text(text)


def run(root: Path, name: str = "cloud", **more: Any) -> dict[str, Any]:
    return up(Request(root, name, **more), Log())


def bundle(root: Path) -> Bundle:
    return Bundle(root, (), None)


def claimed(root: Path, name: str, number: int = 1) -> Mapping[str, Any]:
    text = (root.parent / name / f"agora/generations/{number:06d}.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the repositories that are opened."""
    opened: list[str] = []
    real = storage.open_store

    def spy(repository: Any, **more: Any) -> Any:
        opened.append(repository.name)
        return real(repository, **more)

    monkeypatch.setattr(storage, "open_store", spy)
    return opened


def test_the_first_up_claims_and_an_unchanged_one_asks_nobody(root: Path, calls: list[str]) -> None:
    run(root)
    values = bundle(root).values
    live = generation.held(values, US)
    assert live and live.number == 1 and live.at and live.by
    for name in ("east", "west"):
        assert claimed(root, name)["deployment"] == US
        for secret in generation.ciphers(1, name):
            assert len(values[secret.name]) >= 32
    assert len({values[s.name] for n in ("east", "west") for s in generation.ciphers(1, n)}) == 4
    before = bundle(root).generation
    calls.clear()
    run(root)
    assert calls == [] and bundle(root).generation == before


def test_without_repositories_nothing_is_claimed(root: Path, calls: list[str]) -> None:
    text = (root / "inventories/cloud.yaml").read_text().partition("repositories:")[0]
    (root / "inventories/cloud.yaml").write_text(text)
    run(root)
    assert calls == [] and generation.current(bundle(root).values) is None


def test_a_repository_that_is_added_gets_passwords_and_claim(root: Path, calls: list[str]) -> None:
    inventory(root, "east")
    run(root)
    inventory(root, "east", "west")
    calls.clear()
    run(root)
    assert calls[0] == "west"
    assert claimed(root, "west")["generation"] == 1
    assert all(secret.name in bundle(root).values for secret in generation.ciphers(1, "west"))


def test_one_that_does_not_answer_gets_its_claim_later(root: Path, calls: list[str]) -> None:
    (root.parent / "west").rmdir()
    run(root)
    assert claimed(root, "east") and generation.held(bundle(root).values, US)
    (root.parent / "west").mkdir()
    calls.clear()
    run(root)
    assert claimed(root, "west")["deployment"] == US and set(calls) == {"west"}


def test_a_computer_that_remembers_nothing_finds_the_claims(root: Path) -> None:
    run(root)
    before = (root.parent / "east" / FIRST).read_bytes()
    shutil.rmtree(root / ".deploy")
    run(root)
    assert (root.parent / "east" / FIRST).read_bytes() == before
    assert len(list((root.parent / "east" / "agora/generations").iterdir())) == 1


def test_old_secrets_are_refused(root: Path) -> None:
    """Before any machine is made, and also when the claims are remembered, as soon as something is to be changed."""
    run(root)
    newer = Generation(2, OTHER, "2026-11-24T00:00:00+00:00", "ann")
    (root.parent / "west" / "agora/generations/000002.json").write_text(newer.to_json())
    shutil.rmtree(root / ".deploy")
    with pytest.raises(DeployError, match="west shows generation 2, held by agora@other") as caught:
        run(root)
    assert "secrets.age" in caught.value.next
    with Session.open(Request(root, "cloud"), Log(), make_secrets=True) as session:
        with pytest.raises(DeployError, match="west shows generation 2"):
            generations.confirm_newest(session)
        # Once a run is enough.
        generations.confirm_newest(session)


def test_a_folder_without_secrets_does_not_take_a_stack_that_exists(root: Path, account: Account) -> None:
    run(root)
    for path in ("secrets.age", "recovery-identity.txt"):
        (root / path).unlink()
    shutil.rmtree(root / ".deploy")
    account.machines.clear()
    with pytest.raises(DeployError, match="know of none"):
        run(root)
    assert account.machines == {}


def test_another_live_deployment_is_not_joined(root: Path, account: Account) -> None:
    run(root, "other")
    before = dict(account.machines)
    with pytest.raises(InputError, match="agora@other is the live deployment") as caught:
        run(root)
    assert "deploy restore --provider cloud" in caught.value.next
    assert account.machines == before


def test_what_was_taken_down_can_be_followed_after_a_yes(root: Path) -> None:
    run(root, "other")
    down(Request(root, "other"), Log())
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return "was taken down" not in question

    with pytest.raises(InputError, match="stopped before anything"):
        run(root, confirm=no)
    assert any("agora@other, which was live as generation 1, was taken down" in text for text in asked)
    run(root)
    live = generation.held(bundle(root).values, US)
    assert live and live.number == 2 and claimed(root, "west", 2)["deployment"] == US
    with pytest.raises(InputError, match="agora@cloud is the live"):
        run(root, "other")


def test_up_after_down_of_the_same_deployment_begins_a_generation(root: Path) -> None:
    """Its disks were deleted: a new database must not write where the old one did."""
    run(root)
    down(Request(root, "cloud"), Log())
    run(root)
    assert [one.number for one in generation.known(bundle(root).values)] == [1, 2]


def test_a_restore_goes_above_all_that_is_known_and_can_continue(root: Path) -> None:
    run(root, "other")
    newer = Generation(5, "agora@elsewhere", "2026-11-24T00:00:00+00:00", "ann")
    (root.parent / "west" / "agora/generations/000005.json").write_text(newer.to_json())
    with Session.open(Request(root, "cloud"), Log(), make_secrets=True) as session:
        live = generations.raise_generation(session, "restore-1")
        assert (
            (live.number, live.deployment) == (6, US) == (6, generation.current(session.secrets).deployment)
        )  # type: ignore[union-attr]
        assert generations.raise_generation(session, "restore-1") == live
        assert generations.raise_generation(session, "restore-2").number == 7
    assert claimed(root, "east", 6)["by"] == "restore-1"


def test_two_who_claim_the_same_number_are_told(root: Path) -> None:
    run(root)
    with Session.open(Request(root, "cloud"), Log(), make_secrets=True) as session:
        other = Generation(2, OTHER, "2026-11-24T00:00:00+00:00", "ann")
        (root.parent / "west" / "agora/generations/000002.json").write_text(other.to_json())
        ours = replace(other, deployment=US)
        with pytest.raises(DeployError, match="claimed there by agora@other"):
            generations._write(session, ours, session.project.inventory.repositories)


def test_plan_shows_what_up_will_do_and_writes_nothing(root: Path, calls: list[str]) -> None:
    """With throw-away passwords in place of those that the claim makes."""
    plan(Request(root, "cloud"), Log())
    assert calls == [] and not (root / "secrets.age").exists()
    run(root)
    inventory(root, "east", "west", "north")
    before = bundle(root).generation
    plan(Request(root, "cloud"), Log())
    assert bundle(root).generation == before


def test_nobody_answers(root: Path, account: Account) -> None:
    """S3 that is not there: no machine is made."""
    text = (root / "inventories/cloud.yaml").read_text().partition("repositories:")[0]
    (root / "inventories/cloud.yaml").write_text(
        text + "repositories:\n- {name: east, kind: s3, endpoint: 'https://127.0.0.1:1', bucket: b, key: k,"
        " secret: s3secret}\n"
    )
    with pytest.raises(DeployError, match="no repository answers") as caught:
        run(root)
    assert "east: https://127.0.0.1:1 does not answer" in caught.value.detail
    assert account.machines == {} and generation.current(bundle(root).values) is None


def backed_up(root: Path) -> None:
    """As pgBackRest leaves a repository."""
    database = root.parent / "west" / generation.database_key("agora", 1)
    for path in ("backup/main/backup.info", "archive/main/17-1/0000/000000010000000000000001-abc.zst"):
        (database / path).parent.mkdir(parents=True, exist_ok=True)
        (database / path).touch()


def test_an_empty_database_does_not_follow_one_that_vanished(root: Path, account: Account) -> None:
    run(root)
    account.machines.clear()
    run(root)
    # Nothing was ever backed up: a first run that was killed goes on. Now there is.
    backed_up(root)
    run(root)
    account.machines.clear()
    with pytest.raises(DeployError, match="would begin with an empty one") as caught:
        run(root)
    assert account.machines == {} and "deploy restore --provider cloud" in caught.value.next
    # A volume that was kept has the data.
    account.resources.append(resource("volume", "agora-data", Deployment("agora", "cloud"), data=True))
    run(root)
    account.machines.clear()
    account.resources.clear()
    down(Request(root, "cloud"), Log())
    run(root)
    assert [one.number for one in generation.known(bundle(root).values)] == [1, 2]


def test_passwords_of_backups_are_not_rotated(root: Path) -> None:
    run(root)
    name = generation.ciphers(1, "east")[0].name
    before = bundle(root).values[name]
    with pytest.raises(InputError, match="could not be read"):
        rotate(Request(root), name)
    with pytest.raises(InputError, match="could not be read"):
        set_secret(Request(root), name, "a value of my own")
    assert bundle(root).values[name] == before


def test_the_newest_wal_says_where_to_restore_from(root: Path) -> None:
    run(root)
    with Session.open(Request(root, "cloud"), Log(), make_secrets=False) as session:
        live = generation.current(session.secrets)
        assert live
        with pytest.raises(DeployError, match="no repository offers one"):
            generations.newest_repository(session.project, live)
        for name, segments in (
            ("east", ["000000010000000000000001"]),
            ("west", ["00000001000000010000000A"]),
        ):
            database = root.parent / name / generation.database_key("agora", 1)
            for path in (
                "backup/main/backup.info",
                *(f"archive/main/17-1/0000/{s}-abc.zst" for s in segments),
            ):
                (database / path).parent.mkdir(parents=True, exist_ok=True)
                (database / path).touch()
        assert generations.newest_repository(session.project, live) == "west"
