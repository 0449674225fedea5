"""An app that nobody here has met: a manifest and one file of its own. It gets database, mail, SMS, TLS, backup and move."""

from __future__ import annotations

import base64
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lines import Line, Log
from tests.e2e.matrix import picture
from tests.e2e.moving import DOMAIN, App, Moving
from tests.e2e.scratch import within
from tests.rig.world import World

pytestmark = pytest.mark.long

GUESTBOOK = App("guestbook", "guestbook-web", "/ready")
APP = Path(__file__).parent / "apps/guestbook"


@pytest.fixture(scope="module")
def moving(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moving]:
    folder = tmp_path_factory.mktemp("guestbook")
    with Moving(rig, package_layer, folder, GUESTBOOK) as made:
        shutil.copytree(APP, made.operator.folder / "templates/apps/guestbook")
        assert made.operator.good("app", "check", "guestbook").result["ok"]
        made.up("hetzner")
        yield made
    shutil.rmtree(folder, ignore_errors=True)


class Guest(threading.Thread):
    """Writes entries, each fifth with a picture, until told to end. taken: id -> text; pictures: id -> bytes."""

    def __init__(self, moving: Moving) -> None:
        super().__init__(daemon=True)
        self.log = Log()
        out = moving.rig.internet.address
        self.line = Line(self.log, out, moving.rig.acme_ca, moving.client(), "write")
        self.taken: dict[int, str] = {}
        self.pictures: dict[int, bytes] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.ended.wait(0.2):
            number += 1
            self.write(f"entry {number}", picture() if number % 5 == 0 else b"")

    def write(self, text: str, image: bytes = b"") -> None:
        body = {"text": text} | ({"picture": base64.b64encode(image).decode()} if image else {})
        try:
            answer = self.line.request("POST", f"https://{DOMAIN}/entries", body)
        except OSError:
            return
        if answer.status == 200:
            made = int(answer.json()["id"])
            self.taken[made] = text
            if image:
                self.pictures[made] = image

    def read(self) -> dict[int, str]:
        listed = self.line.request("GET", f"https://{DOMAIN}/entries").json()
        return {int(one["id"]): str(one["text"]) for one in listed}

    def check(self) -> None:
        there = self.read()
        assert {made: there.get(made) for made in self.taken} == self.taken
        for made, image in self.pictures.items():
            shown = self.line.request("GET", f"https://{DOMAIN}/picture?id={made}").json()
            assert base64.b64decode(shown) == image


def test_it_has_all_that_a_manifest_asks_for(moving: Moving) -> None:
    guest = Guest(moving)
    guest.write("hello", picture())
    guest.check()
    body = {"mail": "friend@mailbox.test", "number": "+447700900123"}
    assert guest.line.request("POST", f"https://{DOMAIN}/invite", body).status == 200
    letter = moving.receiver.wait_for("friend@mailbox.test", 60)
    assert (letter.verdict.spf, letter.verdict.dkim, letter.verdict.dmarc) == ("pass", "pass", "pass")
    within(
        60, "text", lambda: [one for one in moving.carrier.messages if one.recipient.endswith("7700900123")]
    )


def test_it_moves_to_another_vendor(moving: Moving, capsys: pytest.CaptureFixture[str]) -> None:
    guest = Guest(moving)
    guest.start()
    time.sleep(3)
    receipt = moving.moved("--from", "hetzner", "--to", "aws")["migrate"]
    time.sleep(3)
    guest.ended.set()
    guest.join(90)
    guest.check()
    assert not guest.log.failed(), [str(one) for one in guest.log.failed()][:5]
    with capsys.disabled():
        print(
            f"\nguest book, hetzner -> aws: pause {receipt['pause_seconds']:.1f} s; {len(guest.taken)} entries, "
            f"{len(guest.pictures)} pictures, longest wait {guest.log.longest():.1f} s"
        )


def test_it_comes_back_from_its_backups(moving: Moving) -> None:
    guest = Guest(moving)
    guest.write("before the backup", picture())
    aws = moving.operator.at("aws")
    moving.retire()
    aws.good("backup", "create")
    aws.good("down", "--yes")
    done = aws.good("restore", "--yes").result
    assert done["restore"]["lacks"] == [], done["restore"]
    guest.check()
