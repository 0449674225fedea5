"""An app that nobody here has met, made by `deploy app new`: upgraded, rolled back and looked into on a real machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Deployed, layered
from tests.e2e.doors import Doors
from tests.e2e.operator import CHECKOUT
from tests.e2e.scratch import error
from tests.rig.world import World

DOMAIN = "notes.social.test"
BROKEN = '{% if version == "3" %}raise SystemExit("version 3 is broken"){% endif %}\n'
FINAL = """
migrations:
  - {name: merge, runtime: main, command: "{runtime}/bin/python -c print(1)"}
"""

# Four minutes on two cores.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def notes(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("notes")
    operator = layered(rig, package_layer, folder, "notes")
    operator.good("app", "new", "notes")
    (operator.folder / "stack.yaml").write_text(
        f"name: notes\ndomain: {DOMAIN}\napp: notes\n", encoding="utf-8"
    )
    server = operator.folder / "templates/apps/notes/server.py.j2"
    server.write_text(BROKEN + server.read_text(encoding="utf-8"), encoding="utf-8")
    assert operator.good("app", "check", "notes").result["ok"]
    summary = operator.good("up", "--yes").result
    yield Deployed(operator, DOMAIN, summary)
    operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


class Visitors(threading.Thread):
    """Someone who writes ten times a second while something goes on."""

    def __init__(self, doors: Doors) -> None:
        super().__init__(daemon=True)
        self.doors, self.ended = doors, threading.Event()
        self.answers: list[tuple[int, str]] = []
        self.longest = 0.0

    def run(self) -> None:
        while not self.ended.is_set():
            began = time.monotonic()
            try:
                answer = self.doors.request("GET", f"https://{DOMAIN}/")
                self.answers.append((answer.status, answer.body.decode()))
            except OSError as failure:
                self.answers.append((0, str(failure)))
            self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(0.1)

    def __enter__(self) -> Visitors:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.join(60)


def page(notes: Deployed) -> str:
    return notes.doors.request("GET", f"https://{DOMAIN}/visits").body.decode()


def visits(notes: Deployed) -> int:
    return int(page(notes).rsplit(":", 1)[1])


def manifest(notes: Deployed) -> Path:
    return notes.folder / "templates/apps/notes/app.yaml"


def status(notes: Deployed) -> Any:
    return notes.operator.good("app", "status").result


def execute(notes: Deployed, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """As in a shell: without --json, with something to read."""
    argv = [
        str(CHECKOUT / "bin/deploy"),
        "--project",
        str(notes.folder),
        "app",
        "exec",
        "--provider",
        "local",
    ]
    environment = {**os.environ, "HOME": str(notes.operator.home)}
    return subprocess.run(
        [*argv, *words], input=stdin, capture_output=True, text=True, timeout=120, env=environment
    )


def test_a_command_runs_as_the_app_does(notes: Deployed) -> None:
    script = (
        "import os,sys,sqlite3; data=os.environ['DATA']; sqlite3.connect(data).execute('SELECT * FROM visits');"
        "print(os.getuid()!=0, os.getcwd(), data, len(os.environ['SESSION_KEY']), sys.prefix, sys.stdin.read());"
        "sys.exit(7)"
    )
    done = execute(notes, "--", "python", "-c", script, "{config}", stdin="through")
    assert done.returncode == 7, done
    expected = [
        "True",
        "/var/lib/notes",
        "/var/lib/notes/notes.db",
        "64",
        "/opt/notes/current/main",
        "through",
    ]
    words = done.stdout.split()
    assert words[:4] == expected[:4] and words[-1] == "through", done
    assert words[4].startswith("/opt/notes/"), done
    denied = execute(notes, "--process", "web", "--", "bash", "-c", "echo no > {config}/x")
    assert denied.returncode == 1 and "Read-only file system" in denied.stderr, denied
    root = execute(notes, "--as-root", "--", "bash", "-c", "id -u; echo $SESSION_KEY | wc -c; pwd")
    assert root.stdout.split() == ["0", "65", "/var/lib/notes"], root
    known = notes.operator.run("app", "exec", "--", "no-such-program")
    assert known.code == 127 and "no such program" in known.result["stderr"]


def test_an_upgrade_and_the_way_back_fail_no_request(notes: Deployed) -> None:
    first = status(notes)
    assert first["ok"] and first["release"].startswith("1-") and first["next"] is None
    lock = notes.folder.parent / "main.lock"
    lock.write_text("# Another one.\n", encoding="utf-8")
    before = visits(notes)
    with Visitors(notes.doors) as visitors:
        up = notes.operator.good("app", "upgrade", "--to", "2", "--lock", str(lock), "--yes").result
        assert "(version 2)" in page(notes)
        assert 'version: "2"' in manifest(notes).read_text(encoding="utf-8")
        back = notes.operator.good("rollback", "--yes").result
    assert "(version 1)" in page(notes)
    assert {code for code, _ in visitors.answers} == {200}, visitors.answers
    # What was acknowledged is there; the probes from outside are visits too.
    assert visits(notes) >= before + len(visitors.answers)
    assert any("(version 2)" in text for _, text in visitors.answers)
    for change in (up, back):
        assert 0 < change["release"]["pause_seconds"] < 30
    assert (up["release"]["from"], back["release"]["to"]) == (first["release"], first["release"])
    # The files say what serves, and nothing is left to do.
    assert 'version: "1"' in manifest(notes).read_text(encoding="utf-8")
    assert notes.operator.run("plan", "--exit-code").code == 0
    receipts = {path.name.split("-")[0] for path in (notes.folder / "receipts").iterdir()}
    assert receipts == {"rollback", "up", "upgrade"}
    print(f"{len(visitors.answers)} requests, none failed; longest wait {visitors.longest:.1f} s")


def test_a_release_that_does_not_start_gives_way(notes: Deployed) -> None:
    serves = status(notes)["release"]
    with Visitors(notes.doors) as visitors:
        failed = notes.operator.run("app", "upgrade", "--to", "3", "--yes")
    assert failed.code == 1
    told = error(failed)
    assert "version 3 is broken" in told["detail"]
    assert f"{serves} serves, and the project's files say {serves} again" in told["why"]
    assert {code for code, _ in visitors.answers} == {200}, visitors.answers
    assert "(version 1)" in page(notes)
    assert status(notes)["release"] == serves
    assert 'version: "1"' in manifest(notes).read_text(encoding="utf-8")


def test_no_way_back_over_a_migration_that_cannot_be_undone(notes: Deployed) -> None:
    first = status(notes)["release"]
    text = manifest(notes).read_text(encoding="utf-8")
    manifest(notes).write_text(text.replace('version: "1"', 'version: "4"') + FINAL, encoding="utf-8")
    coming = status(notes)["next"]
    assert coming["migrations"] == [{"name": "merge", "reversible": False}]
    # What the operator wrote themselves needs no --to.
    run = notes.operator.good("app", "upgrade", "--yes")
    said = [event["text"] for event in run.events if event["kind"] == "notice"]
    assert "the migration merge runs, which cannot be undone" in said
    assert any("no recovery point is made (the inventory names no repositories)" in line for line in said)
    refused = notes.operator.run("rollback", "--to", first, "--yes")
    assert refused.code == 1
    told = error(refused)
    assert "the migration merge of 4-" in told["why"] and "--despite-migrations" in told["next"]
    assert "(version 4)" in page(notes)
    notes.operator.good("rollback", "--despite-migrations", "--yes")
    assert "(version 1)" in page(notes)
    assert "merge" not in manifest(notes).read_text(encoding="utf-8")
    assert status(notes)["release"] == first
