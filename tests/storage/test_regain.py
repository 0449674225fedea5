"""`deploy adopt --from`: from nothing but an identity and one bucket, by the real command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deployer.core.generation import Generation
from deployer.flow import session as sessions
from deployer.flow import up as upping
from deployer.flow.regain import VARIABLE
from deployer.flow.request import Request
from deployer.flow.up import up
from deployer.project import identities
from tests.rig.objects import CHECKOUT, Objects
from tests.unit.fakevendor import Account, register
from tests.unit.test_vendors import Log, SilentEngine, as_wanted

TOP = "team/agora/000001/catalogue"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Objects]]:
    """A project that was brought up and then changed, so that the catalogue has two entries; and its only repository."""
    top = tmp_path_factory.mktemp("regain")
    with pytest.MonkeyPatch.context() as patch, Objects(top / "east", name="east") as vendor:
        register(patch, Account())
        patch.setattr(sessions, "Engine", SilentEngine)
        patch.setattr(upping, "_outer", lambda *_: [])
        patch.setattr(upping, "look", as_wanted)
        patch.setenv("HOME", str(top / "home"))
        patch.setenv("EAST_SECRET", vendor.secret)
        root = top / "project"
        for name in ("inventories", "templates/proxy"):
            (root / name).mkdir(parents=True)
        (root / "stack.yaml").write_text("name: agora\ndomain: agora.example\napp: matrix\n")
        (root / "east.crt").write_text(vendor.ca)
        section = vendor.section("east.crt", "team").replace(vendor.secret, "${EAST_SECRET}")
        (root / "inventories/cloud.yaml").write_text(
            "provider: fake\nmachines:\n- roles: [all]\nacme: {directories: []}\nrepositories:\n" + section
        )
        for text in ("# one\n", "# two\n"):
            (root / "templates/proxy/extra.j2").write_text(text)
            up(Request(root, "cloud"), Log())
        yield root, vendor


@pytest.fixture
def source(made: tuple[Path, Objects]) -> Iterator[Objects]:
    """The repository; what a test does to it is undone."""
    _, vendor = made
    saved = {key: vendor.path(key).read_bytes() for key in vendor.keys("*")}
    yield vendor
    for key in vendor.keys("*"):
        vendor.path(key).unlink()
    for key, data in saved.items():
        vendor.put(key, data)


class Computer:
    """One that has only the toolkit and an identity."""

    def __init__(self, folder: Path, project: Path, vendor: Objects) -> None:
        self.folder, self.home = folder / "agora", folder / "elsewhere"
        self.folder.mkdir()
        self.home.mkdir()
        self.vendor = vendor
        self.ca = folder / "ca.crt"
        self.ca.write_text(vendor.ca)
        self.identity = folder / "recovery.txt"
        shutil.copy(project / "recovery-identity.txt", self.identity)

    @property
    def url(self) -> str:
        one = self.vendor
        return f"s3://{one.key}@{one.host}:{one.port}/{one.bucket}/team?ca={self.ca}"

    def adopt(
        self, *words: str, url: str = "", secret: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOME": str(self.home), VARIABLE: secret or self.vendor.secret}
        environment.pop(identities.VARIABLE, None)
        environment["PYTHONPATH"] = str(CHECKOUT)
        if secret == "":
            del environment[VARIABLE]
        return subprocess.run(
            [sys.executable, "-m", "deployer.cli", "adopt", "--from", url or self.url, *words],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}


@pytest.fixture
def computer(made: tuple[Path, Objects], source: Objects, tmp_path: Path) -> Computer:
    return Computer(tmp_path, made[0], source)


def result(done: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    assert done.returncode == 0, done.stderr
    last: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])["data"]
    return last


def test_everything_comes_back(made: tuple[Path, Objects], computer: Computer) -> None:
    done = computer.adopt("--identity", str(computer.identity))
    assert done.returncode == 0, done.stderr
    assert "deploy restore --provider cloud" in done.stdout and "EAST_SECRET" in done.stdout
    assert "last live: agora@cloud" in done.stdout
    root = made[0]
    wanted = {name: (root / name).read_bytes() for name in (
        "stack.yaml", "secrets.age", "east.crt", "inventories/cloud.yaml", "templates/proxy/extra.j2")}  # fmt: skip
    assert computer.files() == wanted
    assert computer.vendor.secret not in done.stdout + done.stderr
    # Once more changes nothing, and what is missing is added.
    (computer.folder / "east.crt").unlink()
    again = result(computer.adopt("--json", "--identity", str(computer.identity)))
    assert again["written"] == ["east.crt"] and "secrets.age" in again["there"]
    assert again["stack"] == "agora" and again["generation"] == 1 and again["variables"] == ["EAST_SECRET"]


def test_what_differs_is_named_and_nothing_written(computer: Computer) -> None:
    (computer.folder / "stack.yaml").write_text("name: other\n")
    before = computer.files()
    done = computer.adopt("--identity", str(computer.identity))
    assert done.returncode == 2 and "stack.yaml is there with other content" in done.stderr
    assert computer.files() == before


@pytest.mark.parametrize("how", ["delete", "truncate", "flip"])
@pytest.mark.parametrize("part", ["secrets.age", "project.age", "manifest.json"])
def test_a_damaged_entry_is_named_and_the_older_one_used(computer: Computer, part: str, how: str) -> None:
    newest = sorted(key for key in computer.vendor.keys(f"{TOP}/*/{part}"))[-1]
    computer.vendor.damage(newest, how)  # type: ignore[arg-type]
    found = result(computer.adopt("--json", "--identity", str(computer.identity)))
    assert found["damaged"] and all(newest.split("/")[4] in one["what"] for one in found["damaged"])
    assert (computer.folder / "templates/proxy/extra.j2").read_text() == "# one\n"


def test_another_identity_none_and_a_wrong_key(computer: Computer, tmp_path: Path) -> None:
    stranger = identities.make(tmp_path / "stranger.txt", "nobody's").path
    done = computer.adopt("--identity", str(stranger))
    assert done.returncode == 2 and "no identity on this computer opens it" in done.stderr
    done = computer.adopt()
    assert (
        done.returncode == 2 and "no identity on this computer" in done.stderr and "--identity" in done.stderr
    )
    done = computer.adopt("--identity", str(computer.identity), secret="a-wrong-secret-key")
    assert done.returncode == 1 and "refuses the key" in done.stderr
    done = computer.adopt("--identity", str(computer.identity), secret="")
    assert done.returncode == 2 and VARIABLE in done.stderr
    assert computer.files() == {}


def test_nothing_there_several_stacks_and_no_such_stack(computer: Computer) -> None:
    identity = ("--identity", str(computer.identity))
    empty = computer.adopt(*identity, url=computer.url.replace("/team?", "/elsewhere?"))
    assert empty.returncode == 1 and "it holds no backups of any" in empty.stderr
    computer.vendor.put("team/other/generations/000001.json", b"{}")
    several = computer.adopt(*identity)
    assert several.returncode == 2 and "agora, other" in several.stderr and "?stack=NAME" in several.stderr
    absent = computer.adopt(*identity, url=computer.url + "&stack=absent")
    assert absent.returncode == 1 and 'no backups of "absent"' in absent.stderr
    assert result(computer.adopt("--json", *identity, url=computer.url + "&stack=agora"))["stack"] == "agora"


def test_a_newer_generation_without_an_entry_is_told(computer: Computer) -> None:
    later = Generation(2, "agora@aws", "2026-11-24T00:00:00+00:00", "ann")
    computer.vendor.put("team/agora/generations/000002.json", later.to_json().encode())
    found = result(computer.adopt("--json", "--identity", str(computer.identity)))
    assert any("generation 2 was claimed" in note for note in found["notes"])


def test_the_vendor_does_not_answer(computer: Computer) -> None:
    computer.vendor.stop()
    try:
        done = computer.adopt("--identity", str(computer.identity))
    finally:
        computer.vendor.start()
    assert done.returncode == 1 and "does not answer" in done.stderr and "next:" in done.stderr
    done = computer.adopt("--provider", "cloud")
    assert done.returncode == 2 and "both given" in done.stderr


def test_an_up_with_nothing_new_does_not_load_the_library(made: tuple[Path, Objects]) -> None:
    """In a process of its own, with the vendor switched off."""
    root, vendor = made
    text = (
        "import sys; from pathlib import Path; import pytest\n"
        "from deployer.core.machine import Deployment\n"
        "from deployer.flow import session, up\n"
        "from deployer.flow.request import Request\n"
        "from tests.unit.fakevendor import Account, machine, register\n"
        "from tests.unit.test_vendors import Log, SilentEngine, as_wanted\n"
        "patch, account = pytest.MonkeyPatch(), Account()\n"
        "account.machines['agora-all-1'] = machine('agora-all-1', Deployment('agora', 'cloud'))\n"
        "register(patch, account)\n"
        "patch.setattr(session, 'Engine', SilentEngine); patch.setattr(up, '_outer', lambda *_: [])\n"
        "patch.setattr(up, 'look', as_wanted)\n"
        "up.up(Request(Path(sys.argv[1]), 'cloud'), Log())\n"
        "print(account.calls[0], 'boto3' in sys.modules or 'botocore' in sys.modules)\n"
    )
    vendor.stop()
    try:
        home = {**os.environ, "HOME": str(root.parent / "home"), "EAST_SECRET": vendor.secret}
        done = subprocess.run(
            [sys.executable, "-c", text, str(root)],
            cwd=CHECKOUT, env=home, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        vendor.start()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "False"
