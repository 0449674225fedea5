"""The switch's own bookkeeping. What it does with systemd is tested on real machines; here a failure is forced."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deployer.core import resources

PROGRAM = Path(resources.__file__).parent.parent / "components" / "app" / "service" / "app-switch"


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = SourceFileLoader("app_switch", str(PROGRAM))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("app_switch", loader))  # type: ignore[arg-type]
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "SYSTEMD", tmp_path / "units")
    monkeypatch.setattr(module, "systemctl", lambda *words, check=True: "")
    monkeypatch.setattr(module, "active", lambda units: [True] * len(units))
    monkeypatch.setattr(module, "state_of", lambda unit: {"ActiveState": "active", "NRestarts": "0"})
    monkeypatch.setattr(module, "answer", lambda url: "" if "good" in url else "it answers 500")
    monkeypatch.setattr(module, "journal", lambda unit, since: "its last lines")
    monkeypatch.setattr(os, "fchown", lambda *arguments: None)
    return module


class Rig:
    """An app in a folder."""

    def __init__(self, switch: ModuleType, folder: Path) -> None:
        self.switch, self.folder = switch, folder
        self.home, self.state = folder / "home", folder / "state"
        (self.home / "releases").mkdir(parents=True)
        self.state.mkdir()
        self.config = folder / "app.conf"

    def plan(
        self,
        release: str,
        ready: str,
        config: str,
        migrations: tuple[dict[str, Any], ...] = (),
        after_restore: tuple[str, ...] = (),
    ) -> Any:
        (self.home / "releases" / release).mkdir(exist_ok=True)
        os.utime(
            self.home / "releases" / release, (1000 + len(list((self.home / "releases").iterdir())),) * 2
        )
        self.config.write_text(config)
        path = self.folder / "plan.json"
        plan = {
            "app": "notes",
            "home": str(self.home),
            "state": str(self.state),
            "release": release,
            "files": [str(self.config), str(path)],
            "processes": [{"name": "web", "unit": "notes-web.service", "ready": ready, "timeout": 0}],
            "migrations": list(migrations),
            "after_restore": [
                {"name": name, "unit": f"notes-step-{name}.service", "timeout": 1} for name in after_restore
            ],
        }
        path.write_text(json.dumps(plan))
        source = {"release": release, "files": {"app.yaml": release}}
        (self.folder / "source.json").write_text(json.dumps(source))
        return self.app()

    def served(self, release: str) -> Any:
        return json.loads((self.state / "served" / f"{release}.json").read_text())

    def app(self) -> Any:
        app = self.switch.App.__new__(self.switch.App)
        app.plan, app.name = json.loads((self.folder / "plan.json").read_text()), "notes"
        app.home, app.state = self.home, self.state
        app.current, app.applied, app.good = (
            self.home / "current",
            self.state / "applied",
            self.state / "good.json",
        )
        app.source = self.folder / "source.json"
        return app


@pytest.fixture
def rig(switch: ModuleType, tmp_path: Path) -> Rig:
    return Rig(switch, tmp_path)


def test_first_release(rig: Rig) -> None:
    app = rig.plan("1", "good", "a")
    assert not app.in_service()
    app.work()
    assert app.in_service()
    assert os.readlink(rig.home / "current") == "releases/1"


def test_a_changed_file_is_put_in_service(rig: Rig) -> None:
    rig.plan("1", "good", "a").work()
    app = rig.plan("1", "good", "b")
    assert not app.in_service()
    app.work()
    assert app.in_service()


class Clock:
    """In place of the module `time`: nobody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("lives", "good"), [(3600.0, True), (3.0, False)])
def test_a_process_without_an_address_must_stay_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, lives: float, good: bool
) -> None:
    """One that has ended after three seconds each time, and is started again two later, is not taken for one that runs."""
    clock, started = Clock(), 1000.0

    def state_of(unit: str) -> dict[str, str]:
        tries, into = divmod(clock.now - started, lives + 2)
        active = "active" if into < lives else "activating"
        entered = started + tries * (lives + 2)
        return {
            "ActiveState": active,
            "NRestarts": f"{tries:.0f}",
            "ExecMainStatus": "1",
            "ActiveEnterTimestampMonotonic": f"{entered * 1e6:.0f}",
        }

    monkeypatch.setattr(rig.switch, "time", clock)
    monkeypatch.setattr(rig.switch, "state_of", state_of)
    process = {"name": "worker", "unit": "notes-worker.service", "ready": "", "timeout": 60}
    app = rig.plan("1", "good", "a")
    if good:
        app.wait(process, clock.now)
        assert 1005 <= clock.now < 1007
    else:
        with pytest.raises(rig.switch.Failed, match="worker ends again and again"):
            app.wait(process, clock.now)


def test_failed_first_release(rig: Rig) -> None:
    with pytest.raises(rig.switch.Failed) as error:
        rig.plan("1", "bad", "a").work()
    assert error.value.why == (
        "web is not ready after 0 s: it answers 500; it is the first release, so nothing else can serve"
    )
    assert error.value.detail == "its last lines"


def test_failed_release_gives_way_to_the_former(rig: Rig) -> None:
    rig.plan("1", "good", "a").work()
    with pytest.raises(rig.switch.Failed, match=r"what served before \(1\) serves again"):
        rig.plan("2", "bad", "b").work()
    assert os.readlink(rig.home / "current") == "releases/1"
    assert rig.config.read_text() == "a"
    assert rig.app().in_service()


def test_failed_configuration_gives_way_to_the_former(rig: Rig) -> None:
    rig.plan("1", "good", "a").work()
    with pytest.raises(rig.switch.Failed, match="serves again"):
        rig.plan("1", "bad", "b").work()
    assert rig.config.read_text() == "a"


def test_no_way_back_over_a_migration_that_cannot_be_undone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setattr(rig.switch.subprocess, "run", lambda words, **named: ran.append(words) or Done())
    rig.plan("1", "good", "a").work()
    final = {"name": "final", "unit": "notes-step-final.service", "reversible": False, "timeout": 1}
    # Twice, for the second try finds it done.
    for _ in range(2):
        with pytest.raises(rig.switch.Failed, match="the migration final cannot be undone"):
            rig.plan("2", "bad", "b", (final,)).work()
        assert os.readlink(rig.home / "current") == "releases/2"
    assert ran == [["systemctl", "start", "notes-step-final.service"]]


class Steps:
    """What is asked of systemd for the app's steps. bad: units that fail."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.bad: set[str] = set()

    def run(self, words: list[str], **named: Any) -> Any:
        self.ran.append(words[-1].removeprefix("notes-step-").removesuffix(".service"))

        class Done:
            returncode = int(self.ran[-1] in self.bad)

        return Done()

    def taken(self) -> list[str]:
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture
def steps(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps()
    monkeypatch.setattr(rig.switch.subprocess, "run", made.run)
    return made


TABLES = {"name": "tables", "unit": "notes-step-tables.service", "reversible": True, "timeout": 1}


def restored(rig: Rig, name: str) -> None:
    """As components/backups/service/restoring_work.py does it."""
    (rig.state / "restored").write_text(json.dumps({"id": name}))


def test_after_a_restore_the_data_are_brought_up_once(rig: Rig, steps: Steps) -> None:
    app = rig.plan("1", "good", "a", (TABLES,), ("jump", "index"))
    app.work()
    assert steps.taken() == ["tables"]
    for name in ("first", "second", "second"):
        (rig.state / "once").mkdir(exist_ok=True)
        restored(rig, name)
        assert not app.in_service()
        app.work()
        # The data may be older than what this machine did to others.
        assert steps.taken() == ["tables", "jump", "index"]
        assert not (rig.state / "once").exists() and not (rig.state / "restored").exists()
        assert app.in_service()
        app.work()
        assert steps.taken() == []


def test_a_step_after_the_restore_fails(rig: Rig, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.plan("1", "good", "a").work()
    started: list[str] = []
    monkeypatch.setattr(rig.switch.App, "start", lambda app, plan: started.append(plan["release"]))
    app = rig.plan("1", "good", "a", (TABLES,), ("jump", "index"))
    restored(rig, "first")
    steps.bad = {"index"}
    # What served before must not serve these data either.
    with pytest.raises(
        rig.switch.Failed, match="the step after the restore index failed; the data were restored"
    ):
        app.work()
    assert steps.taken() == ["tables", "jump", "index"] and not started
    steps.bad = set()
    app.work()
    assert steps.taken() == ["index"] and started == ["1"]


def test_old_releases_go(rig: Rig) -> None:
    for number in "12345":
        rig.plan(number, "good", "a").work()
    assert sorted(os.listdir(rig.home / "releases")) == ["3", "4", "5"]
    with pytest.raises(rig.switch.Failed):
        rig.plan("6", "bad", "a").work()
    rig.plan("7", "good", "a").work()
    kept = sorted(os.listdir(rig.home / "releases"))
    assert len(kept) == 3 and {"5", "7"} <= set(kept)


def test_what_a_release_was_made_from_is_kept(rig: Rig) -> None:
    rig.plan("1", "good", "a").work()
    assert rig.served("1")["source"]["files"] == {"app.yaml": "1"}
    with pytest.raises(rig.switch.Failed):
        rig.plan("2", "bad", "b").work()
    assert not (rig.state / "served" / "2.json").exists()
    # Its source lies there still, and must not be taken for that of the release that serves.
    app = rig.plan("1", "good", "c")
    (rig.folder / "source.json").write_text(json.dumps({"release": "2", "files": {}}))
    app.work()
    assert rig.served("1")["source"]["files"] == {"app.yaml": "1"}
    for number in "3456":
        rig.plan(number, "good", "a").work()
    assert sorted(os.listdir(rig.state / "served")) == ["4.json", "5.json", "6.json"]


def test_migrations_run_again_after_another_release_served(rig: Rig, steps: Steps) -> None:
    rig.plan("1", "good", "a", (TABLES,)).work()
    assert steps.taken() == ["tables"]
    for _ in range(2):
        # A first release that does not start, then the old one writes data again.
        with pytest.raises(rig.switch.Failed, match="serves again"):
            rig.plan("2", "bad", "b", (TABLES,)).work()
        assert steps.taken() == ["tables"]
    rig.plan("2", "good", "b", (TABLES,)).work()
    assert steps.taken() == ["tables"]
    rig.plan("2", "good", "c", (TABLES,)).work()
    assert steps.taken() == []
    # The release before has what it needs; the newer one does not, once the older one has written.
    rig.plan("1", "good", "a", (TABLES,)).work()
    assert steps.taken() == []
    rig.plan("2", "good", "b", (TABLES,)).work()
    assert steps.taken() == ["tables"]
    assert json.loads((rig.state / "migrated" / "2" / "tables.begun").read_text()) == {"reversible": True}


def test_an_address_is_asked_once_something_listens(switch: ModuleType) -> None:
    """Cheaply: whoever starts needs the processor itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert switch.closed(f"http://127.0.0.1:{port}/ready") == ""
        assert switch.closed(f"http://localhost:{port}") == ""
    assert "refused" in switch.closed(f"http://127.0.0.1:{port}/ready")
    # Whatever cannot be looked at is asked.
    assert switch.closed("http://web/ready") == switch.closed("unix:/run/web") == ""
