"""The operator's side of backups: what programs on machines answer, in tables and words. Machines: tests/e2e."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from deployer.cli import backups_text
from deployer.cli.main import deploy
from deployer.cli.options import Settings
from deployer.components.backups import actions, standing
from deployer.core.errors import CredentialError, DeployError, InputError
from deployer.core.machine import Deployment
from deployer.core.model import Repository
from deployer.flow import holdings, pruning
from deployer.flow.backups import choose
from deployer.flow.doctor import backups as judged
from deployer.state import receipts

EAST = Repository("east", "s3", "https://s3.eu-central-1.amazonaws.com", bucket="b", key="k", secret="s")
WEST = replace(EAST, name="west", endpoint="https://s3.example.net", vendor="West Ltd")
FOLDER = Repository("disk", "path", path="/mnt/backups")
NOW = datetime(2026, 11, 24, 21, 0, tzinfo=UTC)
ERROR = {"what": "opening the repository", "why": "no end after 60 s", "next": "see its vendor"}


# --- what programs answer ---


def test_commands_quote_what_they_are_given() -> None:
    assert actions.create_database("east", "full") == (
        "python3 /usr/local/lib/deploy/backups/database.py create --repository east --type full"
    )
    assert actions.release_queue(["sms"]).endswith("queues.py release --sms")
    assert "'a b'" in actions.points("a b")


@pytest.mark.parametrize("code", [0, 1])
def test_an_answer_may_say_that_something_in_it_is_bad(code: int) -> None:
    body = [{"name": "east", "error": ERROR}]
    out = "progress 10 %\n" + json.dumps(body) + "\n"
    assert actions.answer("asking", "m1", code, out, "") == body
    assert actions.answer("asking", "m1", code, json.dumps(body, indent=1), "") == body


@pytest.mark.parametrize(
    ("code", "out", "err", "why", "next"),
    [
        (1, json.dumps({"error": ERROR}), "", "no end after 60 s", "see its vendor"),
        (1, "", "Traceback\nKeyError: 'x'\n", "KeyError: 'x'", "deploy logs"),
        (127, "", "python3: not found", "python3: not found", "deploy logs"),
        (1, "", "", "it ended with 1 and said nothing", "deploy logs"),
    ],
)
def test_a_program_that_failed_is_told_in_its_own_words(
    code: int, out: str, err: str, why: str, next: str
) -> None:
    with pytest.raises(DeployError) as caught:
        actions.answer("asking", "m1", code, out, err)
    assert caught.value.why == why and next in caught.value.next and caught.value.machine == "m1"


def test_of_what_restic_says_the_damage_is_kept() -> None:
    errors = [
        "pack 3fc3 contains 2 errors: [blob ec96:\n decrypting failed]",
        "\nThe repository contains damaged pack files. These damaged files must be removed …\n",
        "restic repair packs 3fc3",
        "Fatal: repository contains errors",
    ]
    found = actions.damaged_files([{"name": "east", "ok": False, "errors": errors, "error": ERROR}])
    assert [one.why for one in found] == ["pack 3fc3 contains 2 errors: [blob ec96: decrypting failed]"]
    unreachable = actions.damaged_files([{"name": "east", "ok": False, "errors": [], "error": ERROR}])
    assert unreachable[0].why == "opening the repository: no end after 60 s"
    assert actions.damaged_files([{"name": "east", "ok": True, "errors": []}]) == ()


def test_queues_before_and_after_a_release() -> None:
    body = {
        "mail": {"held": True, "waiting": 3},
        "sms": {"held": False, "waiting": 0, "expired": 0, "received": 1},
    }
    mail, sms = actions.queues(body)
    assert (mail.held, mail.waiting, mail.released) == (True, 3, None)
    assert (sms.kind, sms.received) == ("sms", 1)
    (after,) = actions.queues({"sms": {"held": False, "waiting": 0, "released": 2, "dropped": 1}})
    assert (after.released, after.dropped) == (2, 1)


def test_how_far_a_backup_is() -> None:
    def answer(**lock: Any) -> str:
        return json.dumps([{"name": "main", "status": {"code": 0, "lock": {"backup": lock}}}])

    assert actions.progress(answer(held=True, size=200, **{"size-cplt": 50})) == (50, 200)
    assert actions.progress(answer(held=False)) is None
    assert actions.progress(answer(held=True)) is None, "it has not begun to read"
    assert actions.progress("[]") is None and actions.progress("error") is None


# --- list ---

ARCHIVE = actions.Archive(
    "east",
    archiving=True,
    last_full="2026-11-22T02:00:00Z",
    size=5 << 30,
    newest_commit="2026-11-24T20:59:46Z",
    lag=14.2,
)


def snapshots(machine: str, age: float | None, last: str, error: str = "") -> actions.Snapshots:
    return actions.Snapshots("east", machine, last, age, 12, 1 << 30, error)


def test_a_repository_is_as_old_as_the_machine_furthest_behind() -> None:
    files = [snapshots("a", 60, "2026-11-24T20:59:00Z"), snapshots("b", 360, "2026-11-24T20:54:00Z")]
    row = holdings.row(EAST, [ARCHIVE], files, None)
    assert (row["files_age"], row["files_point"]) == (360, "2026-11-24T20:54:00Z")
    assert (row["name"], row["vendor"], row["lag"], row["error"]) == ("east", "amazonaws.com", 14.2, "")
    missing = holdings.row(EAST, [ARCHIVE], [*files, snapshots("c", None, "")], None)
    assert missing["files_age"] is None, "one machine has none: there is no point that all have"


def test_the_table_says_what_counts() -> None:
    proof = {
        "at": "2026-11-20T03:10:00Z",
        "kind": "drill",
        "ok": True,
        "seconds": 125.0,
        "rate": 84.2,
        "why": "",
    }
    files = [snapshots("a", 200, "2026-11-24T20:55:00Z")]
    (row,) = backups_text.table([holdings.row(EAST, [ARCHIVE], files, proof)])
    assert (
        row["archiving"] == "yes" and row["newest_commit"] == "14 s ago" and row["files"] == "3 min 20 s ago"
    )
    assert row["last_full"] == "2026-11-22 02:00" and row["size"] == "6.0 GiB"
    assert row["proven"] == "2026-11-20 03:10 drill, 2 min 05 s, 84 MB/s"
    (empty,) = backups_text.table([holdings.row(WEST, [], [], None)])
    assert (empty["vendor"], empty["last_full"], empty["newest_commit"], empty["files"], empty["proven"]) == (
        "West Ltd", "none", "none", "none", "never",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "yes"),
        ({"needs_full": True}, "needs a full backup"),
        ({"archiving": False, "out_since": "2026-11-24T20:00:00Z"}, "out since 2026-11-24 20:00"),
        ({"archiving": False}, "out"),
    ],
)
def test_the_state_of_archiving_in_words(change: dict[str, Any], words: str) -> None:
    assert backups_text.archiving(holdings.row(EAST, [replace(ARCHIVE, **change)], [], None)) == words
    assert backups_text.archiving(holdings.row(EAST, [], [], None)) == "", "no machine has a database"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, ""),
        (900, "900 B"),
        (1024, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (300 << 30, "300 GiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    assert backups_text.size(count) == words


def test_a_repository_that_did_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    silent = actions.Archive("east", archiving=True, error="no end within 30 s")
    rows = [holdings.row(EAST, [silent], [snapshots("a", 5, "2026-11-24T20:55:00Z")], None)]
    backups_text.listed({"repositories": rows, "failed": ["database: no SSH"], "generation": 2}, Settings())
    out = capsys.readouterr().out
    assert "east: no end within 30 s" in out and "failed: database: no SSH" in out and "Generation 2." in out


def test_the_last_receipt_is_the_proof(tmp_path: Path) -> None:
    deployment = Deployment("agora", "hetzner")
    receipts.write(
        tmp_path, "drill", deployment, {"repository": "east", "ok": True, "total_seconds": 90}, NOW
    )
    later = NOW.replace(hour=22)
    body = {"repository": "east", "ok": False, "why": "probes\nare red", "total_seconds": 60}
    receipts.write(tmp_path, "drill", deployment, body, later)
    restored = {"restore": {"repository": "west", "total_seconds": 300, "mb_per_second": 50.5}}
    receipts.write(tmp_path, "restore", deployment, restored, NOW)
    receipts.write(tmp_path, "up", deployment, {"repository": "other"}, NOW)
    found = holdings.proven(tmp_path)
    assert found.keys() == {"east", "west"}
    assert (found["east"]["ok"], found["east"]["at"]) == (False, "2026-11-24T22:00:00Z")
    assert (found["west"]["kind"], found["west"]["seconds"], found["west"]["rate"]) == ("restore", 300, 50.5)
    assert "FAILED" in backups_text.proof({"proven": found["east"]})


def test_points_name_the_machines_that_lack_one(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [
        {"at": f"2026-11-24T20:5{minute}:00Z", "machines": ["a"], "complete": minute != 1}
        for minute in range(3)
    ]
    result = {"repositories": [{"repository": "east", "points": listed}]}
    backups_text.points(result, Settings(), 2)
    out = capsys.readouterr().out
    assert "20:51:00Z  only a" in out and "20:50" not in out and "3 point(s), the newest 2" in out


# --- status ---


def state(**files: Any) -> dict[str, Any]:
    return {"alarm": {"at": NOW.isoformat(), "causes": {}, "failed": {}, "pings": {}}, **files}


def entry(**change: Any) -> dict[str, Any]:
    plain = {"archiving": True, "out_since": "", "out_why": "", "needs_full": False}
    return {"repositories": {"east": {**plain, **change}}}


def test_all_is_well() -> None:
    well = state(archiving=entry(), **{"files-east": {"error": None}, "files-verify-east": {"ok": True}})
    assert not standing.problems(well, NOW.timestamp()) and not standing.degraded(well)
    assert not standing.notices(well)


def test_what_makes_status_fail() -> None:
    now = NOW.timestamp()
    cause = {"words": "no backup of files at east since …", "since": "2026-11-24T20:00:00Z", "told": 0}
    out = entry(archiving=False, out_since="2026-11-24T20:30:00Z", out_why="2048 MiB of WAL waited for it")
    assert (
        "no backup of files at east"
        in standing.problems(state(alarm={"at": NOW.isoformat(), "causes": {"files/east": cause}}), now)[0]
    )
    (left,) = standing.problems(
        state(archiving=out, alarm={"at": NOW.isoformat(), "causes": {"database/east": cause}}), now
    )
    assert "east is out of the archiving" in left and "2048 MiB" in left, "told once"
    (silent,) = standing.problems(state(), now + 3600)
    assert "nobody looks after the backups" in silent
    (replaced,) = standing.problems(
        state(guard={"verdict": "superseded", "why": "generation 2 is live"}), now
    )
    assert "serves nothing: generation 2 is live" in replaced


def test_what_only_degrades() -> None:
    assert "needs a full backup" in standing.degraded(state(archiving=entry(needs_full=True)))[0]
    failed = {"error": ERROR, "failed_since": "2026-11-24T20:58:00Z"}
    assert "files are not backed up to east" in standing.degraded(state(**{"files-east": failed}))[0]
    late = {"causes": {"files/east": {"words": "late", "since": ""}}}
    assert not standing.degraded(state(alarm=late, **{"files-east": failed})), "told as a problem"
    bad = {"ok": False, "errors": ["pack 3f is damaged"], "at": "2026-11-24T03:00:00Z"}
    assert "pack 3f is damaged" in standing.degraded(state(**{"files-verify-east": bad}))[0]
    unheard = {"failed": {"mail": "refused"}, "pings": {"dead.example": "no answer", "good.example": ""}}
    assert len(standing.degraded(state(alarm=unheard))) == 2
    assert "2 restored message(s) are held" in standing.notices(state(held={"mail": ["A", "B"]}))[0]


def test_the_answer_of_a_machine_is_read_once() -> None:
    assert standing.parse('{"alarm": {"at": "x"}, "odd": [1]}\n') == {"alarm": {"at": "x"}}
    with pytest.raises(DeployError):
        standing.parse("bash: python3: command not found", "m1")


# --- doctor ---


def test_two_companies_are_wanted() -> None:
    assert judged.vendors([]).status == "warn" and judged.vendors([], public=False).status == "skipped"
    alone = judged.vendors([EAST, replace(EAST, name="other")])
    assert alone.status == "warn" and "amazonaws.com" in alone.found and alone.next
    assert judged.vendors([EAST, WEST]).status == "ok"
    assert "one is left" in judged.vendors([EAST, WEST], "amazon").found


def test_keys_are_judged() -> None:
    assert judged.prunable(EAST).status == "warn"
    assert judged.prunable(replace(EAST, prune_key="k", prune_secret="s")).status == "warn", (
        "the machines' own"
    )
    assert judged.prunable(replace(EAST, prune_key="p", prune_secret="s")).status == "ok"
    assert judged.prunable(FOLDER).status == "ok"
    can, cannot = (
        judged.deleting(EAST, None),
        judged.deleting(EAST, CredentialError("deleting", "AccessDenied")),
    )
    assert can.status == "warn" and "who breaks into a machine" in can.found and can.next
    assert cannot.status == "ok"
    assert judged.deleting(EAST, DeployError("deleting", "no answer")).status == "warn"
    assert judged.reachable(EAST, 0, DeployError("listing", "refused", "see the key")).status == "fail"


# --- prune ---


def test_prune_refuses_before_anything_is_made() -> None:
    with pytest.raises(InputError, match="east"):
        pruning.check([EAST], 1, ())
    good = replace(EAST, prune_key="p", prune_secret="s")
    pruning.check([good, FOLDER], 3, (1, 2))
    for number in (3, 4, 0):
        with pytest.raises(InputError, match="not older than 3"):
            pruning.check([good], 3, (number,))
    with pytest.raises(InputError, match="none"):
        choose([EAST], "none")


def test_snapshots_that_are_forgotten() -> None:
    path = Path(actions.__file__).with_name("service") / "prune.py"
    loader = util.spec_from_file_location("prune_program", path)
    assert loader and loader.loader
    program = util.module_from_spec(loader)
    loader.loader.exec_module(program)

    def one(id: str, host: str, day: str, tag: str) -> dict[str, Any]:
        return {"id": id, "hostname": host, "time": f"2026-{day}T10:00:00.123456789Z", "tags": [tag]}

    listed = [
        one("gone", "left", "01-01", "point=a"),
        one("r0", "m1", "09-01", "release=0"),
        one("r1", "m1", "09-15", "release=1"),
        one("old", "m1", "10-01", "point=b"),
        one("kept", "m1", "10-30", "point=c"),
        one("r2", "m1", "11-21", "release=2"),
        one("new", "m1", "11-24", "point=d"),
    ]
    # r1 was in use at the oldest point that is kept; what a machine left that is gone stays.
    assert program.old(listed, 30 * 86400) == ["r0", "old"]
    assert program.old([listed[1]], 86400) == [], "no point yet"


# --- the command line ---


@pytest.mark.parametrize("words", [["backup", "list"], ["backup", "prune"], ["queue", "release"]])
def test_every_verb_shows_an_example(words: list[str]) -> None:
    out = CliRunner().invoke(deploy, [*words, "--help"]).output
    assert f"deploy {' '.join(words)} --provider" in out


def test_the_target_may_stand_before_the_verb(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text("name: a\n", encoding="utf-8")
    for words in (["--provider", "nowhere", "list"], ["list", "--provider", "nowhere"]):
        result = CliRunner().invoke(deploy, ["--project", str(tmp_path), "backup", *words])
        assert isinstance(result.exception, InputError)
        assert "nowhere" in str(result.exception)
