"""A drill turns red when a repository lacks one thing, and says which."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyrage
import pytest

from deployer.flow import entries
from tests.e2e import test_backups
from tests.e2e.test_backups import Kept
from tests.rig.objects import Objects
from tests.rig.world import why_not

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(why_not()), reason=why_not())]

kept = test_backups.kept
# Bytes of an upload that no compression makes smaller.
PICTURE = 600_000


def drilled(kept: Kept) -> Any:
    run = kept.operator.run("drill", "--from", "east")
    (one,) = run.result["drills"]
    assert run.code == (0 if one["ok"] else 1), one
    return one


@contextmanager
def changed(vendor: Objects, key: str, content: bytes | None) -> Iterator[None]:
    """The object is gone, or another, for a while."""
    before = vendor.path(key).read_bytes()
    if content is None:
        vendor.path(key).unlink()
    else:
        vendor.put(key, content)
    vendor.settle()
    try:
        yield
    finally:
        vendor.put(key, before)
        vendor.settle()


def test_the_toolkits_wheel_is_gone(kept: Kept) -> None:
    kept.operator.good("backup", "create")
    (wheel,) = kept.vendors["east"].keys("*/toolkit/*.whl")
    with changed(kept.vendors["east"], wheel, None):
        one = drilled(kept)
    assert f"{wheel}: it is missing" in one["error"]["why"], one


def test_a_secret_is_gone(kept: Kept) -> None:
    east = kept.vendors["east"]
    key = east.keys("*/catalogue/*/secrets.age")[-1]
    manifest_key = key.replace("secrets.age", "manifest.json")
    lines = (kept.operator.home / ".config/deploy/identity.txt").read_text().splitlines()
    identity = pyrage.x25519.Identity.from_str(
        next(one for one in lines if one.startswith("AGE-SECRET-KEY-"))
    )
    bundle = json.loads(pyrage.decrypt(east.path(key).read_bytes(), [identity]))
    del bundle["secrets"]["app/signing_key"]
    sealed = pyrage.encrypt(json.dumps(bundle).encode(), [identity.to_public()])
    manifest = json.loads(east.path(manifest_key).read_text())
    manifest.pop("digest")
    manifest["objects"]["secrets.age"] = {"size": len(sealed), "sha256": sha256(sealed).hexdigest()}
    text = json.dumps({**manifest, "digest": entries.digest(manifest)}).encode()
    with changed(east, key, sealed), changed(east, manifest_key, text):
        one = drilled(kept)
    assert "secrets.age: app/signing_key is missing" in one["error"]["why"], one


def test_a_file_is_gone(kept: Kept) -> None:
    east = kept.vendors["east"]
    before = set(east.keys("*/files/data/*"))
    kept.person.upload(secrets.token_bytes(PICTURE), "application/octet-stream")
    kept.operator.good("backup", "create")
    new = set(east.keys("*/files/data/*")) - before
    pack = max(new, key=lambda key: east.path(key).stat().st_size)
    assert east.path(pack).stat().st_size >= PICTURE
    with changed(east, pack, None):
        one = drilled(kept)
    assert pack.rpartition("/")[2][:10] in one["why"] or "local_content" in one["why"], one


def test_the_app_as_it_was_built(kept: Kept, tmp_path: Path) -> None:
    """It comes from the repository; without its snapshot nothing is asked of a registry of packages."""
    east = kept.vendors["east"]
    without_releases(kept, tmp_path)
    kept.operator.good("backup", "create")
    assert drilled(kept)["ok"]
    # It is taken after the first snapshot of files, and again when it is not there.
    kept.operator.on("kept-all-1", "systemctl stop deploy-files-east.timer deploy-files-east.service")
    found = sorted(east.keys("*/files/snapshots/*"), key=lambda key: east.path(key).stat().st_mtime)
    snapshots = {key: east.path(key).read_bytes() for key in found[:2]}
    for key in snapshots:
        east.path(key).unlink()
    east.settle()
    try:
        one = drilled(kept)
    finally:
        for key, content in snapshots.items():
            east.put(key, content)
        east.settle()
    assert not one["ok"] and one["error"]["why"].startswith("it does not hold the release "), one


def without_releases(kept: Kept, folder: Path) -> None:
    """The tests' layer of packages holds releases of the app too: take them out for drills."""
    (folder / "opt/matrix").mkdir(parents=True)
    # What overlayfs takes for "not there" (a whiteout).
    os.mknod(folder / "opt/matrix/releases", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    path = kept.operator.folder / "inventories/drill.yaml"
    text = path.read_text(encoding="utf-8")
    assert "layer: [" in text
    path.write_text(text.replace("layer: [", f"layer: [{folder}, "), encoding="utf-8")
