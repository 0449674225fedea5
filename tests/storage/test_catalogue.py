"""The catalogue: written when something changed, read from the newest good entry, damage named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from deployer import storage
from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.flow import belongings, catalogue, entries
from deployer.flow import session as sessions
from deployer.flow import up as upping
from deployer.flow.request import Request
from deployer.flow.session import Session
from deployer.flow.up import up
from deployer.storage import Store
from tests.unit.fakevendor import Account, register
from tests.unit.test_vendors import Log, SilentEngine, as_wanted

TOP = "agora/000001/catalogue"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that was brought up once, with two folders as repositories."""
    register(monkeypatch, Account())
    monkeypatch.setattr(sessions, "Engine", SilentEngine)
    monkeypatch.setattr(upping, "_outer", lambda *_: [])
    monkeypatch.setattr(upping, "look", as_wanted)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "project"
    for name in ("project/inventories", "project/templates/proxy", "project/certs", "east", "west"):
        (tmp_path / name).mkdir(parents=True)
    (folder / "stack.yaml").write_text("name: agora\ndomain: agora.example\napp: matrix\n")
    (folder / "certs/ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    (folder / "templates/proxy/extra.j2").write_text("# ours\n")
    (folder / "inventories/cloud.hosts").write_text("# keys\n")
    (folder / "inventories/cloud.yaml").write_text(
        "provider: fake\nmachines:\n- roles: [all]\nacme: {directories: []}\nrepositories:\n"
        f"- {{name: east, kind: path, path: {tmp_path}/east}}\n"
        f"- {{name: west, kind: path, path: {tmp_path}/west, trusted_ca: certs/ca.crt}}\n"
    )
    run(folder)
    return folder


def run(root: Path) -> Any:
    return up(Request(root, "cloud"), Log())


def store(root: Path, name: str = "east") -> Store:
    return storage.open_store(storage.parse(f"file://{root.parent / name}"))


def opened(root: Path) -> Session:
    return Session.open(Request(root, "cloud"), Log(), make_secrets=True)


def test_an_up_writes_it_and_an_unchanged_one_does_not(root: Path) -> None:
    for name in ("east", "west"):
        (entry,) = store(root, name).folders(f"{TOP}/")
        assert sorted(store(root, name).list(f"{TOP}/{entry}/")) == [
            f"{TOP}/{entry}/{part}"
            for part in ("fingerprints.age", "manifest.json", "project.age", "secrets.age")
        ]
    run(root)
    assert len(store(root).folders(f"{TOP}/")) == 1
    (root / "templates/proxy/extra.j2").write_text("# ours, changed\n")
    run(root)
    assert len(store(root).folders(f"{TOP}/")) == 2
    # Once for both, unless somebody edits the toolkit while this test runs.
    assert 1 <= len(store(root).list("agora/toolkit/")) <= 2


def test_what_is_read_is_what_was_there(root: Path) -> None:
    entry, damaged = catalogue.latest(store(root), "agora")
    assert damaged == [] and entry.generation == 1
    files = entries.opened(entry, None, "east")
    assert sorted(files) == [
        "certs/ca.crt",
        "inventories/cloud.hosts",
        "inventories/cloud.yaml",
        "secrets.age",
        "stack.yaml",
        "templates/proxy/extra.j2",
    ]
    assert all(files[name] == (root / name).read_bytes() for name in files)
    versions = entry.manifest["versions"]
    assert versions["app"].startswith("matrix ") and versions["postgresql"] == "17"
    # Nothing that is not encrypted says more than names, times and sizes.
    text = json.dumps(entry.manifest)
    with opened(root) as session:
        assert not [value for value in session.secrets.values() if value in text]
        assert entry.manifest["deployment"] == "agora@cloud"
        prints = catalogue.prints(entry, None)
        assert generation.ciphers(1, "east")[0].name in prints
        assert catalogue.differing(prints, session.secrets) == []
        changed = {**session.secrets, "database/synapse": "another"}
        assert catalogue.differing(prints, changed) == ["database/synapse"]


@pytest.mark.parametrize("part", ["secrets.age", "project.age", "fingerprints.age", "manifest.json"])
@pytest.mark.parametrize("how", ["delete", "truncate", "flip"])
def test_damage_is_named_and_the_next_older_entry_read(root: Path, part: str, how: str) -> None:
    older = catalogue.latest(store(root), "agora")[0].id
    with opened(root) as session:
        rows = catalogue.write(session)
        newer = str(rows[0]["id"])
        path = root.parent / "east" / TOP / newer / part
        data = bytearray(path.read_bytes())
        if how == "delete":
            path.unlink()
        elif how == "truncate":
            path.write_bytes(data[: len(data) // 2])
        else:
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        entry, damaged = catalogue.latest(store(root), "agora")
        assert entry.id == older
        assert all(newer in one.what for one in damaged) and damaged[0].why
        found = catalogue.verify(session, session.project.inventory.repositories[0])
        assert [one.what for one in found] == [one.what for one in damaged]
        assert catalogue.verify(session, session.project.inventory.repositories[1]) == []


def test_verify_sees_what_is_missing_of_older_ones_and_of_the_toolkit(root: Path) -> None:
    with opened(root) as session:
        first = catalogue.latest(store(root), "agora")[0].id
        for _ in range(entries.READ_WHOLE):
            catalogue.write(session)
        (root.parent / "east" / TOP / first / "project.age").unlink()
        (wheel,) = store(root).list("agora/toolkit/")
        (root.parent / "east" / wheel).write_bytes(b"")
        found = catalogue.verify(session, session.project.inventory.repositories[0])
        assert [one.what for one in found] == [wheel, f"{TOP}/{first}/project.age"]


def test_all_damaged_is_told_with_each(root: Path) -> None:
    (entry,) = store(root).folders(f"{TOP}/")
    (root.parent / "east" / TOP / entry / "secrets.age").write_bytes(b"")
    with pytest.raises(DeployError, match="complete and undamaged") as caught:
        catalogue.latest(store(root), "agora")
    assert "secrets.age: it has 0 bytes" in caught.value.detail
    shutil.rmtree(root.parent / "east" / "agora")
    with pytest.raises(DeployError, match="it holds none"):
        catalogue.latest(store(root), "agora")


def test_a_repository_that_fails_stops_neither_the_other_nor_up(root: Path) -> None:
    (root.parent / "west" / TOP).chmod(0o700)
    shutil.rmtree(root.parent / "west" / TOP)
    (root.parent / "west" / TOP).write_text("in the way")
    with opened(root) as session:
        rows = {row["repository"]: row for row in catalogue.write(session)}
        assert rows["east"]["error"] == "" and rows["west"]["error"]
    (root / "templates/proxy/extra.j2").write_text("# changed\n")
    run(root)
    (root.parent / "west" / TOP).unlink()
    run(root)
    assert len(store(root, "west").folders(f"{TOP}/")) == 1


def test_the_wheel_is_one_that_pip_takes(root: Path, tmp_path: Path) -> None:
    (key,) = store(root).list("agora/toolkit/")
    wheel = tmp_path / key.rpartition("/")[2]
    wheel.write_bytes(store(root).get(key))
    with zipfile.ZipFile(wheel) as archive:
        assert {"deployer/cli/main.py", "deployer/_templates/apps/matrix/app.yaml"} <= set(archive.namelist())
    target = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*pip, str(wheel)], check=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": f"{target}:{sysconfig.get_path('purelib')}"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deployer.cli", "version"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and "deploy" in done.stdout, done.stderr
    listed = catalogue.latest(store(root), "agora")[0].manifest["toolkit"]
    assert listed["key"] == key and listed["sha256"] == hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out"])
def test_an_archive_that_leads_out_is_refused(name: str) -> None:
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(DeployError, match="no plain file"):
        belongings.unpack(content.getvalue())


def test_links_and_halves_are_refused() -> None:
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        entry = tarfile.TarInfo("stack.yaml")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(DeployError, match="no plain file"):
        belongings.unpack(content.getvalue())
    whole = belongings.pack({"a": os.urandom(5000)})
    assert belongings.unpack(whole)["a"]
    with pytest.raises(DeployError, match="damaged"):
        belongings.unpack(whole[: len(whole) // 2])


def test_a_drill_fetches_all_into_an_empty_folder(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drill"
    folder.mkdir()
    entry = catalogue.fetch(store(root), "agora", 1, None, folder)
    assert entry.id and (folder / "stack.yaml").read_bytes() == (root / "stack.yaml").read_bytes()
    assert (folder / "secrets.age").stat().st_mode & 0o777 == 0o600
    assert entries.place({"stack.yaml": (root / "stack.yaml").read_bytes()}, folder) == []
    with pytest.raises(InputError, match=r"stack\.yaml is there with other content"):
        entries.place({"stack.yaml": b"other", "new": b""}, folder)
    assert not (folder / "new").exists()
