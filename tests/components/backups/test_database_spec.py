"""What the database's backups want of its machine, and the rules of its programs that need no machine."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.components.backups import database, spec
from deployer.components.database import spec as database_spec
from deployer.core.component import Context, File
from deployer.core.generation import Generation
from deployer.core.model import Repository
from deployer.flow.wanted import render
from tests.components.backups.machine import live
from tests.components.base.world import context

EAST = Repository(
    "east", "s3", "https://s3.east.example:9000", bucket="b", prefix="p", key="K", secret="secret-of-east"
)
DISK = Repository("disk", "path", path="/mnt/backups")
ROOT = Path("/nonexistent")
ARCHIVE = f"{database_spec.FOLDER}/conf.d/20-archive.conf"
UNIT = "/etc/systemd/system/postgresql@17-main.service.d/deploy.conf"
SERVICE = Path(database.__file__).parent / "service"


def text(files: tuple[File, ...], path: str) -> str:
    return render(next(file for file in files if file.path == path), ROOT).decode()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The modules of the programs, as they find one another on a machine."""
    monkeypatch.syspath_prepend(str(SERVICE))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    names = (
        "pgbackrest",
        "database_wal",
        "archiving",
        "database_choice",
        "database_conf",
        "database_create",
        "database_verify",
    )
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


# --- what is on the machine ---


def test_wal_goes_nowhere_until_the_deployment_is_live() -> None:
    ctx = context()
    assert "archive_command = '/bin/true'" in text(database_spec.spec(ctx).files, ARCHIVE)
    assert "archive_command = '/bin/true'" in text(database_spec.spec(live(())).files, ARCHIVE)
    wanted = text(database_spec.spec(live((EAST,))).files, ARCHIVE)
    assert 'archive_command = \'/usr/local/lib/deploy/backups/archive-push "%p"' in wanted
    assert "archive_timeout = 30s" in wanted


def test_another_archive_command_needs_no_restart() -> None:
    for ctx in (context(), live((EAST,))):
        file = next(one for one in database_spec.spec(ctx).files if one.path == ARCHIVE)
        assert file.on_change == "reload"


def test_another_deployment_took_over() -> None:
    ctx = live((EAST,))
    later = Generation(2, "demo@elsewhere", "2026-11-25T00:00:00Z", "bob")
    ctx = replace(ctx, secrets={**ctx.secrets, later.entry: later.to_json()})
    assert "archive_command = '/bin/true'" in text(database_spec.spec(ctx).files, ARCHIVE)


def test_the_server_may_write_to_a_repository_that_is_a_folder() -> None:
    assert "ReadWritePaths=-/mnt/backups" in text(database_spec.spec(live((EAST, DISK))).files, UNIT)
    assert "/mnt/backups" not in text(database_spec.spec(live((EAST,))).files, UNIT)
    for unit in (database.WATCH, database.SERVICE):
        part = database.part(live((DISK,)))
        assert "ReadWritePaths=-/mnt/backups" in text(part.files, f"/etc/systemd/system/{unit}")


def test_no_secret_is_in_a_file_of_this_part() -> None:
    ctx = live((EAST,))
    part = database.part(ctx)
    everything = "".join(render(file, ROOT).decode() for file in part.files)
    everything += "".join(f"{one.check}{dict(one.args)}" for one in part.steps)
    for secret in ("cipher-backups", EAST.secret):
        assert secret not in everything


def configure(ctx: Context) -> object:
    return next(one for one in database.part(ctx).steps if one.name == "pgbackrest").args["because"]


def test_another_key_or_generation_writes_the_configurations_anew() -> None:
    first = configure(live((EAST,)))
    assert first == configure(live((EAST,)))
    assert first != configure(live((replace(EAST, secret="T"),)))
    assert first != configure(live((EAST,), number=2))


def test_a_red_repository_degrades_only() -> None:
    assert all(probe.degrades for probe in database.part(live((EAST,))).probes)
    assert database.part(live(())).units == ()


def test_modules_are_all_shipped() -> None:
    there = {path.name for path in SERVICE.glob("database*.py")} | {"pgbackrest.py", "archiving.py"}
    assert there == set(database.MODULES)


# --- pgBackRest's configuration ---


def test_configuration(programs: dict[str, Any]) -> None:
    one = spec.repository("demo", EAST, 3, live((EAST,), number=3).secrets)
    lines = programs["database_conf"].configuration(one, Path("/place")).splitlines()
    assert {
        "repo1-path=/p/demo/000003/database",
        "repo1-s3-endpoint=s3.east.example",
        "repo1-storage-port=9000",
        "repo1-storage-verify-tls=y",
        "repo1-cipher-type=aes-256-cbc",
        "repo1-cipher-pass=cipher-backups/000003/east/database",
        "expire-auto=n",
        "archive-async=y",
        "spool-path=/place/spool",
        # Beside a database that serves.
        "process-max=2",
    } <= set(lines)
    # It would drop WAL from the archive.
    assert not [line for line in lines if "queue-max" in line]


def test_configuration_of_a_folder(programs: dict[str, Any]) -> None:
    one = spec.repository("demo", DISK, 1, live((DISK,)).secrets)
    lines = programs["database_conf"].configuration(one, Path("/place")).splitlines()
    assert {"repo1-type=posix", "repo1-path=/mnt/backups/demo/000001/database"} <= set(lines)


def test_a_restore_takes_all_cores(programs: dict[str, Any]) -> None:
    processes = programs["database_choice"].processes
    assert [processes(cores) for cores in (1, 2, 4, 8, 64)] == [2, 2, 4, 8, 8]
    one = spec.repository("demo", EAST, 3, live((EAST,), number=3).secrets)
    text = programs["database_conf"].configuration(one, Path("/place"), processes=processes(4))
    assert "process-max=4" in text.splitlines()


# --- who leaves the archiving ---

MIB = 1 << 20


@pytest.mark.parametrize(
    ("total", "lacks", "pushed", "leaves"),
    [
        pytest.param(400, (400, 0), (None, 1), "", id="below half"),
        pytest.param(512, (512, 16), (None, 1), "a", id="dead"),
        pytest.param(512, (512, 512), (None, None), "ab", id="all dead"),
        pytest.param(600, (520, 600), (1, 1), "b", id="both slow, the better one stays"),
        pytest.param(1024, (1024, 1024), (1, 1), "ab", id="the bound"),
        pytest.param(600, (600,), (3,), "", id="one, slow"),
        pytest.param(600, (600,), (90,), "a", id="one, dead for a while"),
    ],
)
def test_leaving(
    programs: dict[str, Any],
    total: int,
    lacks: tuple[int, ...],
    pushed: tuple[float | None, ...],
    leaves: str,
) -> None:
    names = "ab"[: len(lacks)]
    backlog = programs["archiving"].Backlog(
        total * MIB,
        {name: value * MIB for name, value in zip(names, lacks, strict=True)},
        dict(zip(names, pushed, strict=True)),
    )
    assert "".join(sorted(programs["archiving"].leaving(backlog, set(names), 1024.0 * MIB))) == leaves


def test_another_generation_begins_anew(programs: dict[str, Any]) -> None:
    fitted = programs["archiving"].fitted
    wanted = {"generation": 1, "repositories": [{"name": "a"}]}
    state = fitted({}, wanted)
    assert not state["repositories"]["a"]["archiving"] and state["repositories"]["a"]["needs_full"]
    state["repositories"]["a"].update(archiving=True, needs_full=False)
    assert fitted(state, wanted) == state
    assert not fitted(state, {**wanted, "generation": 2})["repositories"]["a"]["archiving"]


# --- what is due ---


@pytest.mark.parametrize(
    ("needs_full", "full", "newest", "kind"),
    [
        (True, 0.5, 0.5, "full"),
        (False, None, None, "full"),
        (False, 7.0, 0.5, "full"),
        (False, 2.0, 1.0, "diff"),
        (False, 2.0, 0.5, ""),
    ],
)
def test_due(
    programs: dict[str, Any], needs_full: bool, full: float | None, newest: float | None, kind: str
) -> None:
    at = 1_800_000_000.0
    iso = programs["pgbackrest"].iso
    times = {
        "full": iso(at - full * 86400) if full is not None else "",
        "any": iso(at - newest * 86400) if newest is not None else "",
    }
    policy = {"full": 7, "differential": 1}
    assert programs["database_create"].kind_due(policy, {"needs_full": needs_full}, times, at) == kind


# --- verify ---


def test_names_of_segments(programs: dict[str, Any]) -> None:
    assert programs["database_wal"].next_segment("0000000100000000000000FF") == "000000010000000100000000"
    assert programs["database_wal"].segments_to("000000010000000100000001", "0000000100000000000000FF") == [
        "0000000100000000000000FF",
        "000000010000000100000000",
        "000000010000000100000001",
    ]


def segment(number: int) -> str:
    return f"{1:08X}{0:08X}{number:08X}"


def test_missing_wal_is_found_and_known_gaps_are_not_told(programs: dict[str, Any]) -> None:
    backups = [{"label": "L", "archive": {"start": segment(3), "stop": segment(4)}}]
    absent = programs["database_verify"].absent
    wal = [segment(number) for number in (1, 3, 4, 5, 8)]
    assert [one["what"] for one in absent(wal, backups)] == [
        f"WAL segment {segment(6)}",
        f"WAL segment {segment(7)}",
    ]
    assert absent(wal, backups, [{"first": segment(6), "last": segment(7)}]) == []
    [one] = absent([segment(3)], backups)
    assert "backup L cannot be restored" in one["why"]


@pytest.mark.parametrize(
    ("wal", "since"),
    [
        ((2, 3, 4, 5, 6, 7, 8), 100),
        # A vendor that was away: from the first backup after it on.
        ((2, 3, 4, 7, 8), 300),
        # What was archived before a restore to an earlier time is no gap.
        ((2, 3, 4, 5, 6, 7, 8, 1 << 64), 100),
        ((2, 3, 4, 5, 6, 8), None),
    ],
)
def test_since_when_a_repository_is_whole(
    programs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, wal: tuple[int, ...], since: int | None
) -> None:
    module = programs["database_choice"]
    held = [
        {"timestamp": {"stop": stop}, "archive": {"start": segment(first), "stop": segment(first)}}
        for first, stop in ((3, 100), (4, 200), (7, 300))
    ]
    names = {segment(one) if one < 1 << 64 else f"{2:08X}{0:08X}{1:08X}": "key" for one in wal}
    request = {"target": {"kind": "latest"}, "repository": {"name": "east"}}
    choice = module.Choice(request)
    monkeypatch.setattr(choice, "held", lambda: held)
    monkeypatch.setattr(module.database_wal, "listing", lambda conf: names)
    if since is None:
        with pytest.raises(programs["pgbackrest"].Failed, match="no finished backup"):
            choice.whole_since()
    else:
        assert choice.whole_since() == programs["pgbackrest"].iso(since)


def test_words_of_verify(programs: dict[str, Any]) -> None:
    head = "2026-11-24 21:19:17.742 P02   INFO: "
    lines = [
        f"{head}invalid checksum '20261124-211607F/bundle/1'",
        f"{head}invalid checksum '20261124-211607F/bundle/1'",
        f"{head}invalid result 17-1/0000000100000000/{segment(4)}-{'a' * 40}.zst: [29] raised from local-1 protocol: zst",
        f"{head}20261124-211607F/backup.manifest is missing or unusable, using copy",
        f"{head}stanza: main",
    ]
    assert [one["what"] for one in programs["database_verify"].read(lines)] == [
        "backup 20261124-211607F: bundle/1",
        f"WAL segment {segment(4)}",
        "backup 20261124-211607F: backup.manifest",
    ]
