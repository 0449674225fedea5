"""A whole service moves between two real machines and back while people write: nothing acknowledged is lost, and
never are there two that serve. One story, in the order in which it stands.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.components.moving.machines import PROGRAMS, Side, base_layer, open_move
from tests.components.moving.writing import Crowd, post, stored
from tests.rig.world import NUMBER, World, why_not

BRIDGE, PREFIX = f"dmove{NUMBER}", f"10.{246 + NUMBER % 8}.2"
CONDUCT = "/var/lib/deploy/moving/conduct.json"
# Makes, changes and removes files and folders as long as the app runs.
PAINTER = """\
cd /srv/pictures && mkdir -p painted && cd painted && chown valkey .
for i in $(seq 1000000); do
    mkdir -p d$((i % 7))/e && echo $i | tee d$((i % 7))/$i >d$((i % 7))/e/$i
    rm -f d*/$((i - 3)) && [ $((i % 5)) != 0 ] || rm -rf d$(((i + 3) % 7))
    [ $((i % 11)) != 0 ] || mv d$((i % 7)) moved-$((i % 3)) 2>/dev/null || rm -rf moved-*
    sleep 0.01
done
"""
SERVING = ("notes-web", "gateway", "carrier", "postfix", "valkey-server", "postgresql@17-main")

# Two machines and their restarts take minutes; in the default run a whole stack moves (tests/e2e/test_migrate.py).
pytestmark = pytest.mark.long


class Pair:
    """Who is live, who is not, and all that was ever acknowledged."""

    def __init__(self, old: Side, new: Side) -> None:
        self.old, self.new = old, new
        self.generation, self.id = 1, ""
        self.acknowledged: set[int] = set()
        self.numbers = itertools.count(1)

    def open(self) -> None:
        self.generation += 1
        self.id = open_move(self.old, self.new, self.generation)

    def turn(self) -> None:
        """What was new is live, and will be old."""
        self.old, self.new = self.new, self.old

    def agent(self, verb: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
        """What the conductor would say to the old side."""
        body = json.dumps({"id": self.id, "attempt": attempt, **more})
        command = f"SSH_ORIGINAL_COMMAND='agent {verb}' python3 {PROGRAMS}/move.py serve"
        found: dict[str, Any] = json.loads(self.old.shell.attempt(command, stdin=body, timeout=120)[1])
        return found

    def crowd(self) -> Crowd:
        """At the old side's proxy, whichever side serves."""
        return Crowd(self.old.address, numbers=self.numbers)

    def cutover(self, pause: float = 40) -> None:
        self.new.good("cutover", {"id": self.id, "max_pause": pause})

    def end(self, timeout: float = 240) -> dict[str, Any]:
        done = self.new.await_("end", lambda found: found["cutover"]["state"] != "running", timeout)
        found: dict[str, Any] = done["cutover"]
        return found

    def count(self, crowd: Crowd, live: Side) -> None:
        """Every write that was ever acknowledged is where it is served, and nothing failed."""
        crowd.stop()
        assert not crowd.failed, crowd.failed[:5]
        assert len(crowd.acknowledged) == len(set(crowd.acknowledged)) > 0
        self.acknowledged |= set(crowd.acknowledged)
        assert not self.acknowledged - set(stored(live))

    def only(self, live: Side, other: Side) -> None:
        """Exactly one of both serves."""
        assert all(live.active(unit) for unit in SERVING), live.name
        assert live.sql("SELECT pg_is_in_recovery(); SHOW synchronous_standby_names") == "f"
        running = [unit for unit in SERVING if other.active(unit)]
        assert running in ([], ["postgresql@17-main"])
        if running:
            assert other.sql("SELECT pg_is_in_recovery()") == "t"


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    if reason := why_not():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="deploy-move-", dir="/var/tmp"))
    world = World(folder, BRIDGE, PREFIX)
    try:
        world.provider.check()
        world.provider.prepare()
        made = base_layer(world)
        sides = []
        for name in ("east", "west"):
            machine, shell = world.bare(name, made)
            sides.append(Side(name, machine.address, shell))
        with ThreadPoolExecutor() as pool:
            list(pool.map(Side.install, sides))
        sides[0].live()
        yield Pair(*sides)
    finally:
        world.stop()
        shutil.rmtree(folder, ignore_errors=True)


def paint(side: Side) -> None:
    """Pictures change until the app is stopped."""
    side.shell.write("/root/painter", PAINTER)
    side.shell.run(
        "systemd-run --quiet --collect --unit=painter -p BindsTo=notes-web.service -p After=notes-web.service"
        " bash /root/painter"
    )


def pictures(side: Side) -> list[str]:
    """All that tells one picture from another: path, kind, mode, owner, size, time, links."""
    found = side.shell.run(r"cd /srv/pictures; find . -printf '%P %y %m %U %s %T@ %n\n' | sort")
    return found.splitlines()


def kill_when(pair: Pair, pattern: str, then: str = "") -> None:
    """kill -9 of the conductor as soon as its record says so."""
    pair.new.shell.run(
        f'systemd-run --quiet --collect --unit=killer bash -c \'until grep -q "{pattern}" {CONDUCT}; do sleep 0.01;'
        f" done; systemctl kill --signal=KILL deploy-moving-conduct.service; echo killed{then}'"
    )


def reboot(side: Side) -> None:
    before = side.shell.run("cat /proc/sys/kernel/random/boot_id")
    side.shell.attempt("systemctl reboot")
    deadline = time.monotonic() + 120
    while True:
        time.sleep(1)
        try:
            if side.shell.attempt("cat /proc/sys/kernel/random/boot_id", timeout=10)[1] != before:
                break
        except Exception:
            assert time.monotonic() < deadline
    side.shell.run("systemctl is-system-running --wait || true", timeout=120)


def test_the_dead_man_reopens_when_nobody_goes_on(pair: Pair) -> None:
    """As with a conductor that was killed before the permit, or whose network was cut."""
    pair.open()
    with pair.crowd() as crowd:
        time.sleep(1)
        assert pair.agent("arm")["state"] == "armed"
        assert pair.old.sql("SHOW synchronous_standby_names") == "deploy_standby"
        # Its gateway wants it up, and goes on; it stays down.
        assert pair.old.active("gateway") and not pair.old.active("carrier")
        held = pair.agent("hold", max_pause=15)
        assert held["state"] == "held"
        assert pair.agent("hold", max_pause=600)["deadline"] == pytest.approx(held["deadline"], abs=0.1)
        fenced = pair.agent("fence")
        assert fenced["state"] == "fenced" and fenced["lsn"]
        assert not any(pair.old.active(unit) for unit in SERVING)
        pair.old.shell.run("systemctl start notes-web postgresql@17-main")
        assert not pair.old.active("notes-web") and not pair.old.active("postgresql@17-main")
        found = pair.old.await_("reopened", lambda found: found["fence"]["state"] == "reopened", 120)
        assert "has passed" in found["fence"]["why"]
        time.sleep(2)
    pair.count(crowd, pair.old)
    pair.only(pair.old, pair.new)
    for verb, more in (("permit", {}), ("fence", {}), ("hold", {"max_pause": 30}), ("arm", {})):
        assert "error" in pair.agent(verb, **more), verb
    assert pair.new.good("status")["standby"]["state"] == "streaming"


def test_a_reboot_before_the_permit_reopens(pair: Pair) -> None:
    pair.agent("arm", 2)
    pair.agent("hold", 2, max_pause=600)
    assert pair.agent("fence", 2)["state"] == "fenced"
    reboot(pair.old)
    found = pair.old.await_("reopened", lambda found: found["fence"]["state"] == "reopened", 120)
    assert "started anew" in found["fence"]["why"]
    assert "error" in pair.agent("permit", 2)
    pair.only(pair.old, pair.new)
    with pair.crowd() as crowd:
        time.sleep(1)
    pair.count(crowd, pair.old)
    pair.new.await_("streams again", lambda found: found["standby"]["state"] == "streaming")


def test_what_failed_once_is_no_answer_to_the_next_question(pair: Pair) -> None:
    """The other side's database was away when the copy was asked for again; it streams since."""
    pair.old.shell.run("systemctl stop postgresql@17-main")
    pair.new.shell.run("systemctl restart --no-block deploy-moving-standby")
    pair.new.await_("the failure", lambda found: found["standby"]["error"])
    pair.old.shell.run("systemctl start postgresql@17-main")
    pair.new.await_("streams again", lambda found: found["standby"]["state"] == "streaming")
    assert pair.new.move("standby")["standby"]["error"] is None
    assert "error" not in pair.new.move("files")


def test_killed_in_the_pause_it_goes_back_and_run_again_it_moves(pair: Pair) -> None:
    kill_when(pair, "held_at.*[1-9]", "; systemctl stop deploy-moving-conduct.service")
    paint(pair.old)
    with pair.crowd() as crowd:
        pair.cutover(15)
        pair.old.await_("held", lambda found: found["fence"]["state"] in ("held", "fenced"))
        pair.old.await_("reopened", lambda found: found["fence"]["state"] == "reopened", 120)
        assert "killed" in pair.new.shell.run("journalctl -u killer -o cat")
        pair.only(pair.old, pair.new)
        assert pair.new.good("status")["cutover"]["permit"] == "none"
        paint(pair.old)
        time.sleep(1)
        pair.cutover()
        found = pair.end()
        # Two were made by hand above, one was killed.
        assert found["state"] == "done" and found["attempt"] == 4, found
        time.sleep(1)
    print(json.dumps(found["seconds"]))
    pair.count(crowd, pair.new)
    pair.only(pair.new, pair.old)
    assert pair.new.shell.run("valkey-cli get queue").strip() == "41"
    assert pair.new.shell.run("ls /srv/pictures | wc -l; stat -c %U:%G /srv/pictures/7").split() == [
        "301",
        "postfix:valkey",
    ]
    assert len(pictures(pair.old)) > 310
    assert pictures(pair.new) == pictures(pair.old)
    # Only what had changed was looked at: a pass that ended was known.
    assert pair.old.shell.run("ls /var/lib/deploy/moving/listing-new-m.*")
    assert pair.new.shell.run("mailq").count("someone@elsewhere.test") == 3
    # The client's own address, seen through the old proxy.
    clients = pair.new.shell.run(
        "runuser -u postgres -- psql -XAtq -d notes -c 'SELECT DISTINCT client FROM writes'"
    )
    assert clients.split() == [f"{PREFIX}.1"]


def test_after_the_permit_the_old_side_never_serves_again(pair: Pair) -> None:
    fence = pair.old.good("status")["fence"]
    assert fence["state"] == "permitted"
    told = pair.old.move("reopen")
    assert "gave the permit" in told["error"]["why"]
    assert "error" in pair.agent("permit", 99)
    assert pair.agent("permit", fence["attempt"])["permitted_at"] == fence["permitted_at"]
    reboot(pair.old)
    pair.old.shell.run("systemctl start notes-web postfix postgresql@17-main postgresql gateway || true")
    pair.only(pair.new, pair.old)
    assert pair.old.good("status")["fence"]["state"] == "permitted"
    # It forwards after the reboot too.
    pair.old.shell.run("systemctl is-active caddy deploy-moving-forward")
    with pair.crowd() as crowd:
        time.sleep(1)
    pair.count(crowd, pair.new)


def test_back_with_a_conductor_that_is_killed_after_the_permit(pair: Pair) -> None:
    assert pair.old.good("follow")["state"] == "streaming"
    pair.turn()
    pair.open()
    kill_when(pair, "permit.*given")
    with pair.crowd() as crowd:
        pair.cutover()
        found = pair.end()
        assert found["state"] == "done", found
        time.sleep(1)
    assert "killed" in pair.new.shell.run("journalctl -u killer -o cat")
    assert pair.new.shell.run("systemctl show -p NRestarts --value deploy-moving-conduct").strip() == "1"
    print(json.dumps(found["seconds"]))
    pair.count(crowd, pair.new)
    pair.only(pair.new, pair.old)


def test_a_lost_answer_leaves_both_closed_until_it_is_asked_for_again(pair: Pair) -> None:
    assert pair.old.good("follow")["state"] == "streaming"
    pair.turn()
    pair.open()
    # The permit is given, and its answer does not arrive.
    pair.old.shell.write(
        "/root/deaf",
        f'#!/bin/sh\ncase "$SSH_ORIGINAL_COMMAND" in *permit) {PROGRAMS}/move.py serve >/dev/null; exit 255;;'
        f" *) exec {PROGRAMS}/move.py serve;; esac\n",
    )
    keys = "/etc/deploy/moving/authorized_keys"
    pair.old.shell.run(
        f"chmod 755 /root/deaf; cp {keys} /root/keys; sed -i 's|{PROGRAMS}/move.py serve|/root/deaf|' {keys}"
    )
    pair.cutover(10)
    found = pair.end()
    assert (found["state"], found["permit"]) == ("unknown", "asked"), found
    assert "old-is-dead" in found["error"]["next"]
    assert pair.old.good("status")["fence"]["state"] == "permitted"
    for side in (pair.old, pair.new):
        assert not side.serves() and not side.active("notes-web")
    pair.old.shell.run(f"cp /root/keys {keys}")
    with pair.crowd() as crowd:
        pair.cutover()
        found = pair.end()
        assert found["state"] == "done", found
        time.sleep(1)
    pair.count(crowd, pair.new)
    pair.only(pair.new, pair.old)
    assert post(pair.new.address, 10**9) == 200


def test_the_end_of_a_move(pair: Pair) -> None:
    assert pair.old.good("end")["live"] is False
    assert pair.new.good("end")["live"] is True
    assert not pair.new.sql("SELECT slot_name FROM pg_replication_slots")
    assert not pair.old.active("postgresql@17-main") and not pair.old.active("deploy-moving-forward")
    pair.only(pair.new, pair.old)
