"""The secrets bundle: generations, readers that come and go, and who opens it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pyrage
import pytest

from deployer.core.component import Secret
from deployer.core.errors import DeployError, InputError
from deployer.core.model import Operator
from deployer.project import identities
from deployer.project.bundle import RECOVERY_FILE, Bundle
from deployer.project.vault import FILE

SPECS = (Secret("database/chat"), Secret("pki/issuer/a", "issuer"), Secret("pki/ca", "ca"))


class Counting:
    """Makes values that say which they are: name, number and what they were made from."""

    def __init__(self, domain: str = "demo.test") -> None:
        self.domain = domain
        self.made: list[str] = []

    def purpose(self, secret: Secret) -> str:
        return self.domain if secret.kind == "issuer" else ""

    def make(self, secret: Secret, values: Mapping[str, str]) -> str:
        self.made.append(secret.name)
        return f"canary-{secret.name}-{len(self.made)}" + (
            values["pki/ca"] if secret.kind == "issuer" else ""
        )


class Person:
    """An operator with an identity file of their own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.identity = folder / f"{name}.txt"
        key = identities.make(self.identity, name)
        self.operator = Operator(name, "ssh-ed25519 AAAA", key.recipient)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(identities.VARIABLE, raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def anna(tmp_path: Path) -> Person:
    return Person(tmp_path, "anna")


@pytest.fixture
def ben(tmp_path: Path) -> Person:
    return Person(tmp_path, "ben")


def opened(root: Path, *operators: Operator, identity: Path | None = None) -> Bundle:
    return Bundle(root, operators, identity)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_time_on_a_computer(root: Path) -> None:
    maker = Counting()
    (notice,) = opened(root).ensure(SPECS, maker)
    assert "Move it offline now" in notice and RECOVERY_FILE in notice
    assert maker.made == ["pki/ca", "database/chat", "pki/issuer/a"]
    for path in (root / FILE, root / RECOVERY_FILE, identities.personal_path()):
        assert mode(path) == 0o600
    again = opened(root)
    assert again.generation == 1
    assert again.values["pki/issuer/a"].endswith(again.values["pki/ca"])
    assert b"canary" not in (root / FILE).read_bytes()


def test_nothing_changes_when_nothing_is_missing(root: Path) -> None:
    opened(root).ensure(SPECS, Counting())
    before = (root / FILE).read_bytes()
    maker = Counting()
    assert opened(root).ensure(SPECS, maker) == []
    assert maker.made == []
    assert (root / FILE).read_bytes() == before


def test_a_missing_one_is_made_and_raises_the_generation(root: Path) -> None:
    opened(root).ensure(SPECS, Counting())
    kept = opened(root).values
    maker = Counting()
    opened(root).ensure([*SPECS, Secret("app/key", "hex")], maker)
    assert maker.made == ["app/key"]
    again = opened(root)
    assert again.generation == 2
    assert {name: again.values[name] for name in kept} == kept


def test_without_saving_nothing_is_written(root: Path) -> None:
    bundle = opened(root)
    assert bundle.ensure(SPECS, Counting(), save=False) == []
    assert len(bundle.values) == 3
    assert list(root.iterdir()) == []
    assert not identities.personal_path().exists()


def test_another_purpose_makes_it_anew(root: Path) -> None:
    opened(root).ensure(SPECS, Counting())
    maker = Counting("other.test")
    opened(root).ensure(SPECS, maker)
    assert maker.made == ["pki/issuer/a"]


def test_only_the_operator_can_give_a_given_one(root: Path) -> None:
    bundle = opened(root)
    with pytest.raises(InputError, match="vendor/key is not set"):
        bundle.ensure([Secret("vendor/key", "given")], Counting())
    bundle.put(Secret("vendor/key", "given"), "from a vendor")
    bundle.ensure([Secret("vendor/key", "given")], Counting())
    assert opened(root).values == {"vendor/key": "from a vendor"}


def test_a_stale_write_is_refused(root: Path) -> None:
    opened(root).ensure(SPECS, Counting())
    first, second = opened(root), opened(root)
    first.put(Secret("app/key"), "canary-first")
    first.save()
    second.put(Secret("app/key"), "canary-second")
    with pytest.raises(DeployError) as caught:
        second.save()
    assert caught.value.why == (
        "the file on disk is generation 2, this run had read generation 1; nothing was written"
    )
    assert opened(root).values["app/key"] == "canary-first"


def test_two_first_runs_do_not_both_write(root: Path) -> None:
    first, second = opened(root), opened(root)
    first.ensure(SPECS, Counting())
    with pytest.raises(DeployError, match="this run had read generation 0"):
        second.ensure(SPECS, Counting())


def test_an_older_file_is_refused(root: Path) -> None:
    opened(root).ensure(SPECS, Counting())
    older = (root / FILE).read_bytes()
    opened(root).ensure([Secret("app/key")], Counting())
    (root / FILE).write_bytes(older)
    with pytest.raises(InputError, match="it is generation 1, but generation 2 was used here"):
        opened(root)
    (root / FILE).unlink()
    with pytest.raises(InputError, match="it is missing, but generation 2 was used here"):
        opened(root)


def test_a_run_that_was_killed_before_the_first_write_leaves_its_recovery_identity_in_use(root: Path) -> None:
    recovery = identities.make(root / RECOVERY_FILE, "left over")
    opened(root).ensure(SPECS, Counting())
    assert opened(root, identity=recovery.path).generation == 1


def test_operators_read_it_and_nobody_else(root: Path, anna: Person, ben: Person, tmp_path: Path) -> None:
    opened(root, anna.operator, identity=anna.identity).ensure(SPECS, Counting())
    assert not identities.personal_path().exists()
    with pytest.raises(InputError) as caught:
        opened(root, anna.operator, identity=ben.identity)
    assert caught.value.why == "no identity on this computer opens it"
    assert str(ben.identity) in caught.value.detail
    with pytest.raises(InputError, match="no identity on this computer opens it"):
        opened(root, anna.operator)
    assert opened(root, anna.operator, identity=root / RECOVERY_FILE).generation == 1


def test_one_who_is_no_operator_cannot_make_it(root: Path, anna: Person, ben: Person) -> None:
    with pytest.raises(InputError, match="you could not read it afterwards"):
        opened(root, anna.operator, identity=ben.identity).ensure(SPECS, Counting())
    assert not (root / FILE).exists()


def test_an_operator_comes(root: Path, anna: Person, ben: Person) -> None:
    opened(root, anna.operator, identity=anna.identity).ensure(SPECS, Counting())
    both = (anna.operator, ben.operator)
    notices = opened(root, *both, identity=anna.identity).ensure(SPECS, Counting())
    assert notices == ["the secrets can be read from now on by: ben"]
    bundle = opened(root, *both, identity=ben.identity)
    assert bundle.generation == 2
    assert not any(entry.exposed for entry in bundle.entries.values())


def test_an_operator_goes(root: Path, anna: Person, ben: Person) -> None:
    opened(root, anna.operator, ben.operator, identity=anna.identity).ensure(SPECS, Counting())
    bundle = opened(root, anna.operator, identity=anna.identity)
    (notice,) = bundle.ensure([*SPECS, Secret("app/new")], Counting())
    assert notice.startswith("ben can no longer open the secrets")
    assert notice.endswith("NAME: database/chat, pki/ca, pki/issuer/a")
    with pytest.raises(InputError, match="no identity"):
        opened(root, anna.operator, identity=ben.identity)
    again = opened(root, anna.operator, identity=anna.identity)
    assert [name for name, entry in again.entries.items() if entry.exposed == ("ben",)] == [
        "database/chat",
        "pki/ca",
        "pki/issuer/a",
    ]
    assert again.ensure(SPECS, Counting()) == []
    again.put(Secret("database/chat"), "canary-other")
    again.save()
    assert not opened(root, anna.operator, identity=anna.identity).entries["database/chat"].exposed


def test_the_same_key_under_another_name_is_the_same_reader(root: Path, anna: Person) -> None:
    opened(root, anna.operator, identity=anna.identity).ensure(SPECS, Counting())
    renamed = Operator("ann", anna.operator.ssh_key, anna.operator.age)
    assert opened(root, renamed, identity=anna.identity).ensure(SPECS, Counting()) == []


def test_an_operator_takes_another_key(root: Path, anna: Person, ben: Person) -> None:
    opened(root, anna.operator, identity=anna.identity).ensure(SPECS, Counting())
    other = Operator("anna", "", ben.operator.age)
    with pytest.raises(InputError, match="you could not read it afterwards"):
        opened(root, other, identity=anna.identity).ensure(SPECS, Counting())
    both = root / "both.txt"
    both.write_text(anna.identity.read_text() + ben.identity.read_text())
    bundle = opened(root, other, identity=both)
    (notice,) = bundle.ensure(SPECS, Counting())
    assert notice.startswith("the secrets open with another key of anna from now on")
    assert not any(entry.exposed for entry in bundle.entries.values())


def test_the_demo_gets_operators(root: Path, anna: Person) -> None:
    opened(root).ensure(SPECS, Counting())
    with pytest.raises(InputError, match="you could not read it afterwards"):
        opened(root, anna.operator).ensure(SPECS, Counting())
    mine = Operator("me", "", identities.personal().recipient)
    assert opened(root, mine, anna.operator).ensure(SPECS, Counting()) == [
        "the secrets can be read from now on by: anna"
    ]
    opened(root, mine, anna.operator, identity=anna.identity)


def test_a_new_computer_with_the_recovery_identity(root: Path) -> None:
    opened(root).ensure(SPECS, Counting())
    identities.personal_path().unlink()
    (notice,) = opened(root, identity=root / RECOVERY_FILE).ensure(SPECS, Counting())
    assert notice.startswith("the secrets can be read from now on by: computer ")
    assert opened(root).generation == 2


def test_a_new_recovery_identity(root: Path, tmp_path: Path) -> None:
    opened(root).ensure(SPECS, Counting())
    with pytest.raises(InputError, match="still lies in the project folder"):
        opened(root).new_recovery()
    old = (root / RECOVERY_FILE).rename(tmp_path / "safe.txt")
    bundle = opened(root)
    bundle.new_recovery()
    (notice,) = bundle.save()
    assert "Move it offline" in notice
    opened(root, identity=root / RECOVERY_FILE)
    with pytest.raises(InputError, match="no identity"):
        opened(root, identity=old)


def ssh_key(path: Path, *, passphrase: str = "", kind: str = "ed25519") -> str:
    """Make a key pair; the public line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path.with_name(path.name + ".pub").read_text(encoding="utf-8").strip()


def test_an_ssh_key_opens_it(root: Path) -> None:
    key = Path.home() / ".ssh" / "id_ed25519"
    operator = Operator("me", "", ssh_key(key))
    opened(root, operator).ensure(SPECS, Counting())
    assert opened(root, operator, identity=key).generation == 1
    # Without operators the key that was named stays the reader.
    assert opened(root, identity=key).ensure(SPECS, Counting()) == []


def test_a_passphrase_is_said_not_to_be_supported(root: Path, anna: Person) -> None:
    key = Path.home() / ".ssh" / "id_ed25519"
    ssh_key(key, passphrase="abcdefg")
    with pytest.raises(InputError, match="protected by a passphrase, which is not supported"):
        opened(root, anna.operator, identity=key)
    opened(root, anna.operator, identity=anna.identity).ensure(SPECS, Counting())
    with pytest.raises(InputError) as caught:
        opened(root, anna.operator)
    assert caught.value.detail.endswith("it is protected by a passphrase, which is not supported")
    protected = root / "identity.age"
    protected.write_text(pyrage.passphrase.encrypt(b"x", "y", armored=True).decode())
    with pytest.raises(InputError, match="passphrase"):
        opened(root, anna.operator, identity=protected)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it holds no identity"),
        ("AGE-SECRET-KEY-1ABC\n", "line 1 is no age identity"),
        (None, "No such file"),
    ],
)
def test_an_identity_that_cannot_be_used(root: Path, text: str | None, why: str) -> None:
    path = root / "identity"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        opened(root, identity=path)
    assert caught.value.why.startswith(why)
    assert "ABC" not in str(caught.value)


def test_the_environment_names_an_identity(root: Path, anna: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(identities.VARIABLE, str(anna.identity))
    opened(root, anna.operator).ensure(SPECS, Counting())
    assert opened(root, anna.operator).generation == 1


@pytest.mark.parametrize("damage", ["short", "flipped", "newer"])
def test_a_damaged_file(root: Path, damage: str) -> None:
    opened(root).ensure(SPECS, Counting())
    path = root / FILE
    sealed = path.read_bytes()
    recipient = pyrage.x25519.Recipient.from_str(identities.personal().recipient)
    changed = {
        "short": sealed[:-40],
        "flipped": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "newer": pyrage.encrypt(json.dumps({"format": 2}).encode(), [recipient]),
    }
    path.write_bytes(changed[damage])
    with pytest.raises(InputError, match=r"damaged|newer version"):
        opened(root)


def test_no_value_shows(root: Path) -> None:
    bundle = opened(root)
    bundle.ensure(SPECS, Counting())
    shown = repr(bundle) + repr(bundle.entries) + repr(identities.personal())
    assert "canary" not in shown
    assert not re.search("AGE-SECRET", shown)


def test_a_write_that_fails_leaves_the_old_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(root).ensure(SPECS, Counting())
    before = (root / FILE).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    bundle = opened(root)
    bundle.put(Secret("app/key"), "canary")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeployError, match="No space left on device; the file is as it was before"):
        bundle.save()
    assert (root / FILE).read_bytes() == before
    assert sorted(path.name for path in root.iterdir()) == [".deploy", RECOVERY_FILE, FILE]
