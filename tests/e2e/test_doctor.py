"""Doctor against real machines and a real name server, with faults that it must find. Nothing is installed for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.query
import dns.update
import pytest

from deployer.core.component import DnsRecord
from deployer.core.events import discard
from deployer.core.machine import Machine
from deployer.flow import provision
from deployer.flow.request import Request
from deployer.flow.session import SSH_NEW, Session
from deployer.state.journal import Journal
from tests.e2e.conftest import local_section, project
from tests.e2e.operator import Operator
from tests.rig.world import GATEWAY, MAIL, World

DOMAIN = "doctor.social.test"
LIST = "bl.social.test"
# TEST-NET-1 (RFC 5737): the rig lets nothing out to port 25.
NOWHERE = "192.0.2.25"


@dataclass
class Patient:
    """A machine with nothing but Debian, of a project that is for the world."""

    operator: Operator
    rig: World
    machine: Machine
    records: list[DnsRecord]

    def look(self) -> dict[str, list[dict[str, Any]]]:
        """Findings by id."""
        run = self.operator.run("doctor", timeout=60)
        found: dict[str, list[dict[str, Any]]] = {}
        for one in run.result["findings"]:
            found.setdefault(one["id"], []).append(one)
        assert run.code == (1 if any(one["status"] == "fail" for one in run.result["findings"]) else 0)
        assert run.result["seconds"] < 25
        return found

    def publish(self, *, ttl: int = 60) -> None:
        """Enter what the deployment wants, as an operator would by hand."""
        # BIND refuses an MX whose target has no address yet.
        self.rig.set_records([vars(one) for one in sorted(self.records, key=lambda one: one.type)])
        update = dns.update.UpdateMessage("social.test")
        update.replace(f"mail.{DOMAIN}.", ttl, "A", self.machine.address)
        dns.query.tcp(update, self.rig.internet.address, timeout=10)

    def inventory(self, server: str, smarthosts: str = "[]") -> None:
        policy = (
            f"{{resolvers: [{self.rig.internet.address}], blocklists: [{LIST}], mail_servers: [{server}]}}"
        )
        text = (
            "provider: local\nmachines:\n- roles: [all]\ncatch: false\n"
            f"smarthosts: {smarthosts}\ndoctor: {policy}\n{local_section(self.rig)}"
        )
        (self.operator.folder / "inventories" / "local.yaml").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def patient(rig: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    folder = tmp_path_factory.mktemp("doctor")
    operator = project(folder / "project", DOMAIN, "local", "", folder / "home", "doctor")
    made = Patient(operator, rig, Machine("", "", "", ""), [])
    made.inventory(NOWHERE)
    before = made.look()
    assert before["machine.clock"][0]["status"] == "skipped", "it works before anything exists"
    assert before["vendor.price"][0]["status"] == "ok"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(operator.home))
        made.machine, made.records = provisioned(operator.folder)
    rig.set_records([{"name": f"2.0.0.127.{LIST}", "type": "A", "value": "127.0.0.2"}])
    yield made
    operator.good("down", "--yes")


def provisioned(root: Path) -> tuple[Machine, list[DnsRecord]]:
    """Its machine, made and reached as `up` does it, and the records that it wants."""
    with Session.open(Request(root, "local"), discard, make_secrets=True) as session:
        specs = session.machine_specs()
        machines = provision.create(
            session.provider, session.project, specs, {}, Journal(session.project.state_dir), discard
        )
        session.connected(session.connect(machines, SSH_NEW), SSH_NEW)
        wanted = {
            record
            for listed in session.specs(machines, {}).values()
            for spec in listed
            for record in spec.dns
        }
        return machines["doctor-all-1"], sorted(wanted, key=str)


def test_a_bare_machine_and_names_that_nobody_entered(patient: Patient) -> None:
    found = patient.look()
    assert found["machine.ssh"][0]["status"] == "ok"
    assert found["machine.clock"][0]["status"] == "ok", found["machine.clock"]
    assert found["machine.disk"][0]["where"] == "doctor-all-1"
    assert found["tls.own"][0]["status"] == "skipped"
    assert found["tls.public"][0]["status"] == "fail"
    assert found["dns.vendors"][0]["status"] == "fail", "one name server is one vendor"
    assert found["dns.records"][0]["status"] == "fail"
    assert found["project.recovery"][0]["status"] == "warn", "the first bundle leaves it in the folder"
    (port25,) = found["mail.port25"]
    assert port25["status"] == "fail" and NOWHERE in port25["found"] and port25["next"]


def test_names_as_they_shall_be(patient: Patient) -> None:
    patient.publish()
    patient.rig.set_reverse(patient.machine.address, f"mail.{DOMAIN}")
    found = patient.look()
    assert [one["status"] for one in found["dns.records"]] == ["ok"], found["dns.records"]
    assert found["dns.ttl"][0]["status"] == "ok"
    by_address = {one["where"]: one["status"] for one in found["mail.reverse"]}
    # The rig knows no reverse names for IPv6.
    assert by_address == {patient.machine.address: "ok"} | (
        {patient.machine.address6: "fail"} if patient.machine.address6 else {}
    )
    assert {one["status"] for one in found["mail.blocklist"]} == {"ok"}, found["mail.blocklist"]


def test_faults_of_names_are_found(patient: Patient) -> None:
    patient.publish(ttl=3600)
    patient.rig.set_reverse(patient.machine.address, "host.cloud.test")
    octets = ".".join(reversed(patient.machine.address.split(".")))
    entry: dict[str, object] = {"name": f"{octets}.{LIST}", "type": "A", "value": "127.0.0.2"}
    # An address that is somebody else's.
    elsewhere: dict[str, object] = {"name": DOMAIN, "type": "A", "value": GATEWAY}
    patient.rig.set_records([entry, elsewhere])
    found = patient.look()
    assert "host.cloud.test" in found["mail.reverse"][0]["found"]
    assert found["dns.ttl"][0]["status"] == "warn" and "3600" in found["dns.ttl"][0]["found"]
    (records,) = found["dns.records"]
    assert records["status"] == "fail" and f"A of {DOMAIN}" in records["found"]
    listed = next(one for one in found["mail.blocklist"] if one["where"] == patient.machine.address)
    assert listed["status"] == "fail" and "127.0.0.2" in listed["found"]
    # The list refuses the resolver: that says nothing about the address.
    patient.rig.set_records([entry | {"value": "127.255.255.254"}])
    found = patient.look()
    asked = next(one for one in found["mail.blocklist"] if one["where"] == patient.machine.address)
    assert asked["status"] == "skipped" and "public" in asked["found"]


def test_port_25_that_is_open_and_one_that_nobody_needs(patient: Patient) -> None:
    with socket.create_server((MAIL, 25)) as server:

        def serve() -> None:
            caller, _ = server.accept()
            with caller:
                caller.sendall(b"220 mx.mailbox.test ESMTP\r\n")
                caller.recv(100)

        threading.Thread(target=serve, daemon=True).start()
        patient.inventory(MAIL)
        assert patient.look()["mail.port25"][0]["status"] == "ok"
    patient.inventory(NOWHERE, f"[{{name: first, host: {MAIL}}}]")
    (found,) = patient.look()["mail.port25"]
    assert found["status"] == "ok" and "not needed" in found["found"]


def test_a_machine_that_is_off(patient: Patient) -> None:
    patient.rig.provider.stop_machine(patient.machine)
    (ssh,) = patient.look()["machine.ssh"]
    assert ssh["status"] == "fail" and ssh["next"] == "deploy up starts it"
