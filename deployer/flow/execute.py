"""`deploy exec`, `deploy logs`, `deploy ssh`: reach into a machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployer.core.errors import InputError
from deployer.core.events import Sink
from deployer.core.machine import Machine
from deployer.flow import provision, registry
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session, single

# Seconds that a command of `exec` may take.
LONGEST = 3600


def execute(
    request: Request, sink: Sink, argv: Sequence[str], machine: str | None, role: str | None
) -> list[dict[str, Any]]:
    """Run a command on one machine, on those of a role, or on all, side by side: machine, code, stdout, stderr."""
    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        machines = session.running()
        roles = provision.roles(session.project)
        if machine or role:
            chosen = [single(machines, machine, roles)] if machine else _players(machines, roles, str(role))
            machines = {one.name: one for one in chosen}
        session.connected(session.connect(machines, SSH), SSH)
        command = shlex.join(argv)
        with ThreadPoolExecutor(len(machines)) as pool:
            answers = list(
                pool.map(lambda name: session.engine.run(name, command, timeout=LONGEST), machines)
            )
        return [
            {"machine": name, "code": code, "stdout": out, "stderr": err}
            for name, (code, out, err) in zip(machines, answers, strict=True)
        ]


def _players(machines: dict[str, Machine], roles: Any, role: str) -> list[Machine]:
    if role not in roles:
        raise InputError("choosing machines", f"no role {role!r}", f"roles: {', '.join(roles)}")
    return [machines[name] for name in roles[role] if name in machines]


def ssh_command(request: Request, sink: Sink, target: str | None) -> list[str]:
    """The argv of an ssh(1) that uses the deployment's key and pinned host key and nothing of the user's own files."""
    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        machine = single(session.running(), target, provision.roles(session.project))
        return ssh_words(session, machine, [machine])


def ssh_words(session: Session, machine: Machine, known: Sequence[Machine]) -> list[str]:
    """The words of an ssh(1) to a machine. known: all machines whose commands run side by side, since they share the
    file of host keys."""
    from deployer.state.files import make_private, write_atomically

    folder = session.project.state_dir
    make_private(folder)
    key = folder / "deploy_key"
    if not key.exists() or key.read_text(encoding="utf-8") != session.secrets["ssh/deploy"]:
        write_atomically(key, session.secrets["ssh/deploy"])
    options = {
        # In quotes, since a blank would begin another file.
        "UserKnownHostsFile": f'"{session.known_hosts({one.name: one for one in known})}"',
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes" if session.project.inventory.provider != "ssh" else "no",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "15",
    }
    argv = ["ssh", "-F", "none", "-i", str(key), "-p", str(machine.ssh_port)]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    return [*argv, f"{machine.ssh_user}@{machine.address}"]


def logs(
    request: Request,
    sink: Sink,
    what: str | None,
    machine: str | None,
    lines: int,
    since: str | None,
    follow: bool,
) -> Iterator[str]:
    """Journal lines of a component, a unit, or everything we run; with `follow` until it is stopped."""
    import subprocess

    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        machines = session.running()
        roles = provision.roles(session.project)
        chosen = [single(machines, machine, roles)] if machine else _where(session, machines, what)
        units = {one.name: _units(session, one, machines, what) for one in chosen}
        argvs = {one.name: ssh_words(session, one, chosen) for one in chosen}
    for one in chosen:
        command = ["journalctl", "--no-pager", "-o", "short-iso", "-n", str(lines)]
        command += [part for unit in units[one.name] for part in ("-u", unit)]
        command += ["--since", since] if since else []
        command += ["--follow"] if follow else []
        process = subprocess.Popen([*argvs[one.name], shlex.join(command)], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        prefix = f"{one.name}  " if len(chosen) > 1 else ""
        try:
            for line in process.stdout:
                yield session.mask.text(prefix + line.rstrip("\n"))
        finally:
            process.terminate()
            process.wait(10)


def _where(session: Session, machines: dict[str, Machine], what: str | None) -> list[Machine]:
    """Machines on which the component or unit lives; all when nothing is named."""
    if what is None:
        return list(machines.values())
    found = [one for one in machines.values() if _units(session, one, machines, what, strict=False)]
    if not found:
        raise InputError(
            "choosing a journal",
            f"no component or unit {what!r}",
            f"components: {', '.join(registry.component_names())}",
        )
    return found


def _units(
    session: Session, machine: Machine, machines: dict[str, Machine], what: str | None, *, strict: bool = True
) -> list[str]:
    everything = machines | {
        spec.name: provision.placeholder(spec)
        for spec in session.machine_specs()
        if spec.name not in machines
    }
    listed = session.specs(everything, {})[machine.name]
    units = {spec.name: [unit.name for unit in spec.units if unit.wanted] for spec in listed}
    if what is None:
        return [name for names in units.values() for name in names]
    if what in units:
        return units[what]
    full = [name for names in units.values() for name in names if what in (name, name.rsplit(".", 1)[0])]
    return full or ([what] if strict else [])
