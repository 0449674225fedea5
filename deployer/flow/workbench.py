"""A throw-away machine, for work that must not run on a machine of the stack: made, used, deleted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.keytext import public_ssh
from deployer.core.machine import Machine, MachineSpec, Size
from deployer.core.model import MachineEntry, Project
from deployer.core.provider import Provider
from deployer.flow import provision, registry, sizes
from deployer.flow.client import Engine
from deployer.flow.request import Request
from deployer.flow.session import SSH_NEW, unreachable

# What working on repositories takes.
PACKAGES = ("pgbackrest", "restic")
SIZE = Size(cores=2, memory=2, disk=20)
# Seconds: to install the packages, and for one program unless its caller says otherwise.
INSTALL, LONGEST = 900, 6 * 3600
_INSTALL = """
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8
get() { apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"; }
get -o APT::Update::Error-Mode=any update && get --no-install-recommends install %s
"""


@dataclass(frozen=True)
class Workbench:
    """A connected machine. key: the private SSH key that opens it, for who wants a connection of his own."""

    machine: Machine
    engine: Engine
    key: str = field(repr=False)

    def run(self, program: str, request: Mapping[str, Any], timeout: float = LONGEST) -> tuple[int, str, str]:
        """Run a Python program with its request, which may hold secrets, on standard input.

        Exit code, standard output, standard error. program: its text. timeout: seconds.
        """
        import json

        command = f"python3 -I -c {shlex.quote(program)}"
        return self.engine.run(self.machine.name, command, stdin=json.dumps(request) + "\n", timeout=timeout)


def place(request: Request, project: Project, on: str | None) -> Project:
    """The project at the place where a throw-away machine is made, as a deployment of its own.

    on: an inventory's name or file; None is the provider local. Raises InputError where machines cannot be made.
    """
    from deployer.project import load

    chosen = project
    if on is not None:
        named = Path(on)
        file = named if named.suffix in (".yaml", ".yml") else None
        chosen = load(
            request.root, None if file else on, file, request.app, options=registry.provider_options
        )
    elif project.inventory.provider != "local":
        chosen = load(request.root, "local", None, request.app, options=registry.provider_options)
    inventory = chosen.inventory
    if inventory.provider == "ssh":
        raise InputError(
            "making a throw-away machine",
            f"the machines of {inventory.name} are your own, and cannot be made and deleted",
            "name another inventory with --on: that of a vendor, or local",
        )
    entry = MachineEntry(f"{chosen.stack.name}-workbench-1", ())
    return replace(
        chosen, inventory=replace(inventory, name=f"{inventory.name}-workbench", machines=(entry,), dns=())
    )


@contextmanager
def workbench(
    request: Request,
    project: Project,
    sink: Sink,
    *,
    on: str | None = None,
    packages: Sequence[str] = PACKAGES,
) -> Iterator[Workbench]:
    """A machine with these packages, which is deleted when the body ends, however it ends.

    One that a killed run left is deleted first; until then `deploy orphans` shows it.
    """
    from deployer.pki import keys
    from deployer.state.lock import lock

    at = place(request, project, on)
    provider = registry.provider(at, trust_first=False)
    key, host_key = keys.ssh(), keys.ssh()
    spec = MachineSpec(
        at.inventory.machines[0].name,
        (),
        size=SIZE,
        openings=sizes.openings(()),
        ssh_keys=(public_ssh(key),),
        host_key=host_key,
        host_key_public=public_ssh(host_key),
    )
    with lock(at.state_dir, "workbench"):
        engine = Engine(sink, debug=request.debug)
        try:
            machine = _make(provider, at, spec, sink)
            _connect(engine, at, machine, key)
            _install(engine, machine, packages, sink)
            yield Workbench(machine, engine, key)
        finally:
            engine.close()
            _delete(provider, at, sink)


def _make(provider: Provider, at: Project, spec: MachineSpec, sink: Sink) -> Machine:
    from deployer.state.journal import Journal

    provision.prepare(provider, sink)
    provider.check()
    journal = Journal(at.state_dir)
    left = {machine.name: machine for machine in provider.list_machines(at.deployment)}
    # Its keys went with the run that made it.
    provision.delete(provider, left, journal, sink)
    if registry.sells(at.inventory.provider):
        spec = replace(spec, type=sizes.pick(spec, "", provider.offers(), volume=False).name)
    return provision.create(provider, at, [spec], {}, journal, sink)[spec.name]


def _connect(engine: Engine, at: Project, machine: Machine, key: str) -> None:
    from deployer.state import known_hosts

    known = known_hosts.write(at.state_dir, [(machine.address, machine.ssh_port, machine.host_key_public)])
    entry = {
        "name": machine.name,
        "address": machine.address,
        "port": machine.ssh_port,
        "user": machine.ssh_user,
    }
    answers = engine.ask(
        "connect",
        bound=SSH_NEW + 30,
        machines=[entry],
        known_hosts=[str(known)],
        keys=[key],
        timeout=SSH_NEW,
        new=True,
    )
    if failure := answers[machine.name]:
        raise unreachable(machine.name, failure, SSH_NEW)


def _install(engine: Engine, machine: Machine, packages: Sequence[str], sink: Sink) -> None:
    import time

    if not packages:
        return
    text, began = f"install {', '.join(packages)}", time.monotonic()
    sink(Event("step", text, machine=machine.name, status="start"))
    command = _INSTALL % " ".join(map(shlex.quote, packages))
    code, out, err = engine.run(machine.name, f"bash -c {shlex.quote(command)}", timeout=INSTALL)
    if code != 0:
        raise DeployError(
            f"installing {', '.join(packages)}",
            f"apt-get ended with {code}",
            "see whether the machine reaches Debian's mirrors, then run this again",
            machine=machine.name,
            detail="\n".join((out + err).strip().splitlines()[-8:]),
        )
    seconds = round(time.monotonic() - began, 1)
    sink(Event("step", text, machine=machine.name, status="changed", seconds=seconds))


def _delete(provider: Provider, at: Project, sink: Sink) -> None:
    """Says so when it cannot: the error that ended the work, if there is one, is the one to be seen."""
    from deployer.state.journal import Journal

    try:
        machines = {machine.name: machine for machine in provider.list_machines(at.deployment)}
        provision.delete(provider, machines, Journal(at.state_dir), sink)
    except (DeployError, OSError) as error:
        sink(
            Event(
                "warning",
                f"the throw-away machine {at.inventory.machines[0].name} could not be deleted ({error}); "
                "deploy orphans --delete NAME deletes it",
            )
        )
