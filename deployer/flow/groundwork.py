"""Machines that data shall come back to: all that is installed there, and nothing that serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.flow import apply, registry
from deployer.flow import up as bringing
from deployer.flow.leasing import Lease
from deployer.flow.look import View, look
from deployer.flow.session import SSH, SSH_NEW, Session


def ready(session: Session, run: bringing.Run) -> View:
    """Packages, users and files, and nothing that serves; services that run are stopped."""
    machines, new = run.machines, bool(run.new)
    timeout = SSH_NEW if new else SSH
    with Lease(session, machines, run.held) as lease:
        view = look(
            session,
            machines,
            session.connect(machines, timeout),
            timeout=timeout,
            lease=lease.take(),
            probes=False,
        )
        lease.renew_from_now_on()
        stopping = {name: machine for name, machine in machines.items() if name not in run.new}
        if stopping:
            from deployer.flow.down import stop_services

            stop_services(session, stopping)
        work = {name: (view.wanted[name], view.found[name], view.of(name)) for name in machines}
        bringing.carry_out(session, _before_services(work))
        lease.release()
    return view


def _before_services(work: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The phases that start nothing. The app is not built: its release comes from the backup."""
    listed = []
    for phase in apply.phases(work, registry.component_names()):
        if phase["name"].startswith("start "):
            break
        listed.append({key: value for key, value in phase.items() if key != "beside"})
    return listed
