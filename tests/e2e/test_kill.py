"""`up` killed by kill -9, anywhere: the next one continues, and ends where one that was not killed ends."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import layered
from tests.e2e.killing import Event, killed
from tests.e2e.operator import Operator
from tests.e2e.scratch import Scratch, console, mended, nothing_to_do
from tests.rig.world import World

# The quick test's moments: an event's kind, words and status, and seconds after it.
MOMENTS = [
    ("machine", "create machine", "start", 0.1),
    ("stage", "files", "start", 0.2),
    ("stage", "configure", "start", 1.0),
    ("stage", "start database", "start", 0.5),
    ("stage", "start app", "start", 1.5),
    ("stage", "start proxy", "ok", 0.0),
]
# Where we write. What services write is theirs.
FOLDERS = "/etc /usr/local /usr/sbin/policy-rc.d /root /opt /var/lib/deploy /tmp /var/tmp"
# Differs by itself: backups of the user database, caches of programs, private folders that systemd makes, and the
# digest of our CA's name.
BY_ITSELF = (
    r"/etc/(passwd|shadow|group|gshadow)-|/etc/ld.so.cache|\.pyc|__pycache__|systemd-private-|/machine-id"
    r"|/etc/ssl/certs/[0-9a-f]{8}\.0$"
)


class Victim:
    """A project of its own whose `up` gets killed. name: of the stack, and of its machine."""

    def __init__(self, rig: World, layer: Path, folder: Path, name: str) -> None:
        self.name = f"{name}-all-1"
        self.operator: Operator = layered(rig, layer, folder, name)
        self.machines = rig.folder / "machines" / "machines"

    def killed(self, reached: Callable[[Event], bool], after: float) -> str:
        """Start `up` and kill it `after` seconds behind the event; what it was doing, "" when it had ended."""
        return killed(self.operator.start("up", "--yes"), reached, after)

    def state(self) -> dict[str, list[str]]:
        """What the machine is, without what every machine has of its own."""
        names = {"files": FILES, "units": UNITS, "rules": "nft -s list ruleset | sed 's/ saddr.*//'"}
        names |= {"users": "cut -d: -f1,6,7 /etc/passwd", "databases": DATABASES}
        found = {}
        for name, command in names.items():
            text = console(self.machines / self.name, command)
            found[name] = sorted(text.replace(self.name.split("-")[0], "NAME").splitlines())
        return found

    def well(self) -> None:
        """One machine, green, nothing to do, nothing left over."""
        mended(self.operator)
        nothing_to_do(self.operator)
        assert self.operator.good("status").result["ok"]
        records = [path.name for path in self.machines.glob(f"{self.name.split('-')[0]}-*")]
        assert sorted({name.removesuffix(".json") for name in records}) == [self.name], records
        left = console(
            self.machines / self.name,
            "systemctl list-units --no-legend --plain --all 'run-*' --type=service,scope,timer;"
            " systemctl list-jobs --no-legend --plain; systemctl --failed --no-legend --plain;"
            " cat /var/lib/deploy/lease.json 2>/dev/null; env | grep DEPLOY_INSTALLING",
            check=False,
        )
        assert left.replace("No jobs running.", "").strip() == "", left
        assert self._pending() == []

    def _pending(self) -> list[object]:
        """Intents of the journal without an outcome."""
        lines = (self.operator.folder / ".deploy/local/journal.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        done = {entry.get("done") or entry.get("failed") for entry in entries}
        return [entry for entry in entries if "intent" in entry and entry["intent"] not in done]


FILES = f"find {FOLDERS} -printf '%y %m %u %g %p\\n' | grep -Ev '{BY_ITSELF}'"
UNITS = (
    "systemctl list-unit-files --no-legend --plain --type=service,timer,socket | awk '{print $1, $2}';"
    " systemctl list-units --no-legend --plain --type=service,timer --state=active"
    " | awk '{print $1}' | grep -Ev '^deploy-(mail-prune|certs)[.]service'"
)
DATABASES = (
    "runuser -u postgres -- psql -XAtc 'select datname from pg_database union select rolname from pg_roles'"
)


@pytest.fixture
def victim(
    rig: World, package_layer: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Victim]:
    made = Victim(rig, package_layer, tmp_path, getattr(request, "param", "killed"))
    yield made
    made.operator.good("down", "--yes")
    shutil.rmtree(tmp_path, ignore_errors=True)


def same_state(victim: Victim, scratch: Scratch) -> None:
    reference = Victim.__new__(Victim)
    reference.name, reference.machines, reference.operator = scratch.name, scratch.machines, scratch.operator
    wanted, found = reference.state(), victim.state()
    for part in wanted:
        more = sorted(set(found[part]) - set(wanted[part]))
        less = sorted(set(wanted[part]) - set(found[part]))
        assert not more and not less, f"{part}: only after the kills {more}; only without them {less}"


def test_killed_again_and_again(victim: Victim, scratch: Scratch) -> None:
    """One `up` after the other is killed, each a little further on, and then one is left alone."""
    for kind, words, status, after in MOMENTS:

        def reached(event: Event, kind: str = kind, words: str = words, status: str = status) -> bool:
            said = event["kind"] == kind and event["text"].startswith(words)
            return said and event["status"] == status

        assert victim.killed(reached, after), f"it ended before {words}"
    victim.well()
    same_state(victim, scratch)


@pytest.mark.long
def test_killed_at_every_step(victim: Victim, scratch: Scratch) -> None:
    """Each run is killed at the first step, stage or machine event that none before it was killed at."""
    seen: set[tuple[str, str, str]] = set()
    kills = 0

    def new(event: Event) -> bool:
        key = (event["kind"], event.get("text", ""), event.get("status", ""))
        if event["kind"] not in ("step", "stage", "machine") or key in seen:
            return False
        seen.add(key)
        return True

    while victim.killed(new, random.Random(kills).uniform(0, 0.5)):
        kills += 1
        assert kills < 300
    assert kills > 40
    victim.well()
    same_state(victim, scratch)


@pytest.mark.long
@pytest.mark.parametrize("victim", [f"moment{number}of" for number in range(10)], indirect=True)
def test_killed_once_at_any_moment(victim: Victim, scratch: Scratch, request: pytest.FixtureRequest) -> None:
    """From nothing, killed once, at ten moments spread over the whole run."""
    longest = 25.0
    after = longest * (int(victim.name.removeprefix("moment").split("of")[0]) + 0.5) / 10
    process = victim.operator.start("up", "--yes")
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
    victim.well()
    same_state(victim, scratch)
