"""Files, queues and the guard on a real machine: two repositories, one S3 and one folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.components.backups import spec as backups
from deployer.core.component import ComponentSpec, Data, Unit
from deployer.core.generation import Generation, ciphers, claim_key
from deployer.core.manifest import Runtime
from deployer.core.model import Repository
from deployer.flow.wanted import render
from tests.components.backups.programs import SERVICE
from tests.components.base.world import context
from tests.rig.objects import Objects
from tests.rig.remote import Remote
from tests.rig.world import NUMBER, World, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

PROGRAMS = "/usr/local/lib/deploy/backups"
SHARE = Repository("share", "path", path="/srv/share")
DATA = (
    Data("media", "files", "/var/lib/notes/media", "/var/lib/notes"),
    Data("ids", "sqlite", "/var/lib/notes/ids.db", "/var/lib/notes"),
    Data("actors", "sqlite_folder", "/var/lib/notes/actors", "/var/lib/notes"),
    Data("cache", "valkey", "/var/lib/valkey"),
    Data("mail queue", "files", "/var/spool/postfix"),
    Data("sms gateway's spool", "sqlite", "/var/lib/sms-gateway/spool.db"),
)
UNITS = (Unit("postfix.service", reload=True), Unit("valkey-server.service"))
SUMS = "cd /var/lib/notes/media && find . -type f -printf '%u ' -exec sha256sum {} + | sort -k3"

SEED = """
set -e
useradd -r notes; useradd -r sms-gateway
mkdir -p /srv/share /var/lib/sms-gateway /var/lib/notes/media/a/b
for i in $(seq 200); do head -c $((i * 97)) /dev/urandom > /var/lib/notes/media/a/b/f$i; done
python3 - <<'PROGRAM'
import re, sqlite3, time
ids = sqlite3.connect("/var/lib/notes/ids.db")
ids.execute("PRAGMA journal_mode=wal"); ids.execute("CREATE TABLE ids (x)")
ids.executemany("INSERT INTO ids VALUES (?)", [(n,) for n in range(500)]); ids.commit()
import os
for name in ("anna", "ben"):
    os.makedirs(f"/var/lib/notes/actors/x/{name}")
    store = sqlite3.connect(f"/var/lib/notes/actors/x/{name}/store.sqlite")
    store.execute("PRAGMA journal_mode=wal"); store.execute("CREATE TABLE posts (text)")
    store.execute("INSERT INTO posts VALUES (?)", (f"I am {name}",)); store.commit()
    open(f"/var/lib/notes/actors/x/{name}/key", "w").write(f"key of {name}")
spool = sqlite3.connect("/var/lib/sms-gateway/spool.db")
spool.executescript(re.search(r'SCHEMA = \"\"\"(.*?)\"\"\"', open("/tmp/store.py").read(), re.S)[1])
for sid, status, age in (("new", "queued", 60), ("kannel", "sending", 60), ("old", "queued", 2000)):
    spool.execute("INSERT INTO messages (sid, api, created, updated, sender, recipient, body, encoding, segments,"
        " status, expires) VALUES (?, 'twilio', ?, 0, 'x', '+49', 'code', 'gsm', 1, ?, ?)",
        (sid, time.time() - age, status, time.time() + 36000))
spool.commit()
PROGRAM
chown -R notes: /var/lib/notes; chown -R sms-gateway: /var/lib/sms-gateway
postconf -e default_transport=smtp defer_transports=smtp mydestination= inet_interfaces=loopback-only \
    myhostname=mail.example.test
sed -i '/^appendonly/d' /etc/valkey/valkey.conf; echo 'appendonly yes' >> /etc/valkey/valkey.conf
systemctl restart postfix valkey-server
valkey-cli set hello world >/dev/null
for i in 1 2; do printf 'Subject: %s\\n\\nx\\n' $i | sendmail -f a@example.test x$i@example.org; done
for i in $(seq 50); do [ $(find /var/spool/postfix/deferred -type f | wc -l) = 2 ] && break; sleep 0.1; done
"""


class Machine:
    def __init__(self, shell: Remote, east: Objects) -> None:
        self.shell, self.east = shell, east
        self.repositories: dict[str, Any] = {}

    def install(self, folder: Path) -> None:
        ctx = context()
        (folder / "x.lock").write_text("")
        app = replace(ctx.project.app, folder=folder, runtimes=(Runtime("x", "python", "x.lock"),))
        repositories = (self.east.repository(), SHARE)
        inventory = replace(ctx.project.inventory, repositories=repositories)
        project = replace(ctx.project, app=app, inventory=inventory)
        secrets = {"backups/generation/000001": Generation(1, str(project.deployment)).to_json()}
        for one in repositories:
            secrets |= {secret.name: f"cipher-{secret.name}" for secret in ciphers(1, one.name)}
        ctx = replace(ctx, project=project, secrets={**ctx.secrets, **secrets}, roles={})
        spec = backups.spec(ctx, [ComponentSpec("all", units=UNITS, data=DATA)])
        self.deployment = str(project.deployment)
        self.shell.run(
            "export DEBIAN_FRONTEND=noninteractive; apt-get -q update && apt-get -q -y install"
            f" --no-install-recommends valkey-server valkey-tools postfix sqlite3 {' '.join(spec.packages)}",
            timeout=300,
        )
        self.shell.run(f"echo {self.east.address} {self.east.host} >> /etc/hosts")
        self.shell.write("/tmp/store.py", (SERVICE.parents[1] / "sms_gateway/service/store.py").read_text())
        self.shell.run("bash -s", stdin=SEED, timeout=120)
        self.shell.run("mkdir -p " + " ".join(one.path for one in spec.directories))
        for file in spec.files:
            self.shell.write(file.path, render(file, Path("/nonexistent")).decode())
            self.shell.run(f"chmod {file.mode:o} {file.path}")
            if file.path == backups.SETTINGS:
                self.repositories = {one["name"]: one for one in json.loads(file.content)["repositories"]}
        self.claim(1, self.deployment)
        body = Generation(1, self.deployment).to_json()
        self.shell.write(f"/srv/share/{claim_key('demo', 1)}", body + "\n")
        self.shell.run("systemctl daemon-reload; systemctl start deploy-guard")

    def claim(self, number: int, deployment: str) -> None:
        self.east.put(claim_key("demo", number), Generation(number, deployment).to_json().encode())

    def program(self, command: str, stdin: str = "") -> Any:
        _, output = self.shell.attempt(f"{PROGRAMS}/{command}", stdin=stdin, timeout=120)
        return json.loads(output)

    def request(self, id: str, repository: str) -> str:
        body = {"id": id, "repository": self.repositories[repository], "target": {"kind": "latest"}}
        data = [{"name": d.name, "kind": d.kind, "where": d.where, "within": d.within} for d in DATA]
        return json.dumps({**body, "point": "", "data": data, "hold_queues": True, "amcheck": False})

    def restored(self) -> dict[str, Any]:
        for _ in range(120):
            found: dict[str, Any] = self.program("files.py restore-status")
            if found["state"] != "running":
                return found
            time.sleep(0.5)
        raise AssertionError(found)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("files")
    prefix = f"10.{230 + NUMBER}.2"
    world = World(folder / "world", f"dfiles{NUMBER}", prefix)
    port = 9470 + NUMBER
    world.options["reach"] = [f"tcp/{port}@{prefix}.1"]
    world = _with_options(world)
    world.provider.check()
    world.provider.prepare()
    try:
        _, shell = world.bare("files")
        with Objects(folder / "east", "east.social.test", (f"{prefix}.1", port)) as east:
            made = Machine(shell, east)
            made.install(folder)
            yield made
        shell.close()
    finally:
        world.stop()


def _with_options(world: World) -> World:
    """The provider as it is with the options of now."""
    from providers import local

    world.provider = local.make(world.options, world.deployment)
    return world


def test_each_repository_gets_the_same_point(machine: Machine) -> None:
    made = machine.program("files.py create")
    assert [one["error"] for one in made] == [None, None]
    assert len({one["last_point"] for one in made}) == 1
    [point] = machine.program("files.py points --repository east")
    assert (point["point"], list(point["machines"])) == (made[0]["last_point"], ["demo-all-1"])
    assert all(one["ok"] for one in machine.program("files.py verify --read 100%"))


def test_a_dead_repository_holds_no_other_up(machine: Machine) -> None:
    machine.east.stop()
    machine.shell.run("systemctl start --no-block deploy-files-east deploy-files-share")
    deadline = time.monotonic() + 30
    while machine.program("files.py status")[1]["snapshots"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert machine.shell.run("systemctl is-active deploy-files-east || true").strip() == "activating"
    machine.shell.run("systemctl kill -s KILL deploy-files-east")
    machine.east.start()
    assert machine.program("files.py create --repository east")[0]["error"] is None


def test_damage_is_found_and_leaves_what_is_there(machine: Machine) -> None:
    before = machine.shell.run(SUMS)
    kept = {key: machine.east.path(key).read_bytes() for key in machine.east.keys("*/files/data/*")}
    machine.east.damage("*/files/data/*", "flip")
    [found] = machine.program("files.py verify --repository east --read 100%")
    assert not found["ok"]
    assert found["errors"]
    machine.shell.run("rm -rf /var/cache/deploy-backups/*")
    machine.program("files.py restore", machine.request("damaged", "east"))
    failed = machine.restored()
    assert failed["state"] == "failed"
    assert failed["error"]["next"]
    assert machine.shell.run(SUMS) == before
    for key, content in kept.items():
        machine.east.put(key, content)


def test_everything_comes_back_after_a_kill_and_queues_are_held(machine: Machine) -> None:
    before = machine.shell.run(SUMS)
    machine.shell.run(
        "systemctl stop postfix valkey-server; rm -rf /var/lib/notes/* /var/lib/valkey/* /var/lib/sms-gateway/*"
        # As before the first start of Postfix.
        " /var/spool/postfix/*; usermod -u 4321 notes; mkdir /var/lib/notes/media"
    )
    request = machine.request("back", "east")
    machine.program("files.py restore", request)
    machine.shell.run("systemctl kill -s KILL deploy-restore-files.service || true")
    machine.restored()
    machine.program("files.py restore", request)
    done = machine.restored()
    assert (done["state"], done["error"], done["lacks"]) == ("done", None, [])
    assert done["held"] == {"mail": 2, "sms": 3}
    assert machine.shell.run(SUMS) == before
    assert machine.program("files.py restore", request)["state"] == "done"
    count = "sqlite3 /var/lib/notes/ids.db 'SELECT count(*) FROM ids'; stat -c %U /var/lib/notes/ids.db"
    assert machine.shell.run(count).split() == ["500", "notes"]
    actors = "cd /var/lib/notes/actors/x; for i in anna ben; do sqlite3 $i/store.sqlite 'SELECT * FROM posts'; cat $i/key;"
    actors += " echo; done; find . -printf '%u\n' | sort -u; ls -A anna"
    assert machine.shell.run(actors).splitlines() == [
        *("I am anna", "key of anna", "I am ben", "key of ben", "notes", "key", "store.sqlite")
    ]
    machine.shell.run("systemctl start valkey-server postfix")
    assert "world" in machine.shell.run("sleep 1; valkey-cli get hello")


def test_release_drops_old_codes_and_lets_the_mail_go(machine: Machine) -> None:
    held = machine.program("queues.py status")
    assert (held["mail"]["waiting"], held["sms"]["waiting"], held["sms"]["expired"]) == (2, 3, 1)
    machine.shell.run("postconf -e defer_transports= default_transport=discard:gone; postfix reload")
    released = machine.program("queues.py release")
    assert (released["mail"]["released"], released["sms"]["released"]) == (2, 2)
    assert released["sms"]["dropped"] == 1
    machine.shell.run(
        "for i in $(seq 100); do mailq | grep -q 'is empty' && exit 0; sleep 0.1; done; mailq; exit 1"
    )


def test_a_newer_generation_ends_the_service(machine: Machine) -> None:
    machine.claim(2, "demo@elsewhere")
    time.sleep(0.5)
    machine.shell.attempt(f"{PROGRAMS}/guard.py watch")
    machine.shell.run(
        "for i in $(seq 100); do systemctl is-active -q postfix valkey-server || exit 0; sleep 0.1; done; exit 1"
    )
    code, _ = machine.shell.attempt("systemctl start postfix")
    assert code != 0
    assert machine.program("guard.py status")["why"].startswith("demo@elsewhere holds generation 2")
    machine.shell.run(f"{PROGRAMS}/guard.py allow; systemctl start postfix")
