"""A Bluesky network moves to another vendor and back while people write, and is restored from its backups: PostgreSQL, the
PDS' SQLite files and its blobs belong together."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.atproto import Person
from tests.e2e.conftest import local_section, project
from tests.e2e.lines import Line, Log
from tests.e2e.matrix import picture
from tests.e2e.moving import DOMAIN, App, Moving, Site
from tests.e2e.skycrowd import SkyCrowd
from tests.rig import layer
from tests.rig.world import World

pytestmark = pytest.mark.long

BLUESKY = App(
    "bluesky", "bluesky-pds", "/xrpc/com.atproto.server.describeServer", "settings: {registration: open}\n"
)
NEWEST_EVENT = (
    'python3 -c \'import sqlite3; print(sqlite3.connect("file:/var/lib/bluesky/pds/sequencer.sqlite?mode=ro", uri=True)'
    '.execute("SELECT max(seq) FROM repo_seq").fetchone()[0])\''
)
# Seconds that a first release takes to be compiled.
BUILD = 2400


@pytest.fixture(scope="module")
def sky_layer(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Bluesky needs, compiled once."""
    folder = tmp_path_factory.mktemp("skylayer")
    text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(rig, package_layer)
    operator = project(folder / "project", "first.social.test", "local", text, folder / "home", "first")
    (operator.folder / "stack.yaml").write_text(
        "name: first\ndomain: first.social.test\napp: bluesky\n", encoding="utf-8"
    )
    operator.good("up", "--yes", timeout=BUILD)
    made = layer.make(rig.folder / "machines" / "machines" / "first-all-1", rig.folder / "skylayer")
    operator.good("down", "--yes")
    return made


@pytest.fixture(scope="module")
def moving(
    rig: World, sky_layer: Path, package_layer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moving]:
    folder = tmp_path_factory.mktemp("skymoves")
    with Moving(rig, (sky_layer, package_layer), folder, BLUESKY) as made:
        made.up("hetzner")
        yield made
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def crowd(moving: Moving) -> SkyCrowd:
    def line(log: Log, kind: str, kept: bool) -> Line:
        return Line(log, moving.rig.internet.address, moving.rig.acme_ca, moving.client(), kind, kept=kept)

    def person(talks: Line) -> Person:
        mail = f"person{time.time_ns()}@mailbox.test"
        return Person(
            talks,  # type: ignore[arg-type]
            DOMAIN,
            mail=mail,
            number="",
            mailbox=lambda to: moving.receiver.wait_for(to, 60).text,
            phone=lambda to: "",
        )

    return SkyCrowd(line, person)


def whole(site: Site) -> None:
    """Every SQLite file passes its own test."""
    told = site.console(
        "find /var/lib/bluesky/pds -name '*.sqlite' | while read -r file; do"
        ' python3 -c \'import sqlite3, sys; c = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True);'
        ' print(c.execute("PRAGMA integrity_check").fetchone()[0])\' "$file"; done | sort | uniq -c'
    )
    assert told.split()[1:] == ["ok"], told
    assert int(told.split()[0]) >= 5, told


def test_to_another_vendor(moving: Moving, crowd: SkyCrowd, capsys: pytest.CaptureFixture[str]) -> None:
    author, image = crowd.writings[0].person, picture()
    uploaded = author.upload(image, "image/png")
    with crowd:
        time.sleep(10)
        receipt = moving.moved("--from", "hetzner", "--to", "aws")["migrate"]
        time.sleep(5)
    # Uploaded before, posted after: its author was told that it is there.
    author.log_in()
    author.post("a picture from before", uploaded)
    assert author.blob(author.did, uploaded["ref"]["$link"]) == image
    figures = crowd.check()
    whole(moving.site("aws"))
    with capsys.disabled():
        print(f"\nbluesky, hetzner -> aws: {told(receipt)}; {figures}")


def test_and_back(moving: Moving, crowd: SkyCrowd, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was written in between."""
    with crowd:
        receipt = moving.moved("--back")["migrate"]
        time.sleep(5)
    figures = crowd.check()
    whole(moving.site("hetzner"))
    with capsys.disabled():
        print(f"\nbluesky, aws -> hetzner: {told(receipt)}; {figures}")


def test_restored(moving: Moving, crowd: SkyCrowd, capsys: pytest.CaptureFixture[str]) -> None:
    """The machine is lost while people write. Files are as of their last backup, the database is newer: what the PDS does
    not have is gone from the AppView too, and the numbers of events only rise."""
    moving.retire()
    here = moving.operator.at("hetzner")
    with crowd:
        time.sleep(8)
        here.good("backup", "create")
        kept = [dict(one.taken) for one in crowd.writings]
        time.sleep(12)
    before = int(moving.site("hetzner").console(NEWEST_EVENT))
    here.good("down", "--yes")
    done = here.good("restore", "--yes", timeout=BUILD).result
    whole(moving.site("hetzner"))
    lost = 0
    for writing, safe in zip(crowd.writings, kept, strict=True):
        person = writing.person
        person.log_in()
        there = {str(one["uri"]) for one in person.posts()}
        assert set(safe.values()) <= there, f"{person.handle} lost posts of before the backup"
        lost += len(set(writing.taken.values()) - there)
        person.until(60, "same posts in the AppView", lambda p=person, t=there: crowd.feed(p) == t)
        for cid, data in writing.blobs.items():
            if (answer := person.ask("com.atproto.sync.getBlob", did=person.did, cid=cid)).status == 200:
                assert answer.body == data
    one, other = (writing.person for writing in crowd.writings)
    post = one.post("after the restore")
    other.until(30, "new post", lambda: post["uri"] in [item["uri"] for item in other.timeline()])
    after = int(moving.site("hetzner").console(NEWEST_EVENT))
    assert after > before and after > 1_000_000, (before, after)
    with capsys.disabled():
        print(f"\nbluesky, restored: {lost} posts are lost; lacks {done['restore']['lacks']}; events {after}")


def test_a_drill_uses_what_it_restored(moving: Moving, sky_layer: Path, package_layer: Path) -> None:
    """Its exercise signs up, confirms the mail, writes with a picture, and finds those that the database names."""
    reach = ", ".join(store.reach for store in moving.stores.values())
    section = local_section(moving.rig) + f"  layer: [{sky_layer}, {package_layer}]\n  reach: [{reach}]\n"
    inventory = moving.operator.folder / "inventories" / "drill.yaml"
    inventory.write_text("provider: local\nmachines:\n- roles: [all]\n" + section, encoding="utf-8")
    here = moving.operator.at("hetzner")
    here.good("backup", "create")
    [drilled] = here.good("drill", timeout=BUILD).result["drills"]
    found = re.search(r"signed up, wrote with a picture and saw it; (\d+) picture", str(drilled["checks"]))
    assert found and int(found[1]) > 0, drilled


def told(receipt: dict[str, float]) -> str:
    return (
        f"pause {receipt['pause_seconds']:.1f} s, of it the app's start {receipt['app_start_seconds']:.1f} s"
    )
