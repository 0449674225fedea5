"""Certificate authorities that nobody reaches: it is said while `up` waits, and `up` does not wait long."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import local_section, project
from tests.e2e.scratch import error
from tests.rig.world import World

DIRECTORIES = ("https://acme.social.test:14999/dir", "https://ca.nowhere.test/dir")
TEXT = """\
provider: local
machines:
- roles: [all]
catch: true
acme: {{directories: [{directories}], email: ops@silent.social.test}}
"""


@pytest.mark.long
def test_it_is_told_and_bounded(rig: World, package_layer: Path, tmp_path: Path) -> None:
    text = TEXT.format(directories=", ".join(DIRECTORIES)) + local_section(rig, package_layer)
    folder = tmp_path / "project"
    operator = project(folder, "silent.social.test", "silent", text, tmp_path / "home", "silent")
    try:
        run = operator.run("up", "--yes")
        assert run.code == 1, run.out[-3000:]
        failed = error(run)
        stages = {event["text"]: event["seconds"] for event in run.events if event.get("seconds")}
        assert stages["start proxy"] < 75, stages
        notices = [event["text"] for event in run.events if event["kind"] == "notice"]
        [first, *_] = [text for text in notices if "waiting for a certificate of" in text]
        assert "silent.social.test" in first and DIRECTORIES[0] in first
        assert "none of the certificate authorities answers" in failed["detail"], failed
        assert "acme.directories" in failed["detail"]
    finally:
        operator.good("down", "--yes")
        shutil.rmtree(tmp_path, ignore_errors=True)
