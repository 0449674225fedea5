"""The verbs init and secrets: what they write, and what they say."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from deployer.core.component import Secret
from deployer.core.errors import InputError
from deployer.core.keytext import public_ssh, split_pem
from deployer.core.resources import shipped
from deployer.flow import registry
from deployer.flow import secrets as verbs
from deployer.flow.init import init
from deployer.flow.request import Request
from deployer.project import load, load_stack

WANTED = [
    Secret("pki/ca", "ca"),
    Secret("pki/issuer/agora-all-1", "issuer"),
    Secret("ssh/deploy", "ssh"),
    Secret("ssh/host/agora-all-1", "ssh"),
    Secret("mail_relay/dkim", "rsa"),
    Secret("database/chat"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("DEPLOY_IDENTITY", raising=False)
    return folder


def with_key(home: Path) -> str:
    key = home / ".ssh" / "id_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@desk", "-f", str(key)], check=True
    )
    return (home / ".ssh" / "id_ed25519.pub").read_text(encoding="utf-8").strip()


@pytest.fixture
def request_(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A project with a bundle."""
    with_key(home)
    monkeypatch.setattr(registry, "secrets", lambda project: WANTED)
    init(tmp_path / "own", "agora", "agora.example", "matrix")
    request = Request(tmp_path / "own", "local")
    verbs.open_bundle(load(request.root, "local", None, environment={}), request, make=True)
    return request


def values(request: Request) -> dict[str, str]:
    project = load(request.root, "local", None, environment={})
    return dict(verbs.open_bundle(project, request, make=False)[0])


def test_init_writes_a_project_that_loads(home: Path, tmp_path: Path) -> None:
    key = with_key(home)
    folder = tmp_path / "own"
    result = init(folder, "agora", "agora.example", "matrix")
    assert result["files"] == [
        "stack.yaml",
        "inventories/local.yaml",
        "inventories/baremetal.yaml",
        ".gitignore",
    ]
    stack = load_stack(folder)
    assert (stack.name, stack.domain, stack.app) == ("agora", "agora.example", "matrix")
    (operator,) = stack.operators
    identity = home / ".config" / "deploy" / "identity.txt"
    assert operator.ssh_key == key
    assert operator.age in identity.read_text(encoding="utf-8")
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600
    ignored = (folder / ".gitignore").read_text(encoding="utf-8").split()
    assert {"/recovery-identity.txt", "/.deploy/"} <= set(ignored)
    assert "/secrets.age" not in ignored


def test_init_without_an_ssh_key_lists_nobody_and_says_so(home: Path, tmp_path: Path) -> None:
    result = init(tmp_path / "own", "agora", "agora.example", "matrix")
    assert load_stack(tmp_path / "own").operators == ()
    assert any("no SSH public key" in str(note) for note in result["notes"])  # type: ignore[attr-defined]


def test_init_overwrites_nothing(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "inventories").mkdir(parents=True)
    (folder / "inventories" / "local.yaml").write_text("# mine\n")
    (folder / ".gitignore").write_text("mine\n")
    (folder / "stack.yaml").write_text("")
    assert init(folder, "agora", "agora.example", "matrix")["files"] == [
        "stack.yaml",
        "inventories/baremetal.yaml",
    ]
    assert (folder / "inventories" / "local.yaml").read_text() == "# mine\n"
    with pytest.raises(InputError, match=r"stack\.yaml exists already"):
        init(folder, "agora", "agora.example", "matrix")


@pytest.mark.parametrize(
    ("name", "domain", "app", "why"),
    [
        ("Agora", "agora.example", "matrix", '--name: "Agora" is not a name'),
        ("agora", "agora", "matrix", '--domain: "agora" is not a domain'),
        ("agora", "agora.example", "matix", 'unknown app "matix"; did you mean "matrix"?'),
    ],
)
def test_init_refuses_bad_input_and_writes_nothing(
    home: Path, tmp_path: Path, name: str, domain: str, app: str, why: str
) -> None:
    with pytest.raises(InputError) as caught:
        init(tmp_path / "own", name, domain, app)
    assert caught.value.why.startswith(why)
    assert not (tmp_path / "own").exists()
    assert not (home / ".config").exists()


def test_init_where_it_cannot_write(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Not a directory"):
        init(tmp_path / "file" / "own", "agora", "agora.example", "matrix")


def test_no_bundle_before_the_first_up(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "secrets", lambda project: WANTED)
    init(tmp_path / "own", "agora", "agora.example", "matrix")
    request = Request(tmp_path / "own", "local")
    project = load(request.root, "local", None, environment={})
    with pytest.raises(InputError, match="there is none yet"):
        verbs.open_bundle(project, request, make=False)
    drafted, notices = verbs.open_bundle(project, request, make=False, draft=True)
    assert len(drafted) == len(WANTED) and notices == []
    assert not (request.root / "secrets.age").exists()
    assert verbs.list_secrets(request) == []
    with pytest.raises(InputError, match="there is none yet"):
        verbs.rotate(request, "pki/ca")


def test_list_shows_names_and_no_value(request_: Request) -> None:
    rows = verbs.list_secrets(request_)
    assert [row["name"] for row in rows] == sorted(secret.name for secret in WANTED)
    assert not any(value[:40] in str(rows) for value in values(request_).values())


def test_set_and_read(request_: Request) -> None:
    answer = verbs.set_secret(request_, "database/chat", "mine")
    assert answer["notes"] == ["run deploy up to bring it to the machines"]
    assert verbs.read_secret(request_, "database/chat") == "mine"
    with pytest.raises(InputError, match="certificate authority"):
        verbs.set_secret(request_, "pki/ca", "x")
    with pytest.raises(InputError, match="is empty"):
        verbs.set_secret(request_, "database/chat", " ")
    with pytest.raises(InputError, match='did you mean "database/chat"'):
        verbs.read_secret(request_, "database/chatt")


def test_a_secret_of_the_operators_own(request_: Request) -> None:
    verbs.set_secret(request_, "vendor/key", "given")
    with pytest.raises(InputError, match="comes from somebody else"):
        verbs.rotate(request_, "vendor/key")


def test_what_data_are_bound_to_is_not_rotated(request_: Request) -> None:
    """The signing key of Matrix is one of another kind; this one is a plain password whose loss would lose data."""
    own = request_.root / "templates/apps/matrix"
    own.mkdir(parents=True)
    text = (shipped("templates") / "apps/matrix/app.yaml").read_text(encoding="utf-8")
    assert "\nsecrets:\n" in text
    (own / "app.yaml").write_text(
        text.replace("\nsecrets:\n", "\nsecrets:\n  - {name: vault, lasting: true}\n")
    )
    verbs.set_secret(request_, "app/vault", "old")
    with pytest.raises(InputError, match="is bound to app/vault"):
        verbs.rotate(request_, "app/vault")
    assert values(request_)["app/vault"] == "old"


def test_rotating_replaces_one_value(request_: Request) -> None:
    before = values(request_)
    answer = verbs.rotate(request_, "database/chat")
    after = values(request_)
    assert answer == {"name": "database/chat", "notes": ["run deploy up to bring it to the machines"]}
    assert {name for name in after if after[name] != before[name]} == {"database/chat"}


def test_rotating_the_authority_replaces_what_it_signed(request_: Request) -> None:
    before = values(request_)
    answer = verbs.rotate(request_, "pki/ca")
    after = values(request_)
    assert {name for name in after if after[name] != before[name]} == {"pki/ca", "pki/issuer/agora-all-1"}
    assert split_pem(after["pki/ca"])[1] != split_pem(before["pki/ca"])[1]
    assert "import the new one" in str(answer["notes"])


@pytest.mark.parametrize("name", ["ssh/deploy", "ssh/host/agora-all-1"])
def test_rotating_an_ssh_key_keeps_the_one_that_machines_know(request_: Request, name: str) -> None:
    before = values(request_)
    answer = verbs.rotate(request_, name)
    after = values(request_)
    assert after[name + verbs.PREVIOUS[0]] == before[name]
    assert public_ssh(after[name]) != public_ssh(before[name])
    assert "@previous" in str(answer["notes"])


def test_rotating_the_recovery_identity(request_: Request, tmp_path: Path) -> None:
    (request_.root / "recovery-identity.txt").rename(tmp_path / "safe.txt")
    answer = verbs.rotate(request_, "recovery")
    assert "opens older files only" in str(answer["notes"])
    assert (request_.root / "recovery-identity.txt").exists()


def test_an_operator_who_went_is_named_at_the_secrets_to_rotate(request_: Request, tmp_path: Path) -> None:
    stack = request_.root / "stack.yaml"
    mine = stack.read_text(encoding="utf-8")
    other = "age1qspwygzfmrrn3cngjzl50ecylj54nckaa88vmscm7f4t9thuhf3sn0zhal"
    key = (Path.home() / ".ssh" / "id_ed25519.pub").read_text(encoding="utf-8").strip()
    entry = f"operators:\n  - {{name: ben, ssh_key: {key}, age: {other}}}\n"
    stack.write_text(mine.replace("operators:\n", entry, 1), encoding="utf-8")
    verbs.set_secret(request_, "database/chat", "one")
    stack.write_text(mine, encoding="utf-8")
    project = load(request_.root, "local", None, environment={})
    (notice,) = verbs.open_bundle(project, request_, make=True)[1]
    assert notice.startswith("ben can no longer open the secrets")
    rows = {str(row["name"]): row for row in verbs.list_secrets(request_)}
    assert rows["pki/ca"]["rotate"] == "ben could read it and is no operator any more"
    verbs.rotate(request_, "pki/ca")
    rows = {str(row["name"]): row for row in verbs.list_secrets(request_)}
    assert "rotate" not in rows["pki/ca"] and "rotate" in rows["database/chat"]
