"""All is gone, and `restore` brings it back: killed anywhere it ends the same, and a damaged repository gives way."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.broken import DATABASE, FILES, Broken, archived, damage, deployed, refused, segments
from tests.e2e.killing import Event, killed
from tests.e2e.operator import Run
from tests.rig.objects import Damage
from tests.rig.world import World

# Moments of a restore: an event's kind, words and status, and seconds after it.
MOMENTS = [
    ("notice", "restore from", "", 0.0),
    ("machine", "create machine", "start", 0.1),
    ("stage", "files", "start", 0.3),
    ("step", "database:", "start", 0.0),
    ("step", "database fetched and checked", "ok", 0.1),
    ("notice", "the release", "", 0.0),
    ("stage", "start database", "start", 0.5),
    ("stage", "start app", "start", 1.5),
]


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def gone(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """Taken down, and kept as it is then."""
    with deployed(rig, package_layer, tmp_path_factory.mktemp("broken")) as made:
        archived(made)
        made.operator.good("down", "--yes")
        shutil.copytree(made.folder, made.kept / "project", symlinks=True)
        for name, vendor in made.vendors.items():
            shutil.copytree(vendor.store, made.kept / name)
        yield made


def at(kind: str, words: str, status: str) -> Callable[[Event], bool]:
    return lambda event: (
        event["kind"] == kind and event["text"].startswith(words) and event.get("status", "") == status
    )


@pytest.mark.parametrize(
    "moments",
    [pytest.param(MOMENTS[1::2], id="some"), pytest.param(MOMENTS, id="all")],
)
def test_killed_again_and_again(gone: Broken, moments: list[tuple[str, str, str, float]]) -> None:
    """One `restore` after the other is killed, each a little further on, and then one is left alone."""
    gone.again()
    for kind, words, status, after in moments:
        process = gone.operator.start("restore", "--yes")
        assert killed(process, at(kind, words, status), after), f"it ended before {words}"
    gone.restored(gone.operator.good("restore", "--yes").result, broken_off=True)


PLACES = {
    "WAL": "",
    "database": "*/000001/database/backup/main/*/bundle/*",
    "files": "*/000001/files/data/*",
}


@pytest.mark.parametrize(("part", "how"), [("WAL", "flip"), ("database", "truncate"), ("files", "delete")])
def test_a_damaged_repository_gives_way(gone: Broken, part: str, how: Damage) -> None:
    """None was named: the next one is taken, and what is wrong with the first is told."""
    gone.again()
    east = gone.vendors["east"]
    with damage(east, PLACES[part] or segments(east)[-2], how) as keys:
        run = gone.operator.good("restore", "--yes")
    named = keys[0].rpartition("/")[2][:24] if part == "WAL" else "damage"
    told = warnings(run)
    assert any("taking west instead" in text and named in text for text in told), told
    assert run.result["restore"]["repository"] == "west"
    gone.restored(run.result)
    # What was there before is named by doctor, and stays.
    found = gone.operator.run("doctor").result["findings"]
    left = [one["found"] for one in found if one["id"] == "backups.leftovers"]
    assert left and all("main.before-" in text or text == "nothing" for text in left), left


def test_a_damaged_backup_gives_way_to_the_one_before(gone: Broken) -> None:
    """A repository was named: an older backup in it and the WAL since lead to the same moment."""
    gone.again()
    with damage(gone.vendors["east"], "*/000001/database/backup/main/*F_*/bundle/*", "flip") as keys:
        run = gone.operator.good("restore", "--yes", "--from", "east")
    label = keys[0].split("/")[-3]
    told = warnings(run)
    assert any(f"backup {label}: bundle/" in text and "the backup before it" in text for text in told), told
    record = run.result["restore"]
    assert record["repository"] == "east"
    assert any(label in text for one in record["parts"].values() for text in one.get("damaged", ())), record
    gone.restored(run.result)


def warnings(run: Run) -> list[str]:
    return [event["text"] for event in run.events if event["kind"] == "warning"]


@pytest.mark.parametrize("moment", MOMENTS, ids=[f"{words}-{status}" for _, words, status, _ in MOMENTS])
def test_killed_once(gone: Broken, moment: tuple[str, str, str, float]) -> None:
    gone.again()
    kind, words, status, after = moment
    process = gone.operator.start("restore", "--yes")
    assert killed(process, at(kind, words, status), after), f"it ended before {words}"
    gone.restored(gone.operator.good("restore", "--yes").result, broken_off=True)


@pytest.mark.parametrize("unit", [DATABASE, FILES])
@pytest.mark.parametrize("after", [0.0, 1.0, 3.0])
def test_the_work_on_the_machine_is_killed(gone: Broken, unit: str, after: float) -> None:
    gone.again()
    beside = threading.Thread(target=_kill, args=(gone, unit, after))
    beside.start()
    run = gone.operator.run("restore", "--yes")
    beside.join(120)
    if run.code:
        assert "killed" in refused(run)["why"] or "ended while" in refused(run)["why"], run.out[-1000:]
        run = gone.operator.good("restore", "--yes")
    gone.restored(run.result, broken_off=True)


def _kill(gone: Broken, unit: str, after: float) -> None:
    _until_active(gone, unit)
    time.sleep(after)
    gone.console(f"systemctl kill --kill-whom=all --signal=KILL {unit}", check=False)


def _until_active(gone: Broken, unit: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError, OSError):
            if gone.console(f"systemctl is-active {unit}", check=False).strip() == "active":
                return
        time.sleep(0.1)


@pytest.mark.parametrize("after", [0.5, 3.0])
def test_the_machine_starts_anew_in_the_middle(gone: Broken, after: float) -> None:
    gone.again()
    process = gone.operator.start("restore", "--yes")
    _until_active(gone, DATABASE)
    time.sleep(after)
    gone.console("systemd-run --on-active=0 --timer-property=AccuracySec=50ms systemctl reboot --force")
    out, _ = process.communicate(timeout=300)
    assert process.returncode in (0, 1), out[-2000:]
    run = gone.operator.good("restore", "--yes") if process.returncode else Run(0, out, "")
    gone.restored(run.result, broken_off=True)
