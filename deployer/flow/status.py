"""`deploy status`: is it well? Reads, and changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployer.components.base import actions as base
from deployer.core.errors import DeployError
from deployer.core.events import Sink
from deployer.flow import summary
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
            with ThreadPoolExecutor(1) as pool:
                outer = pool.submit(
                    lambda: run_probes(outside(session.specs(machines, {})), session.trusted_ca())
                )
                view = look(
                    session, machines, session.connect(machines, SSH), timeout=SSH, scripts=base.status_scripts()
                )
                probes = results(view, outer.result())
        except DeployError as error:
            session.mask.error(error)
            raise
        body = summary.build(session, view, (), probes, time.monotonic() - began, False)
        problems = _problems(view)
        red = [probe for probe in probes if not probe.ok and not probe.degrades]
        drift = len(view.changes)
        if drift:
            body["notes"].insert(0, f"{drift} difference(s) from the project: deploy plan shows them, deploy up mends them")
        body |= {
            "ok": not red and not problems,
            "problems": problems,
            "disks": [disk | {"machine": name} for name in view.machines for disk in _script(view, name, "disks")],
            "notes": [*_reboots(view), *body["notes"]],
        }
        return body


def _script(view: View, machine: str, name: str) -> list[dict[str, Any]]:
    """A status script's JSON list; what cannot be read is an empty one (`_problems` tells)."""
    code, out = view.found[machine].part("scripts").get(name, (1, ""))
    try:
        parsed = json.loads(out) if code == 0 else []
    except ValueError:
        return []
    return parsed if isinstance(parsed, list) else []


def _problems(view: View) -> list[str]:
    """What fails the status besides red probes: full disks, failed units, certificates near their end."""
    problems = []
    for name in view.machines:
        scripts: Mapping[str, Any] = view.found[name].part("scripts")
        for key in base.status_scripts():
            code, out = scripts.get(key, (1, "did not run"))
            if code != 0:
                problems.append(f"{name}: {key} cannot be read: {out.strip()[-200:]}")
        problems += [f"{name}: {text}" for text in base.problems({key: _script(view, name, key) for key in scripts})]
    return problems


def _reboots(view: View) -> list[str]:
    return [f"{name}: reboot needed ({entry['why']})" for name in view.machines for entry in _script(view, name, "reboot")]
