"""An app by package and by container: the same end, the same data, and no registry that can take it away."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Deployed, local_section, project
from tests.e2e.matrix import picture
from tests.e2e.scratch import console, mended, nothing_to_do, within
from tests.rig.objects import Objects
from tests.rig.registry import Registry
from tests.rig.world import GATEWAY, NUMBER, World

pytestmark = pytest.mark.long

NAME, DOMAIN, MACHINE = "boxed", "boxed.social.test", "boxed-all-1"
APP = Path(__file__).parent / "apps/guestbook"
# What node wants of the system, beside its own folder.
LIBRARIES = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libstdc++.so.6", "libgcc_s.so.1")


@dataclass
class Boxed(Deployed):
    registry: Registry
    store: Objects
    machine: Path
    # What was written: id -> text, picture.
    written: dict[int, tuple[str, bytes]]

    @property
    def app(self) -> Path:
        return self.folder / "templates/apps/guestbook/app.yaml"

    def console(self, command: str, *, check: bool = True) -> str:
        return console(self.machine, command, check=check)

    def used(self) -> None:
        """The same, whatever it runs from: an entry with a picture, a letter, a text; and all that was written before."""
        text, image = f"entry {len(self.written) + 1}", picture()
        body = {"text": text, "picture": base64.b64encode(image).decode()}
        made = self.doors.request("POST", f"https://{DOMAIN}/entries", body)
        assert made.status == 200, made.body
        self.written[int(made.json()["id"])] = (text, image)
        self.same()
        friend, number = f"friend{len(self.written)}@elsewhere.test", f"+44770090012{len(self.written)}"
        invited = self.doors.request("POST", f"https://{DOMAIN}/invite", {"mail": friend, "number": number})
        assert invited.status == 200, invited.body
        assert DOMAIN in within(60, "letter", lambda: self.operator.inbox("mail", friend))
        assert DOMAIN in within(60, "text", lambda: self.operator.inbox("sms", number.removeprefix("+")))

    def same(self) -> None:
        listed = self.doors.request("GET", f"https://{DOMAIN}/entries").json()
        there = {int(one["id"]): str(one["text"]) for one in listed}
        assert there == {made: text for made, (text, _) in self.written.items()}
        for made, (_, image) in self.written.items():
            shown = self.doors.request("GET", f"https://{DOMAIN}/picture?id={made}").json()
            assert base64.b64decode(shown) == image


@pytest.fixture(scope="module")
def boxed(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxed]:
    """It runs from packages at first."""
    folder = tmp_path_factory.mktemp(NAME)
    with ExitStack() as stack:
        store = stack.enter_context(
            Objects(folder / "east", f"east{NUMBER or ''}.social.test", (GATEWAY, 9402))
        )
        registry = stack.enter_context(Registry(folder / "registry", "registry.social.test", (GATEWAY, 9403)))
        for host in (store.host, "registry.social.test"):
            rig.set_records([{"name": host, "type": "A", "value": GATEWAY}])
        stack.enter_context(store.known())
        text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(rig, package_layer)
        text += f"  nesting: true\n  reach: [{store.reach}, tcp/9403@{GATEWAY}]\n"
        text += "repositories:\n" + store.section("east.crt")
        operator = project(folder / "project", DOMAIN, "local", text, folder / "home", NAME)
        (operator.folder / "stack.yaml").write_text(
            f"name: {NAME}\ndomain: {DOMAIN}\napp: guestbook\nbackup: {{files: 1}}\n"
        )
        (operator.folder / "east.crt").write_text(store.ca)
        shutil.copytree(APP, operator.folder / "templates/apps/guestbook")
        summary = operator.good("up", "--yes").result
        machine = rig.folder / "machines" / "machines" / MACHINE
        yield Boxed(operator, DOMAIN, summary, registry, store, machine, {})
        operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


def image(boxed: Boxed) -> str:
    """The app's packages in an image, which the registry offers from now on."""
    disk = boxed.machine / "root"
    [release] = disk.glob("opt/guestbook/releases/1-*/main")
    system = disk / "usr/lib/x86_64-linux-gnu"
    content: dict[str, Path | bytes] = {
        "app": release,
        "lib64/ld-linux-x86-64.so.2": system / "ld-linux-x86-64.so.2",
    }
    content |= {f"lib/x86_64-linux-gnu/{name}": (system / name).resolve() for name in LIBRARIES}
    content["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\n"
    return boxed.registry.add("guests/book", content, environment={"PATH": "/app/bin"})


def test_by_package(boxed: Boxed) -> None:
    boxed.used()
    assert boxed.operator.run("status").code == 0


def test_by_container_it_does_the_same_with_the_same_data(boxed: Boxed) -> None:
    (boxed.app.parent / "registry.crt").write_text(boxed.registry.ca)
    (boxed.app.parent / "main.image").write_text(f"{image(boxed)}\n")
    text = boxed.app.read_text()
    runtime = "{name: main, kind: container, lock: main.image, ca: registry.crt}"
    text, count = re.subn(r"\{name: main, kind: node, lock: package-lock.json\}", runtime, text)
    assert count == 1
    text = text.replace('"{runtime}/bin/node ', '"node ').replace("port: 9100", "port: 9100\n    memory: 256")
    boxed.app.write_text(text.replace('version: "1"', 'version: "2"'))
    assert boxed.operator.good("app", "check", "guestbook").result["ok"]
    boxed.operator.good("app", "upgrade", "--yes")
    boxed.used()
    nothing_to_do(boxed.operator)


def test_it_runs_as_nobody_and_within_its_bounds(boxed: Boxed) -> None:
    """Root in the container is the app's user outside, with no capability there; a secret is no argument."""
    # Node names its main thread, which is what `comm` says.
    find = "pgrep -fx 'node /etc/deploy/apps/guestbook/server.mjs'"
    [process] = boxed.console(find).split()
    assert boxed.console(f"ps -o user:20= -p {process}").strip() == "app-guestbook"
    assert "MemoryMax=268435456" in boxed.console("systemctl show -p MemoryMax guestbook-web")
    assert "NoNewPrivs:\t1" in boxed.console(f"cat /proc/{process}/status")
    assert "password" not in boxed.console("ps -eo args").lower()
    secret = boxed.console("sed -n 's/^SMS_ACCOUNT=//p' /etc/deploy/apps/guestbook/env").strip()
    assert secret and secret not in boxed.console("ps -eo args")
    # Killed, it comes back; nothing of the dead one is left.
    boxed.console(f"kill -9 {process}")
    within(60, "answer", lambda: boxed.doors.request("GET", f"https://{DOMAIN}/ready").status == 200)
    boxed.same()


def test_a_command_runs_in_a_container_of_its_own(boxed: Boxed) -> None:
    done = boxed.operator.run(
        "app", "exec", "--", "node", "-p", "process.cwd() + process.getuid()", options=()
    )
    assert done.code == 0 and done.out.strip() == "/0", (done.code, done.out, done.err)
    assert boxed.operator.run("app", "exec", "--", "node", "-e", "process.exit(7)", options=()).code == 7


def test_back_to_packages_and_to_the_image_again(boxed: Boxed) -> None:
    asked = len(boxed.registry.asked)
    boxed.operator.good("rollback", "--yes")
    boxed.used()
    boxed.operator.good("up", "--yes")
    boxed.used()
    # Its image was kept with its release.
    assert len(boxed.registry.asked) == asked


def test_the_database_may_go_away(boxed: Boxed) -> None:
    boxed.console("systemctl stop postgresql && sleep 30 && systemctl start postgresql")
    within(60, "answer", lambda: boxed.doors.request("GET", f"https://{DOMAIN}/ready").status == 200)
    boxed.used()


def test_no_registry_takes_it_away(boxed: Boxed) -> None:
    """The machine is lost and the registry too: the image comes from the stack's own repository."""
    boxed.operator.good("backup", "create")
    boxed.operator.good("down", "--yes")
    boxed.registry.stop()
    boxed.summary = boxed.operator.good("restore", "--yes").result
    boxed.same()
    boxed.used()
    mended(boxed.operator)
