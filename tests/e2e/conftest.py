"""Deployments that the end-to-end tests share. One cold installation a run; what comes later starts from its layer."""

from __future__ import annotations

import json
import shutil
import socket
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dns.resolver
import pytest

from tests.e2e.doors import Doors
from tests.e2e.operator import Operator
from tests.rig import argv, layer
from tests.rig.mail_receiver import MailReceiver
from tests.rig.smpp_carrier import Carrier
from tests.rig.world import CARRIER_A, CARRIER_B, GATEWAY, MAIL, ZONES, World, world

if TYPE_CHECKING:
    from tests.e2e.scratch import Scratch


@pytest.fixture(scope="session")
def rig() -> Iterator[World]:
    with world() as made:
        yield made


@dataclass
class Deployed:
    """A deployment that is up. summary: what `up` returned; doors: its public side."""

    operator: Operator
    domain: str
    summary: dict[str, object]

    @property
    def folder(self) -> Path:
        return self.operator.folder

    def address(self, role: str) -> str:
        machines = self.summary["machines"]
        assert isinstance(machines, list)
        return str(next(one["address"] for one in machines if role in one["roles"]))

    @property
    def doors(self) -> Doors:
        ca = (self.folder / ".deploy" / self.operator.inventory / "ca.crt").read_text(encoding="utf-8")
        return Doors(self.address("app"), ca)


def project(folder: Path, domain: str, inventory: str, text: str, home: Path, name: str) -> Operator:
    """A project folder for the Matrix app with one inventory."""
    (folder / "inventories").mkdir(parents=True)
    (folder / "stack.yaml").write_text(f"name: {name}\ndomain: {domain}\napp: matrix\n", encoding="utf-8")
    (folder / "inventories" / f"{inventory}.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    home.mkdir(exist_ok=True)
    return Operator(folder, inventory, home)


def local_section(rig: World, layer: Path | None = None) -> str:
    lines = [f"  {key}: {value}" for key, value in rig.options.items()]
    lines.append(f"  nameservers: [{rig.internet.address}]")
    lines += [f"  layer: [{layer}]"] if layer else []
    return "local:\n" + "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def demo(rig: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The newcomer's demo: everything on one machine, mail and SMS caught. The run's cold installation."""
    folder = tmp_path_factory.mktemp("demo")
    text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(rig)
    operator = project(folder / "project", "demo.social.test", "local", text, folder / "home", "demo")
    summary = operator.good("up", "--yes").result
    yield Deployed(operator, "demo.social.test", summary)
    operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def package_layer(rig: World, demo: Deployed) -> Path:
    """What the demo installed, for the machines of the other deployments."""
    return layer.make(rig.folder / "machines" / "machines" / "demo-all-1", rig.folder / "layer")


@dataclass
class Live(Deployed):
    """A deployment in touch with the outside: names, certificates, a mail server and two carriers."""

    receiver: MailReceiver
    carriers: tuple[Carrier, Carrier]
    ca: str

    @property
    def doors(self) -> Doors:
        return Doors(self.address("app"), self.ca)


LIVE = """\
provider: local
machines:
- roles: [app, mail, sms]
- roles: [database]
catch: false
acme: {{directories: ["{directory}"], email: ops@live.social.test, trusted_ca: acme.crt}}
carriers:
- {{name: a, host: {a}, port: 2775, system_id: one, password: "${{CARRIER_A}}"}}
- {{name: b, host: {b}, port: 2775, system_id: two, password: "${{CARRIER_B}}"}}
sms: {{sender: "4915100001", callback_hosts: [callback.social.test]}}
"""


@pytest.fixture(scope="module")
def live(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Two machines, the database apart, and everything outside real: ACME, DNS, a receiving server, carriers."""
    folder = tmp_path_factory.mktemp("live")
    text = LIVE.format(directory=rig.directory, a=CARRIER_A, b=CARRIER_B) + local_section(rig, package_layer)
    operator = project(folder / "project", "live.social.test", "live", text, folder / "home", "live")
    operator.environment = {"CARRIER_A": "secreta1", "CARRIER_B": "secretb1"}
    (operator.folder / "acme.crt").write_text(rig.acme_ca, encoding="utf-8")
    rig.set_records([{"name": "callback.social.test", "type": "A", "value": GATEWAY}])
    with (
        MailReceiver(
            (MAIL, 25), rig.internet.address, folder / "mail", domains=("mailbox.test",)
        ) as receiver,
        Carrier("one", "secreta1", host=CARRIER_A, port=2775) as first,
        Carrier("two", "secretb1", host=CARRIER_B, port=2775) as second,
    ):
        summary = up_with_names(operator, rig, "live-app-mail-sms-1")
        yield Live(operator, "live.social.test", summary, receiver, (first, second), rig.acme_ca)
        operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


def up_with_names(operator: Operator, rig: World, front: str) -> dict[str, object]:
    """Run `up`, and enter the names as soon as the machine's address is known, as an operator would: the
    certificate authority looks for them while `up` is still at work."""
    process = operator.start("up", "--yes")
    assert process.stdout and process.stderr
    lines = []
    for line in process.stdout:
        lines.append(line)
        event = json.loads(line)
        if event.get("kind") == "machine" and event.get("machine") == front and event.get("status") == "ok":
            address = event["text"].rsplit(" ", 1)[1]
            for host in ("", "sms.", "mail.", "mta-sts."):
                name = f"{host}live.social.test"
                rig.set_records([{"name": name, "type": "A", "value": address}])
    assert process.wait(60) == 0, "".join(lines[-40:]) + process.stderr.read()
    summary: dict[str, object] = json.loads(lines[-1])["data"]
    records = summary["dns"]
    assert isinstance(records, list)
    # IPv6 of the rig ends at its bridge, where the receiving server does not listen.
    rig.set_records([record for record in records if record["type"] != "AAAA"])
    return summary


@pytest.fixture(scope="session")
def scratch(rig: World, package_layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    """One machine to break and to mend; each test leaves it green. Its first `up` was watched."""
    from tests.e2e.scratch import Scratch

    folder = tmp_path_factory.mktemp("scratch")
    operator = layered(rig, package_layer, folder, "scratch")
    with argv.Recorder(folder / "argv") as recorder:
        first = operator.good("up", "--yes", options=("--json", "-v", "--debug"))
    machines = rig.folder / "machines" / "machines"
    yield Scratch(operator, "scratch.social.test", first.result, first, recorder, machines)
    operator.good("down", "--yes")
    shutil.rmtree(folder, ignore_errors=True)


def layered(rig: World, layer: Path, folder: Path, name: str) -> Operator:
    """A project with everything on one machine, which starts from the packages that are there."""
    text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(rig, layer)
    return project(folder / "project", f"{name}.social.test", "local", text, folder / "home", name)


@pytest.fixture
def names(rig: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of the rig resolve in this process too, as they would for anybody outside."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [rig.internet.address]
    real = socket.getaddrinfo

    def lookup(host: str, *arguments: Any, **named: Any) -> Any:
        if isinstance(host, str) and host.endswith(ZONES):
            host = str(resolver.resolve(host, "A")[0])
        return real(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
