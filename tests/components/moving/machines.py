"""Two sides of a move on real machines: a database, a small app behind the real proxy, mail, a cache, files.

The units' texts, the database and the proxy come from the specs themselves; what a flow would write stands here.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployer.components.database import operations, scram
from deployer.components.database import spec as database_spec
from deployer.components.proxy import spec as proxy_spec
from deployer.core.component import Context, File
from deployer.core.keytext import public_ssh
from deployer.core.manifest import Manifest, Process, Route
from deployer.core.model import Acme
from deployer.core.resources import service_file, service_files
from deployer.flow.wanted import render
from deployer.pki import keys
from tests.components.base.world import context
from tests.rig import layer
from tests.rig.remote import Remote
from tests.rig.world import World

HOST = "example.test"
PORT, TUNNEL = 8008, 5499
PROGRAMS = "/usr/local/lib/deploy/moving"
MOVE = f"python3 {PROGRAMS}/move.py"
UNITS = ("fence", "conduct", "database", "forward", "standby", "files")
PACKAGES = "postgresql-17 postgresql-client-17 openssl caddy curl rsync openssh-client python3-psycopg valkey postfix"
SYSTEMD = "/etc/systemd/system"
APP = """\
import json, sys, time, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import psycopg

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        if self.path.startswith("/health"):
            return self.answer(200, {})
        with psycopg.connect("dbname=notes") as db:
            self.answer(200, [row[0] for row in db.execute("SELECT n FROM writes")])
    def do_POST(self):
        size = int(self.headers.get("Content-Length") or 0)
        number = int(self.rfile.read(size))
        with psycopg.connect("dbname=notes") as db:
            db.execute("INSERT INTO writes VALUES (%s, %s)", (number, self.headers.get("X-Forwarded-For", "")))
        self.answer(200, number)
    def log_message(self, *words):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

time.sleep(0.5)
import signal, threading
server = Server(("127.0.0.1", 8008), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
"""
UNIT = """\
[Unit]
Description={name}
After=postgresql@17-main.service
{more}
[Service]
User={user}
ExecStart={command}
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
"""


def base_layer(world: World) -> Path:
    """Packages once, for all machines of a test run."""
    machine, shell = world.bare("base")
    early = [file for file in database_spec.spec(context()).files if file.early]
    for file in early:
        shell.write(file.path, render(file, Path("/nonexistent")).decode())
    shell.run(
        "export DEBIAN_FRONTEND=noninteractive; printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d;"
        " chmod 755 /usr/sbin/policy-rc.d; echo 'postfix postfix/main_mailer_type select No configuration' |"
        " debconf-set-selections; apt-get -q update && apt-get -q -y install --no-install-recommends"
        f" {PACKAGES}; mkdir -p /var/lib/deploy; echo '[]' >/var/lib/deploy/managed.json",
        timeout=400,
    )
    made = layer.make(world.folder / "machines" / "machines" / "base", world.folder / "layer")
    world.provider.delete_machine(machine)
    return made


def app_context() -> Context:
    process = Process("web", "main", "run", port=PORT, ready=f"http://127.0.0.1:{PORT}/health")
    routes = (Route("{{ domain }}", "/", process="web"),)
    app = Manifest("notes", "1", Path("/nonexistent"), (), (process,), (), routes, (), ("notes",))
    ctx = context()
    inventory = replace(ctx.project.inventory, acme=Acme())
    extra = {"sms_gateway/password": "x", "sms_gateway/auth_token": "y"}
    project = replace(ctx.project, app=app, inventory=inventory)
    return replace(ctx, project=project, secrets={**ctx.secrets, **extra})


class Side:
    """One machine that is a whole side."""

    def __init__(self, name: str, address: str, shell: Remote) -> None:
        self.name, self.address, self.shell = name, address, shell
        self.ctx = app_context()
        self.host_key = ""
        self.key = keys.ssh()

    # --- what `up` would write ---

    def put(self, file: File) -> None:
        self.shell.write(file.path, render(file, Path("/nonexistent")).decode())
        self.shell.run(f"chown {file.owner}:{file.group} {file.path}; chmod {file.mode:o} {file.path}")

    def install(self) -> None:
        self.host_key = " ".join(self.shell.run("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])
        self._certificates()
        self._database()
        self._proxy()
        self._app()
        self._others()
        self.programs()

    def _certificates(self) -> None:
        self.shell.run(
            "mkdir -p /etc/deploy/pki/leaves /var/lib/deploy /etc/deploy/moving; cd /etc/deploy/pki; openssl req -x509"
            " -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost -keyout"
            " leaves/postgresql.key -out leaves/postgresql.crt 2>/dev/null; cp leaves/postgresql.crt root.crt;"
            " cp leaves/postgresql.crt leaves/proxy.crt; cp leaves/postgresql.key leaves/proxy.key;"
            " chown postgres leaves/postgresql*; chown caddy leaves/proxy*"
        )

    def _database(self) -> None:
        for file in database_spec.spec(self.ctx).files:
            if not file.early and not file.path.startswith("/etc/deploy/pki"):
                self.put(file)
        command = next(iter(operations.cluster._inner()))
        self.shell.run("bash -s", stdin=command.connector_arguments["_stdin"], timeout=120)

    def _proxy(self) -> None:
        for file in proxy_spec.spec(self.ctx).files:
            if not file.path.startswith("/etc/deploy/pki"):
                self.put(file)
        self.shell.run(f"cp {proxy_spec.WANTED} {proxy_spec.LIVE}")

    def _app(self) -> None:
        self.shell.write("/opt/notes/releases/1/app.py", APP)
        text = UNIT.format(
            name="app", user="postgres", command="/usr/bin/python3 /opt/notes/current/app.py", more=""
        )
        self.shell.write(f"{SYSTEMD}/notes-web.service", text)
        plan = {
            "app": "notes", "home": "/opt/notes", "state": "/var/lib/deploy/app/notes", "release": "1",
            "files": ["/etc/deploy/app-switch/notes.json"], "migrations": [{"name": "tables", "unit": "notes-tables.service",
            "timeout": 30, "reversible": True}], "processes": [{"name": "web", "unit": "notes-web.service",
            "ready": f"http://127.0.0.1:{PORT}/health", "timeout": 60}],
        }  # fmt: skip
        self.shell.write("/etc/deploy/app-switch/notes.json", json.dumps(plan))
        # It must run once only: on the new side its mark came over.
        self.shell.write(
            f"{SYSTEMD}/notes-tables.service",
            "[Service]\nType=oneshot\nUser=postgres\nExecStart=/usr/bin/psql -d notes -c"
            " 'CREATE TABLE writes (n bigint PRIMARY KEY, client text)'\n",
        )
        self.shell.write("/usr/local/lib/deploy/app-switch", service_file("app", "app-switch"))
        self.shell.run(
            "chmod 755 /usr/local/lib/deploy/app-switch; mkdir -p /var/lib/deploy/app/notes; systemctl daemon-reload;"
            " systemctl enable -q notes-web"
        )

    def _others(self) -> None:
        """A gateway that wants its carriers' program up, mail that waits, a cache, pictures."""
        more = "Upholds=carrier.service\n"
        sleeper = "/bin/sleep infinity"
        self.shell.write(
            f"{SYSTEMD}/gateway.service", UNIT.format(name="gateway", user="root", command=sleeper, more=more)
        )
        more = "BindsTo=gateway.service\nAfter=gateway.service\n"
        self.shell.write(
            f"{SYSTEMD}/carrier.service", UNIT.format(name="carrier", user="root", command=sleeper, more=more)
        )
        self.shell.write(
            "/etc/postfix/main.cf",
            "compatibility_level = 3.6\nmyhostname = example.test\nmydestination =\ninet_interfaces = loopback-only\n"
            "defer_transports = smtp\nmaillog_file = /var/log/postfix.log\n",
        )
        self.shell.write(
            "/etc/valkey/valkey.conf",
            'bind 127.0.0.1\nport 6379\nappendonly yes\nsave ""\ndir /var/lib/valkey\nlogfile ""\nsupervised auto\n',
        )
        self.shell.run(
            "chown -R valkey: /etc/valkey /var/lib/valkey; mkdir -p /srv/pictures; touch /etc/aliases; newaliases"
        )

    def programs(self) -> None:
        """Programs and units, as they are now."""
        for component, place in (("moving", PROGRAMS), ("backups", "/usr/local/lib/deploy/backups")):
            for name, text in service_files(component).items():
                if component == "moving" or name in ("ground.py", "guard.py"):
                    self.shell.write(f"{place}/{name}", text)
        for name in UNITS:
            path = f"{SYSTEMD}/deploy-moving-{name}.service"
            self.put(File(path, f"moving/deploy-moving-{name}.service.j2", {"programs": PROGRAMS}))
        for unit in ("notes-web", "gateway", "carrier", "postfix", "valkey-server"):
            self.put(File(f"{SYSTEMD}/{unit}.service.d/deploy-moving.conf", "moving/closed.conf.j2"))
        self.put(File(f"{SYSTEMD}/postgresql@17-main.service.d/deploy-moving.conf", "moving/fenced.conf.j2"))
        long = " ".join(f"deploy-moving-{name}" for name in ("fence", "conduct", "database", "forward"))
        self.shell.run(f"systemctl daemon-reload; systemctl enable -q {long}")

    def live(self) -> None:
        """This side serves."""
        self.shell.run(
            "systemctl start postgresql@17-main; runuser -u postgres -- createdb notes;"
            " systemctl enable -q --now valkey-server postfix gateway caddy;"
            " /usr/local/lib/deploy/app-switch notes; valkey-cli set queue 41;"
            " for n in $(seq 300); do echo $n >/srv/pictures/$n; done; chown -R postfix:valkey /srv/pictures/7;"
            " for n in 1 2 3; do echo $n | sendmail -f a@example.test someone@elsewhere.test; done",
            timeout=120,
        )

    # --- a move ---

    def join(self, other: Side, side: str, id: str, password: str, generation: int) -> None:
        """The files of a move, as the spec would write them."""
        verifier = scram.verifier("deploy_replication", password)
        here, there = f"{side}/m", f"{'old' if side == 'new' else 'new'}/m"
        settings = {
            "id": id, "stack": "demo", "deployment": f"demo@{self.name}", "other": f"demo@{other.name}", "side": side,
            "generation": generation, "machine": here, "lead": True,
            "machines": [{"name": here, "address": self.address, "port": 22, "lead": True},
                         {"name": there, "address": other.address, "port": 22, "lead": True}],
            "replication": {"slot": "deploy_standby", "peer": there, "port": TUNNEL, "password_verifier": verifier},
            "copies": [{"name": name, "component": component, "kind": kind, "where": where, "peer": there}
                       for name, component, kind, where in (
                           ("mail queue", "mail_relay", "files", "/var/spool/postfix"),
                           ("cache", "cache", "valkey", "/var/lib/valkey"),
                           ("pictures", "app", "files", "/srv/pictures"),
                           ("marks", "app", "marks", "/var/lib/deploy/app/notes"))],
            "units": [{"component": "cache", "units": ["valkey-server.service"]},
                      {"component": "mail_relay", "units": ["postfix.service"]},
                      {"component": "sms_gateway", "units": ["carrier.service", "gateway.service"]},
                      {"component": "app", "units": ["notes-web.service"]}],
            "timers": [], "database_unit": "postgresql@17-main.service", "proxy_unit": "caddy.service", "app": "notes",
            "forwards": [{"port": PORT, "listen": "127.0.0.1", "peer": there}] if side == "old" else [],
            "hold_upstreams": [f"127.0.0.1:{PORT}"], "sms_first": ["carrier.service"],
        }  # fmt: skip
        folder = "/etc/deploy/moving"
        self.shell.write(f"{folder}/settings.json", json.dumps(settings))
        self.shell.write(f"{folder}/key", self.key)
        known = "".join(f"{one.address} {one.host_key}\n" for one in (self, other))
        self.shell.write(f"{folder}/known_hosts", known)
        opens = f'permitopen="127.0.0.1:5432",permitopen="127.0.0.1:{PORT}"'
        sources = f'from="{self.address},{other.address}"'
        options = f'restrict,port-forwarding,{opens},{sources},command="{PROGRAMS}/move.py serve"'
        lines = "".join(f"{options} {public_ssh(one.key)}\n" for one in (self, other))
        self.shell.write(f"{folder}/authorized_keys", lines)
        self.shell.write(f"{folder}/pgpass", f"127.0.0.1:{TUNNEL}:*:deploy_replication:{password}\n")
        self.shell.write(
            f"{folder}/pg_hba.conf", "host replication deploy_replication 127.0.0.1/32 scram-sha-256\n"
        )
        self.shell.write(
            "/etc/ssh/sshd_config.d/10-deploy.conf",
            "AuthorizedKeysFile .ssh/authorized_keys /etc/deploy/moving/authorized_keys\nAllowTcpForwarding local\n",
        )
        self.shell.run(
            f"chmod 600 {folder}/key {folder}/settings.json {folder}/pgpass; chown postgres {folder}/pgpass;"
            f" chmod 755 {folder} {PROGRAMS}/move.py; systemctl reload ssh"
        )

    # --- verbs ---

    def move(self, verb: str, body: dict[str, Any] | None = None, timeout: float = 120) -> dict[str, Any]:
        code, output = self.shell.attempt(
            f"{MOVE} {verb}", stdin=json.dumps(body) if body else "", timeout=timeout
        )
        try:
            found: dict[str, Any] = json.loads(output)
        except ValueError:
            raise AssertionError(f"{verb} on {self.name} ended with {code}: {output}") from None
        return found

    def good(self, verb: str, body: dict[str, Any] | None = None, timeout: float = 120) -> dict[str, Any]:
        found = self.move(verb, body, timeout)
        assert not (isinstance(found.get("error"), dict) and "standby" not in found), (verb, found)
        return found

    def await_(self, what: str, look: Any, timeout: float = 90) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            found = self.good("status")
            if look(found):
                return found
            assert time.monotonic() < deadline, f"{what}: {json.dumps(found, indent=1)}"
            time.sleep(0.3)

    def active(self, unit: str) -> bool:
        return self.shell.attempt(f"systemctl is-active -q {unit}")[0] == 0

    def sql(self, text: str) -> str:
        return self.shell.run("runuser -u postgres -- psql -XAtq -d postgres", stdin=text).strip()

    def serves(self) -> bool:
        code, output = self.shell.attempt(f"curl -sS -m 5 http://127.0.0.1:{PORT}/health")
        return code == 0 and output.strip() == "{}"


def open_move(old: Side, new: Side, generation: int) -> str:
    """Both sides know of the move; the database streams and one pass of files is there."""
    id, password = f"move-{generation}", secrets.token_hex(8)
    old.join(new, "old", id, password, generation)
    new.join(old, "new", id, password, generation)
    old.good("prepare")
    new.good("prepare")
    new.good("standby")
    new.good("files")
    new.await_("ready", lambda found: found["standby"]["state"] == "streaming" and found["files"]["passes"])
    return id
