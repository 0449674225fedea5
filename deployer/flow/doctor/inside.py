"""What is asked on a machine: its clock, its disks, its certificates, and how the world looks from there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from deployer.components.backups import actions
from deployer.components.base import actions as base
from deployer.components.mail_relay import layout, outlook
from deployer.core.component import ComponentSpec
from deployer.core.errors import DeployError
from deployer.core.finding import Finding
from deployer.core.machine import Machine
from deployer.flow.doctor import backups, hosts, mail
from deployer.flow.doctor.scene import Scene
from deployer.flow.observe import probes_of
from deployer.flow.session import unreachable

# Seconds: for SSH to answer, and for a mail machine to look around.
SSH, OUTLOOK = 4.0, 7.0
# Seconds for counting what restores left.
COUNTING = 4.0
# The names of probes that ask a vendor, up to the vendor's own name.
_VENDORS = {"smarthost": "mail_relay/mail: smarthost ", "carrier": "sms_gateway/sms carrier "}


def machine(
    scene: Scene, connection: Future[Any], machine: Machine, specs: Sequence[ComponentSpec]
) -> list[Finding]:
    """All that one machine is asked. connection: of `Session.connect`. Raises DeployError when it does not answer."""
    name = machine.name
    failure = connection.result(scene.runner.left())[name]
    if failure:
        raise unreachable(name, failure, SSH)
    found = [Finding("machine.ssh", "ok", "SSH", name, "answers, with the host key that we know")]
    found.append(_clock(scene, name))
    mailer = any(spec.name == "mail_relay" for spec in specs) and not scene.inventory.catch
    addresses = [address for address in (machine.address, machine.address6) if address]
    scripts = {"host": base.status_script()}
    if keeping := bool(scene.inventory.repositories):
        scripts["leftovers"] = actions.leftovers_script(COUNTING)
    if mailer:
        scripts["outlook"] = outlook.script(
            scene.policy.mail_servers,
            _queries(addresses, scene.policy.blocklists),
            min(OUTLOOK, scene.runner.left() - 2),
        )
    asking = {
        key: value for key, value in probes_of(specs).items() if key.startswith(tuple(_VENDORS.values()))
    }
    request = {"components": ["base"], "scripts": scripts, "probes": asking}
    left = scene.runner.left()
    answer = scene.session.engine.ask("observe", bound=left, requests={name: request}, timeout=left)[name]
    if "error" in answer:
        raise DeployError("looking at the machine", answer["error"]["why"], "run it again", machine=name)
    status = base.parse_status(answer["scripts"]["host"][1], name)
    found += hosts.disks(name, status.disks)
    if mailer:
        found += _outlook(scene, name, addresses, outlook.parse(answer["scripts"]["outlook"][1], name))
    if keeping:
        left_over = actions.leftovers(answer["scripts"]["leftovers"][1], name)
        found += backups.leftovers(name, left_over)
    if not answer["applied"].get("base"):
        text = "nothing of ours is installed there yet"
        return [*found, Finding("tls.own", "skipped", "own certificates", name, text)]
    found += hosts.certificates(name, status.certificates)
    for kind, prefix in _VENDORS.items():
        answers = {
            key.removeprefix(prefix): (bool(probe["ok"]), str(probe["detail"]))
            for key, probe in answer["probes"].items()
            if key.startswith(prefix)
        }
        found += hosts.vendors(name, kind, answers)
    return found


def _clock(scene: Scene, name: str) -> Finding:
    """The second of two questions counts: the first may wait for the connection."""
    difference = uncertainty = 0.0
    for _ in range(2):
        asked = time.time()
        code, out, _ = scene.session.engine.run(name, "date +%s.%N", timeout=scene.runner.left(5))
        answered = time.time()
        if code or not out.strip():
            next = "see what is wrong with it: deploy ssh"
            return Finding("machine.clock", "warn", "clock", name, "`date` does not answer there", next)
        difference, uncertainty = float(out) - (asked + answered) / 2, (answered - asked) / 2
    return hosts.clock(name, difference, uncertainty)


def _queries(addresses: Sequence[str], zones: Sequence[str]) -> list[str]:
    asked = [mail.query(address, zone) for address, zone in _listings(addresses, zones)]
    return [*asked, *(mail.control(zone) for zone in zones)]


def _listings(addresses: Sequence[str], zones: Sequence[str]) -> list[tuple[str, str]]:
    """Who is asked about what."""
    return [
        (address, zone)
        for address in addresses
        for zone in zones
        if not (":" in address and zone in mail.IPV4_ONLY)
    ]


def _outlook(scene: Scene, name: str, addresses: Sequence[str], seen: outlook.Outlook) -> list[Finding]:
    policy = scene.policy
    tries = [(server, *seen.servers.get(server, (False, "no answer"))) for server in policy.mail_servers]
    found = [
        mail.port25(name, tries, scene.route),
        mail.greeting(name, layout.mail_host(scene.project), seen.helo),
    ]
    for address, zone in _listings(addresses, policy.blocklists):
        answer, tried = seen.names.get(mail.query(address, zone)), seen.names.get(mail.control(zone))
        found.append(mail.blocklist(address, zone, answer, tried, scene.route))
    return found
