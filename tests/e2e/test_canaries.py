"""Every value of the bundle is a canary: none may sing where others listen, during an `up -v --debug`."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.components.cache.spec import PASSWORD_FILE
from tests.e2e.scratch import Scratch

# Shorter ones would be found anywhere.
SHORTEST = 8
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# What every unencrypted ed25519 key of OpenSSH begins with.
COMMON = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW"


@pytest.fixture(scope="module")
def canaries(scratch: Scratch) -> re.Pattern[bytes]:
    """All values, keys line by line, also in the forms that URLs and JSON give them."""
    found = set()
    for value in scratch.secrets().values():
        lines = [line.strip() for line in CERTIFICATE.sub("", value).splitlines()]
        for line in lines:
            if len(line) >= SHORTEST and not line.startswith("-----") and line != COMMON:
                found |= {line, urllib.parse.quote(line, safe=""), json.dumps(line)[1:-1]}
    assert len(found) > 20
    return re.compile(b"|".join(re.escape(value.encode()) for value in sorted(found)))


def test_the_canaries_can_be_heard(scratch: Scratch, canaries: re.Pattern[bytes]) -> None:
    """They do lie where they should, so that the silence elsewhere means something."""
    for path in (
        PASSWORD_FILE[1:],
        "etc/deploy/apps/matrix/homeserver.yaml",
        "etc/deploy/pki/issuer.key",
    ):
        assert canaries.search((scratch.disk / path).read_bytes()), path


def test_what_is_printed(scratch: Scratch, canaries: re.Pattern[bytes]) -> None:
    """Standard output, which is all events as JSON, and standard error, with -v --debug."""
    assert len(scratch.first.events) > 50
    assert not canaries.findall(scratch.first.out.encode())
    assert not canaries.findall(scratch.first.err.encode())
    run = scratch.operator.good("up", "--yes", options=("-v", "--debug"))
    assert not canaries.findall((run.out + run.err).encode())


def test_arguments_of_programs(scratch: Scratch, canaries: re.Pattern[bytes]) -> None:
    """On this computer and on the machine, whose processes this computer's kernel runs too."""
    lines = list(scratch.recorder.lines())
    seen = [line for line in lines if line != "(gone)"]
    assert len(seen) > 300 and len(seen) > 2 * (len(lines) - len(seen))
    for program in (
        "systemctl daemon-reload",
        "-m deployer.cli",
        "-m deployer.engine",
        "postgres",
        "bash -s",
    ):
        assert any(program in line for line in seen), program
    assert not [line for line in seen if canaries.search(line.encode())]


def test_arguments_of_what_runs_now(scratch: Scratch, canaries: re.Pattern[bytes]) -> None:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if canaries.search(process.read_bytes()):
                found.append(process)
        except OSError:
            continue
    assert not found


def test_logs_of_the_machine(scratch: Scratch, canaries: re.Pattern[bytes]) -> None:
    journal = scratch.console("journalctl --no-pager -o export | tr -c '[:print:]\\n' ' '")
    assert len(journal) > 10_000
    assert not canaries.findall(journal.encode())
    for path in files(scratch.disk / "var/log"):
        assert not canaries.search(path.read_bytes()), path


def test_files_of_the_machine_that_everybody_reads(scratch: Scratch, canaries: re.Pattern[bytes]) -> None:
    """All that was written since it was made (what it started from is older than the secrets), and what lies
    in memory."""
    count = 0
    for root in (scratch.machines / scratch.name / "upper", *memory(scratch)):
        for path in files(root):
            if everybody_reads(path, root):
                count += 1
                assert not canaries.search(path.read_bytes()), path
    assert count > 100


def test_files_of_the_project(scratch: Scratch, canaries: re.Pattern[bytes]) -> None:
    found = [path for path in files(scratch.folder) if canaries.search(path.read_bytes())]
    assert not [path for path in found if path.stat().st_mode & 0o077], found
    state = scratch.folder / ".deploy"
    assert state.stat().st_mode & 0o077 == 0
    # The receipts and all that is not encrypted tell nothing at all.
    assert not [path for path in found if state not in path.parents], found


def test_masking_is_not_what_keeps_them_in(scratch: Scratch) -> None:
    """Nothing had to be masked: the last wall was not needed."""
    assert "***" not in scratch.first.out and "***" not in scratch.first.err


def test_a_service_that_tells_its_password_is_not_repeated(
    scratch: Scratch, canaries: re.Pattern[bytes]
) -> None:
    """Its journal is shown when it does not start; this is what the last wall is for."""
    folder = scratch.folder / "templates/cache"
    folder.mkdir(parents=True)
    text = f"[Service]\nExecPaths=/usr /bin /lib\nExecStartPre=/bin/sh -c 'cat {PASSWORD_FILE} >&2; exit 1'\n"
    (folder / "valkey-server.service.conf.j2").write_text(text)
    try:
        run = scratch.operator.run("up", "--yes", options=("--json", "-v", "--debug"))
        told = run.out + run.err
        assert run.code == 1 and "requirepass" in told and "***" in told, told[-2000:]
        assert not canaries.findall(told.encode())
    finally:
        shutil.rmtree(scratch.folder / "templates")
        scratch.mended()
        scratch.console("journalctl --rotate && journalctl --vacuum-time=1s")


def memory(scratch: Scratch) -> list[Path]:
    """Folders of the machine that are no part of its disk, through its first process."""
    from providers.local import processes

    root = Path(f"/proc/{processes.leader(scratch.machines / scratch.name)}/root")
    return [root / "run", root / "tmp", root / "dev/shm"]


def files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path
            except OSError:
                continue


def everybody_reads(path: Path, root: Path) -> bool:
    """Whether a stranger on the machine gets as far as reading the file."""
    try:
        folders = [folder for folder in path.parents if root in folder.parents or folder == root]
        return bool(path.stat().st_mode & 0o004) and all(folder.stat().st_mode & 0o001 for folder in folders)
    except OSError:
        return False
