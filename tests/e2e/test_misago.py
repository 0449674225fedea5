"""A forum with a web page: somebody signs up in a browser, writes with a picture, and sees it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.flow.rehearsal import WRITTEN
from tests.e2e.browser import Browser, browser, why_not
from tests.e2e.conftest import Deployed, local_section, project
from tests.e2e.matrix import picture
from tests.e2e.scratch import console, nothing_to_do, within
from tests.rig.objects import Objects
from tests.rig.world import GATEWAY, NUMBER, World

pytestmark = pytest.mark.long

DOMAIN = "forum.social.test"
PASSWORD = "Tulpen-17-blau"
# Kept after the run: what the person saw.
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"


@pytest.fixture(scope="module")
def forum(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("forum")
    with Objects(folder / "east", f"east{NUMBER or ''}.social.test", (GATEWAY, 9404)) as store:
        rig.set_records([{"name": store.host, "type": "A", "value": GATEWAY}])
        with store.known():
            text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(rig, package_layer)
            text += f"  reach: [{store.reach}]\n"
            kept = text + "repositories:\n" + store.section("east.crt")
            operator = project(folder / "project", DOMAIN, "local", kept, folder / "home", "forum")
            (operator.folder / "stack.yaml").write_text(
                f"name: forum\ndomain: {DOMAIN}\napp: misago\nsettings: {{name: Garden}}\nbackup: {{files: 1}}\n"
            )
            (operator.folder / "inventories" / "drill.yaml").write_text(text)
            (operator.folder / "east.crt").write_text(store.ca)
            summary = operator.good("up", "--yes").result
            yield Deployed(operator, DOMAIN, summary)
            operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def page(forum: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    doors = forum.doors
    with browser(DOMAIN, doors.address, doors.ca, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def mailed(forum: Deployed, address: str) -> str:
    """The link in the mail."""

    def found() -> str:
        listed = forum.operator.run("inbox", options=()).out
        link = re.search(
            rf"to:\s+{re.escape(address)}.*?(https://{DOMAIN}/activation/\S+?/)\"?\s", listed, re.DOTALL
        )
        return link[1] if link else ""

    return str(within(30, "mail with a link", found))


def test_somebody_signs_up_and_writes(forum: Deployed, page: Browser, tmp_path: Path) -> None:
    page.open(f"https://{DOMAIN}/")
    page.click(".btn-navbar-register")
    page.type("#id_username", "anna")
    page.type("#id_email", "anna@mailbox.test")
    page.type("#id_password", PASSWORD)
    page.click(".modal-content button[type=submit]")
    page.until("word about the mail", lambda: "activate" in page.text())
    page.open(mailed(forum, "anna@mailbox.test"))
    page.until("activation", lambda: "has been activated" in page.text())

    page.open(f"https://{DOMAIN}/")
    page.click(".btn-navbar-sign-in")
    page.type(".modal-content #id_username", "anna")
    page.type(".modal-content #id_password", PASSWORD)
    page.click(".modal-content button[type=submit]")
    page.click("button", "Start thread")
    image = tmp_path / "tulip.png"
    image.write_bytes(picture())
    page.type(".posting-dialog-form input.form-control", "A first thread")
    page.type(".posting-dialog-form textarea", "Hello from a browser")
    page.choose_file(image, lambda: page.click(".btn-markup-editor", "file_upload"))
    # Its name is a link once it is there; what is sent before leaves it out.
    page.seen(".markup-editor-attachment a.item-title", "tulip.png")
    page.click(".posting-dialog-form button[type=submit]")

    page.until("thread", lambda: "/t/a-first-thread/" in page.driver.current_url)
    assert page.seen(".post-body", "Hello from a browser")
    shown = page.seen("a.attachment-name", "tulip.png")
    page.picture(ARTEFACTS / "misago.png")
    # With the person's own session: the upload as it came.
    link = str(shown.get_attribute("href"))
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in page.driver.get_cookies())
    answer = forum.doors.request("GET", link, headers={"Cookie": cookies})
    if answer.status in (301, 302):
        location = answer.headers["location"]
        answer = forum.doors.request("GET", location if "://" in location else f"https://{DOMAIN}{location}")
    assert answer.status == 200 and answer.body[:8] == image.read_bytes()[:8]


def test_a_database_that_was_away_for_half_a_minute(rig: World, forum: Deployed) -> None:
    machine = rig.folder / "machines" / "machines" / "forum-all-1"
    console(machine, "systemctl stop postgresql@17-main")
    time.sleep(30)
    console(machine, "systemctl start postgresql@17-main")
    began = time.monotonic()
    within(60, "page", lambda: forum.doors.request("GET", f"https://{DOMAIN}/").status == 200)
    within(
        60, "green probes", lambda: all(one["ok"] for one in forum.operator.run("status").result["probes"])
    )
    assert time.monotonic() - began < 60


def test_a_drill_uses_what_it_restored(forum: Deployed) -> None:
    """Its exercise signs up, follows the mailed link, writes with an upload, and finds the one that the database names."""
    # Uploads that were younger when they were backed up are not asked for.
    time.sleep(WRITTEN)
    forum.operator.good("backup", "create")
    [drilled] = forum.operator.good("drill", timeout=1800).result["drills"]
    assert "signed up, wrote with an upload and saw it; 1 upload(s) are there" in str(drilled["checks"]), (
        drilled
    )


def test_nothing_is_left_to_do(forum: Deployed) -> None:
    nothing_to_do(forum.operator)
