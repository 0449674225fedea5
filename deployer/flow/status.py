"""`deploy status`: is it well? Reads, and changes nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployer.components.base import actions as base
from deployer.core.errors import DeployError
from deployer.core.events import Sink
from deployer.flow import names, summary
from deployer.flow.look import View, look, outside, results
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session
from deployer.probes import run as run_probes


def status(request: Request, sink: Sink) -> dict[str, Any]:
    """ok, degraded, machines, probes, disks, notes. A machine that is down makes it not ok, and is told as such."""
    began = time.monotonic()
    with Session.open(request, sink, make_secrets=False) as session:
        try:
            machines = session.running()
            down = [m.name for m in machines.values() if m.status in ("stopped", "failed")]
            if down:
                raise DeployError(
                    "looking at the machines",
                    f"not running: {', '.join(down)}",
                    f"start them again: deploy up --provider {session.project.inventory.name}",
                )
            with ThreadPoolExecutor(2) as pool:
                outer = pool.submit(
                    lambda: run_probes(outside(session.specs(machines, {})), session.trusted_ca())
                )
                world = pool.submit(
                    lambda: names.differences(session, names.records(session.specs(machines, {}).values()))
                )
                view = look(
                    session,
                    machines,
                    session.connect(machines, SSH),
                    timeout=SSH,
                    scripts={"host": base.status_script()},
                )
                probes = results(view, outer.result())
        except DeployError as error:
            session.mask.error(error)
            raise
        body = summary.build(session, view, (), probes, time.monotonic() - began, False)
        hosts = _hosts(view)
        problems = [f"{name}: {text}" for name, host in hosts.items() for text in base.problems(host)]
        notices = [f"{name}: {text}" for name, host in hosts.items() for text in base.notices(host)]
        red = [probe for probe in probes if not probe.ok and not probe.degrades]
        if view.changes:
            count = len(view.changes)
            notices.append(
                f"{count} difference(s) from the project: deploy plan shows them, deploy up mends them"
            )
        if names.managed(session):
            body["degraded"] += world.result()
        else:
            notices += world.result()
        body |= {
            "ok": not red and not problems,
            "problems": problems,
            "disks": [{"machine": name, **vars(disk)} for name, host in hosts.items() for disk in host.disks],
            "notes": [*notices, *body["notes"]],
        }
        return body


def _hosts(view: View) -> dict[str, base.HostStatus]:
    """What each machine says of itself. Raises DeployError for one whose answer cannot be read."""
    return {
        name: base.parse_status(found.part("scripts")["host"][1], name) for name, found in view.found.items()
    }
