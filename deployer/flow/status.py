"""`deploy status`: is it well? Reads, and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployer.components.backups import standing
from deployer.components.base import actions as base
from deployer.core.errors import DeployError
from deployer.core.events import Sink
from deployer.flow import holdings, moving_view, names, summary
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
            if (standby := moving_view.standby(session, machines)) is not None:
                return {**standby, "seconds": round(time.monotonic() - began, 2)}
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
                    scripts=_scripts(session),
                )
                probes = results(view, outer.result())
        except DeployError as error:
            session.mask.error(error)
            raise
        body = summary.build(session, view, (), probes, time.monotonic() - began, False)
        hosts = _hosts(view)
        problems = [f"{name}: {text}" for name, host in hosts.items() for text in base.problems(host)]
        notices = [f"{name}: {text}" for name, host in hosts.items() for text in base.notices(host)]
        backups = _backups(session, view, hosts)
        problems += backups.pop("problems")
        moved = moving_view.standing(session, view)
        problems += moved["problems"]
        body["degraded"] += backups.pop("degraded")
        notices += [*moved["notices"], *backups.pop("notices")]
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
            **backups,
        }
        return body


def _scripts(session: Session) -> dict[str, str]:
    kept = {"backups": standing.script()} if session.project.inventory.repositories else {}
    return {"host": base.status_script(), **kept}


def _backups(session: Session, view: View, hosts: Mapping[str, base.HostStatus]) -> dict[str, Any]:
    """problems, degraded, notices; proven: the last drill or restore of each repository. Asks no repository."""
    found: dict[str, Any] = {"problems": [], "degraded": [], "notices": []}
    repositories = session.project.inventory.repositories
    if not repositories:
        return found
    for name, machine in view.found.items():
        state = standing.parse(machine.part("scripts")["backups"][1], name)
        now = float(machine.part("facts")["now"])
        found["problems"] += [f"{name}: {text}" for text in standing.problems(state, now)]
        found["degraded"] += [f"{name}: {text}" for text in standing.degraded(state)]
        found["notices"] += [f"{name}: {text}" for text in standing.notices(state)]
        if standing.DATABASE_UNIT in hosts[name].failed_units:
            text = f"{name}: the last scheduled backup of the database failed"
            found["problems"].append(f"{text}: deploy logs {standing.DATABASE_UNIT}")
    proofs = holdings.proven(session.project.root)
    proven = {one.name: proofs[one.name] for one in repositories if one.name in proofs}
    for name, proof in proven.items():
        if proof["ok"]:
            found["notices"].append(f"{name}: last proven by a {proof['kind']} at {proof['at']}")
        else:
            why = proof["why"].splitlines()[0] if proof["why"] else "see its receipt"
            found["degraded"].append(f"{name}: the {proof['kind']} of {proof['at']} failed: {why}")
    if len(proven) < len(repositories):
        names = ", ".join(one.name for one in repositories if one.name not in proven)
        found["notices"].append(f"never proven by a drill: {names}: deploy drill --each")
    return {**found, "proven": proven}


def _hosts(view: View) -> dict[str, base.HostStatus]:
    """What each machine says of itself. Raises DeployError for one whose answer cannot be read."""
    return {
        name: base.parse_status(found.part("scripts")["host"][1], name) for name, found in view.found.items()
    }
