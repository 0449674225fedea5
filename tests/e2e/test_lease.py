"""Two at once: one works, the other is told who does and until when."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.operator import Operator
from tests.e2e.scratch import Scratch, error, mended, pause_at

RACK = """\
provider: ssh
machines:
- {{roles: [all], address: {address}, address6: "{address6}", host_key: "{host_key}"}}
catch: true
acme: {{directories: []}}
"""


@pytest.fixture(scope="module")
def colleague(scratch: Scratch, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Somebody at another computer, with the stack's secrets and an inventory that names the same machine."""
    folder = tmp_path_factory.mktemp("colleague")
    project, home = folder / "project", folder / "home"
    (project / "inventories").mkdir(parents=True)
    for name in ("stack.yaml", "secrets.age"):
        shutil.copy(scratch.folder / name, project / name)
    shutil.copytree(scratch.operator.home / ".config", home / ".config")
    host_key = scratch.console("cat /etc/ssh/ssh_host_ed25519_key.pub").strip()
    address6 = scratch.console("ip -6 -o address show scope global | awk '{print $4; exit}'").split("/")[0]
    text = RACK.format(address=scratch.address("app"), address6=address6, host_key=host_key)
    (project / "inventories" / "rack.yaml").write_text(text)
    return Operator(project, "rack", home)


@pytest.fixture
def working(scratch: Scratch) -> Iterator[subprocess.Popen[str]]:
    """An `up` in the middle of its work, halted there; killed at the end."""
    scratch.console("echo '# by hand' >>/etc/valkey/valkey.conf")
    process = scratch.operator.start("up", "--yes")
    pause_at(process, lambda event: event["kind"] == "stage" and event["text"] == "configure")
    process.send_signal(signal.SIGSTOP)
    yield process
    process.kill()
    process.communicate()


def test_the_same_machine_from_another_computer(scratch: Scratch, colleague: Operator) -> None:
    """It is the same for both: what one brought up, the other finds as wanted."""
    summary = mended(colleague)
    # A machine that is only named keeps its keys, so `base` manages two files less.
    assert {change["kind"] for change in summary["changes"]} <= {"reload"}, summary["changes"]
    scratch.mended()


def test_a_second_one_is_refused(
    scratch: Scratch, colleague: Operator, working: subprocess.Popen[str]
) -> None:
    run = colleague.run("up", "--yes")
    assert run.code == 1
    told = error(run)
    holder = json.loads(scratch.console("cat /var/lib/deploy/lease.json"))
    assert told["error"] == "LeaseError" and told["machine"] == scratch.name, told
    assert f"held by {holder['holder']} (process {working.pid})" in told["why"], (told, holder)
    assert "it expires in" in told["why"], told
    # In the same folder the lock says it, without asking a machine.
    run = scratch.operator.run("up", "--yes")
    assert run.code == 1
    assert f"process {working.pid}" in error(run)["why"], run.out
    # Looking is free.
    assert colleague.run("plan").code == 0


def test_the_lease_of_a_killed_one(
    scratch: Scratch, colleague: Operator, working: subprocess.Popen[str]
) -> None:
    """Others wait until it expires; in the folder of the killed one it is taken over at once."""
    working.kill()
    working.wait(10)
    assert colleague.run("up", "--yes").code == 1
    scratch.mended()
    assert scratch.console("cat /var/lib/deploy/lease.json 2>/dev/null || true") == ""


def test_an_expired_one_is_taken(scratch: Scratch, colleague: Operator) -> None:
    lease = {"id": "x", "holder": "eve@elsewhere", "pid": 7, "taken": 1, "expires": 2, "seconds": 120}
    _lay(scratch, lease)
    mended(colleague)
    now = float(scratch.console("date +%s"))
    _lay(scratch, {**lease, "taken": now, "expires": now + 100})
    run = scratch.operator.run("up", "--yes")
    assert run.code == 1
    assert "held by eve@elsewhere (process 7)" in error(run)["why"], run.out
    scratch.console("rm /var/lib/deploy/lease.json")
    scratch.mended()


def _lay(scratch: Scratch, lease: dict[str, object]) -> None:
    (scratch.disk / "var/lib/deploy/lease.json").write_text(json.dumps(lease))


def test_what_the_colleague_leaves_in_its_folder_is_private(colleague: Operator) -> None:
    state: Path = colleague.folder / ".deploy"
    assert state.stat().st_mode & 0o077 == 0
