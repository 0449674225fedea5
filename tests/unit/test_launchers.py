"""bin/deploy and the making of .venv, in small checkouts whose lock holds one tiny package of our own making."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")


def wheel(folder: Path, version: str) -> str:
    """Make the package `tiny` of this version; its line of a lock."""
    path = folder / f"tiny-{version}-py3-none-any.whl"
    files = {
        "tiny.py": f"version = {version!r}\n",
        f"tiny-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
        f"tiny-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"tiny-{version}.dist-info/RECORD"
    lines = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text)}")
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, record: "\n".join([*lines, f"{record},,"]) + "\n"}.items():
            archive.writestr(name, text)
    return f"tiny=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Checkout:
    """A folder with our bin/, a lock, and a `deployer.cli` that says what it was given."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.wheels = folder / "wheels"
        self.wheels.mkdir(parents=True)
        shutil.copytree(ROOT / "bin", self.root / "bin", ignore=shutil.ignore_patterns("__pycache__"))
        package = self.root / "deployer" / "cli"
        package.mkdir(parents=True)
        (package / "__main__.py").write_text(
            "import os, sys, tiny\nprint(tiny.version, os.getcwd(), *sys.argv[1:])\n"
        )
        # The user's own settings of pip must do; here they name a folder instead of an index.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        self.environment = {
            **kept,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
        }
        self.lock("1.0")

    def lock(self, version: str, *, wrong: bool = False) -> None:
        line = wheel(self.wheels, version)
        for name in LOCKS:
            (self.root / name).write_text(line[:-6] + "00000\n" if wrong else line)

    def start(
        self, *words: str, program: Path | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(program or self.root / "bin" / "deploy"), *words],
            cwd=cwd or self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, program: Path | None = None, cwd: Path | None = None) -> tuple[int, str, str]:
        process = self.start(*words, program=program, cwd=cwd)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which bin/deploy ran once."""
    checkout = Checkout(tmp_path_factory.mktemp("launcher"))
    code, out, err = checkout.run("status", "a b")
    assert (code, out) == (0, f"1.0 {checkout.root} status a b\n")
    assert f"Setting up {checkout.root}/.venv" in err
    assert "Done in" in err
    return checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_an_unchanged_environment_is_used_as_it_is(made: Checkout) -> None:
    stamp = made.root / ".venv" / LOCKS[0]
    before = stamp.stat().st_mtime_ns
    assert made.run("plan") == (0, f"1.0 {made.root} plan\n", "")
    assert stamp.stat().st_mtime_ns == before


def test_from_any_folder_and_through_links(made: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "deploy"
    link.symlink_to(made.root / "bin" / "deploy")
    chain = tmp_path / "d"
    chain.symlink_to("deploy")
    for program in (made.root / "bin" / "deploy", link, chain):
        assert made.run("x", program=program, cwd=tmp_path) == (0, f"1.0 {tmp_path} x\n", "")
    done = subprocess.run(
        ["sh", "deploy", "x"], cwd=made.root / "bin", capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("/bin x\n")


def test_the_checkout_may_be_moved(made: Checkout, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(made.root, copy, symlinks=True)
    done = subprocess.run([copy / "bin" / "deploy", "x"], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_changed_lock_is_installed(made: Checkout) -> None:
    made.lock("1.1")
    code, out, err = made.run()
    assert (code, out.split()[0]) == (0, "1.1")
    assert "requirements.lock has changed" in err
    assert made.run()[2] == ""


def test_a_package_with_another_hash_is_refused_and_the_next_run_recovers(made: Checkout) -> None:
    made.lock("1.2", wrong=True)
    code, out, err = made.run()
    assert (code, out) == (1, "")
    assert "DO NOT MATCH THE HASHES" in err
    assert "next: " in err
    made.lock("1.2")
    assert made.run()[:2] == (0, f"1.2 {made.root}\n")


def test_an_environment_whose_python_is_gone_is_made_anew(made: Checkout) -> None:
    python = made.root / ".venv" / "bin" / "python"
    real = python.readlink()
    try:
        python.unlink()
        python.symlink_to("/nonexistent/python3")
        code, _, err = made.run()
        assert code == 0
        assert "Setting up" in err
    finally:
        if not python.exists():
            python.unlink()
            python.symlink_to(real)


def test_killed_in_the_middle(checkout: Checkout) -> None:
    process = checkout.start()
    unfinished = checkout.root / ".venv" / ".unfinished"
    wait_for(lambda: unfinished.exists() and (checkout.root / ".venv" / "bin").exists())
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (checkout.root / ".venv" / LOCKS[0]).exists()
    assert checkout.run()[:2] == (0, f"1.0 {checkout.root}\n")
    assert not unfinished.exists()


def test_two_at_once(checkout: Checkout) -> None:
    first = checkout.start("first")
    wait_for(lambda: (checkout.root / ".venv" / ".unfinished").exists())
    second = checkout.start("second")
    assert second.communicate(timeout=120) == (
        f"1.0 {checkout.root} second\n",
        "Another run is setting up .venv; waiting for it.\n",
    )
    assert first.communicate(timeout=120)[0] == f"1.0 {checkout.root} first\n"


def test_without_a_python_that_is_new_enough(checkout: Checkout, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cmp", "readlink", "dirname"):
        (tools / name).symlink_to(str(shutil.which(name)))
    old = tools / "python3"
    old.write_text('#!/bin/sh\ncase $1 in --version) echo "Python 3.9.2" ;; *) exit 1 ;; esac\n')
    old.chmod(0o755)
    checkout.environment["PATH"] = str(tools)
    code, out, err = checkout.run()
    assert (code, out) == (1, "")
    assert "needs Python 3.11 or later" in err
    assert f"found: Python 3.9.2 at {old}" in err
    assert not (checkout.root / ".venv").exists()


@pytest.fixture
def environment() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("environment", ROOT / "bin" / "environment.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def test_a_missing_venv_module_is_named(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Debian without python3-venv. Nothing is installed unless we are root, and then it is said first."""
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/apt-get")
    ran: list[list[str]] = []
    monkeypatch.setattr(environment, "run", lambda command, *_: ran.append(command) or (0, ""))
    package = f"python3.{sys.version_info.minor}-venv"

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit):
        environment.need_venv_module()
    assert f"next: sudo apt-get install {package}" in capsys.readouterr().err
    assert not ran

    monkeypatch.setattr("os.geteuid", lambda: 0)
    environment.need_venv_module()
    assert f"Installing the system package {package}" in capsys.readouterr().err
    assert ran[0][:2] == ["apt-get", "install"]
    assert package in ran[0]


def test_the_locks_agree_and_name_no_index() -> None:
    runtime, dev = ((ROOT / name).read_text() for name in LOCKS)
    for text in (runtime, dev):
        assert "://" not in text
        assert "index-url" not in text
        pins = [line for line in text.splitlines() if "==" in line]
        assert len(pins) > 30
        assert all(line.endswith("\\") for line in pins), "each is followed by its hashes"
    # The same versions; for which platforms is another question, which tools of tests may answer otherwise.
    operators, tests = (
        {line.split(" ")[0] for line in text.splitlines() if "==" in line} for text in (runtime, dev)
    )
    assert operators <= tests


def test_operators_get_no_tools_of_tests() -> None:
    names = re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert not [name for name in names if re.match(r"pytest|coverage|types-|wheel|mypy|ruff", name)]


def test_the_locks_hold_what_pyproject_asks_for() -> None:
    """Else somebody changed pyproject.toml and forgot bin/lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = [*project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        runtime += extra
    for name, wanted in zip(LOCKS, (runtime, runtime + project["dependency-groups"]["dev"]), strict=True):
        pins = re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
        versions = {canonicalize_name(package): version for package, version in pins}
        for text in wanted:
            asked = Requirement(text)
            version = versions.get(canonicalize_name(asked.name))
            assert version, f"{asked.name} is not in {name}: run bin/lock"
            assert asked.specifier.contains(version), f"{text}, but {name} has {version}: run bin/lock"


def wait_for(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
