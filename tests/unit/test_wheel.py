"""The wheel, installed elsewhere, works without the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("deploy_toolkit-*.whl")
    return made


@pytest.fixture(scope="module")
def deploy(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command. What it requires is borrowed from the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    site = next((folder / "lib").glob("python3.*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, timeout=120)
    # A path added this way is not searched for .pth files of its own, so the checkout stays out of sight.
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "deploy"


def test_everything_is_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, inside in (("templates", "deployer/_templates"), ("inventories", "deployer/_inventories")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{inside}/{path.relative_to(ROOT / folder)}" in names
    for package in ("deployer", "providers"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(ROOT)) in names
    strays = {name.split("/")[0] for name in names if ".dist-info" not in name} - {"deployer", "providers"}
    assert not strays
    assert not [name for name in names if name.endswith((".pyc", ".age"))]


def test_it_runs_init_and_plan(deploy: Path, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(deploy), *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    where = run("version")
    assert where.returncode == 0, where.stderr
    python = deploy.with_name("python")
    found = subprocess.run(
        [python, "-I", "-c", "import deployer; print(deployer.__file__)"], capture_output=True, text=True
    )
    assert Path(found.stdout).is_relative_to(deploy.parents[1]), "not the checkout's"

    made = run("init", "agora", "--name", "agora", "--domain", "agora.example", "--app", "matrix")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "agora" / "stack.yaml").is_file()

    planned = run("--project", "agora", "plan", "--provider", "local")
    assert planned.returncode == 0, planned.stderr
    assert "create machine agora-all-1" in " ".join(planned.stdout.split())
    assert " changes on 1 machine" in planned.stdout
