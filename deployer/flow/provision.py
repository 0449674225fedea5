"""Machines: compare, plan, create, wait. Written once, for all providers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.keytext import public_ssh
from deployer.core.machine import SIZES, Machine, MachineSpec, Size
from deployer.core.model import MachineEntry, Project
from deployer.core.plan import Change
from deployer.core.provider import Concurrent, Preparing, Provider
from deployer.flow.sizes import total
from deployer.state.journal import Journal, intention

# Address of a machine that does not exist yet (RFC 5737: nobody has it).
PLACEHOLDER = "192.0.2.1"
# Machines that are made at a time, at most; a provider may bear fewer.
AT_ONCE = 8


def machine_specs(project: Project, secrets: Mapping[str, str]) -> list[MachineSpec]:
    """The machines that shall exist, in the inventory's order."""
    keys = [public_ssh(secrets["ssh/deploy"]), *(operator.ssh_key for operator in project.stack.operators)]
    return [
        MachineSpec(
            name=entry.name,
            roles=entry.roles,
            size=_size(project, entry),
            ssh_keys=tuple(key for key in keys if key),
            host_key=secrets[f"ssh/host/{entry.name}"],
            host_key_public=public_ssh(secrets[f"ssh/host/{entry.name}"]),
            options=entry.options,
        )
        for entry in project.inventory.machines
    ]


def _size(project: Project, entry: MachineEntry) -> Size:
    """What the machine's roles need together."""
    return total(project.stack.sizes.get(role, SIZES[role]) for role in entry.roles)


def roles(project: Project) -> dict[str, tuple[str, ...]]:
    """role -> names of the machines that play it."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in project.inventory.machines:
        for role in entry.roles:
            found[role] = (*found.get(role, ()), entry.name)
    return found


def missing(specs: Sequence[MachineSpec], existing: Mapping[str, Machine]) -> list[Change]:
    """Machines to create or to start. A machine that exists and is not wanted is reported, never deleted."""
    changes = []
    for spec in specs:
        machine = existing.get(spec.name)
        wish = ", ".join(spec.roles)
        if machine is None:
            changes.append(Change(spec.name, "", "machine", spec.name, "create", wish))
        elif machine.status in ("stopped", "failed"):
            changes.append(Change(spec.name, "", "machine", spec.name, "start", machine.status))
    return changes


def unwanted(specs: Sequence[MachineSpec], existing: Mapping[str, Machine]) -> list[str]:
    wanted = {spec.name for spec in specs}
    return [name for name in existing if name not in wanted]


def destroyed(
    allowed: Sequence[str], specs: Sequence[MachineSpec], existing: Mapping[str, Machine]
) -> tuple[dict[str, Machine], list[str]]:
    """The machines that --allow-destroy names, and what to say about names that no machine has: a run that was
    broken off may have deleted them. Raises InputError for one that the inventory names."""
    for name in allowed:
        if name in {spec.name for spec in specs}:
            raise InputError(
                "choosing what to delete",
                f"{name} stands in the inventory",
                "take its entry out of the inventory first; deploy down deletes all machines",
            )
    extra = unwanted(specs, existing)
    others = [name for name in allowed if name not in extra]
    left = [f"--allow-destroy {name}: there is no such machine, so nothing is deleted" for name in others]
    machines = {name: existing[name] for name in extra if name in allowed and existing[name].ours}
    return machines, left


def delete(provider: Provider, machines: Mapping[str, Machine], journal: Journal, sink: Sink) -> None:
    """Delete machines, each with what was made for it; data volumes stay where the provider keeps them."""
    for name, machine in machines.items():
        sink(Event("machine", "delete machine", machine=name, status="start"))
        with intention(journal, "delete_machine", name, id=machine.id):
            provider.delete_machine(machine)
        sink(Event("machine", "machine deleted", machine=name, status="ok"))


def prepare(provider: Provider, sink: Sink) -> None:
    """Install what the provider needs on this computer, after saying what."""
    if isinstance(provider, Preparing) and (needs := list(provider.missing())):
        sink(Event("notice", f"this computer needs, and gets now: {', '.join(needs)}"))
        provider.prepare()


def placeholder(spec: MachineSpec) -> Machine:
    """Stands for a machine that does not exist yet, in a plan."""
    return Machine(
        spec.name,
        "",
        "absent",
        PLACEHOLDER,
        host_key_public=spec.host_key_public,
        type=spec.type,
        volume=bool(spec.volume),
    )


def create(
    provider: Provider,
    project: Project,
    specs: Sequence[MachineSpec],
    existing: Mapping[str, Machine],
    journal: Journal,
    sink: Sink,
) -> dict[str, Machine]:
    """Make what is missing and start what is stopped, several at a time. Returns every wanted machine by name.

    The intent is on disk before each call and the id after it; names are deterministic and create_machine is safe to
    repeat, so a run that was killed in between is continued by the next one. Raises the first machine's error, once
    what was under way for the others has ended.
    """
    todo = {change.name: change for change in missing(specs, existing)}
    pending = [intent for intent in journal.pending() if intent.call == "create_machine"]

    def settle(machine: Machine) -> None:
        """It was made; only the notes that say so are missing, one for each run that was killed."""
        for intent in pending:
            if intent.name == machine.name:
                journal.done(intent, id=machine.id)

    for spec in specs:
        if spec.name not in todo:
            settle(existing[spec.name])
    telling = threading.Lock()

    def tell(text: str, name: str, status: str = "", kind: str = "machine") -> None:
        with telling:
            sink(Event(kind, text, machine=name, status=status))

    def make(spec: MachineSpec) -> Machine:
        tell(f"{todo[spec.name].action} machine", spec.name, "start")
        with intention(journal, "create_machine", spec.name) as result:
            try:
                machine = provider.create_machine(project.deployment, spec)
            except DeployError as error:
                error.machine = error.machine or spec.name
                raise
            result["id"] = machine.id
        settle(machine)
        tell(f"machine at {machine.address}", spec.name, "ok")
        return machine

    at_once = min(AT_ONCE, provider.at_once) if isinstance(provider, Concurrent) else 1
    found = {**existing, **_each(make, [spec for spec in specs if spec.name in todo], at_once, tell)}
    return {spec.name: pinned(found[spec.name], spec) for spec in specs}


def _each(
    make: Callable[[MachineSpec], Machine],
    specs: Sequence[MachineSpec],
    at_once: int,
    tell: Callable[..., None],
) -> dict[str, Machine]:
    """Call `make` for each. After an error nothing more is begun, and what is under way is waited for."""
    if min(at_once, len(specs)) <= 1:
        return {spec.name: make(spec) for spec in specs}
    stop = threading.Event()

    def one(spec: MachineSpec) -> Machine | None:
        if stop.is_set():
            return None
        try:
            return make(spec)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(at_once) as pool:
        futures = {spec.name: pool.submit(one, spec) for spec in specs}
        try:
            wait(futures.values())
        except BaseException:
            stop.set()
            running = [name for name, future in futures.items() if future.running()]
            tell(f"first ends what is under way for {', '.join(running)}", "", kind="notice")
            raise
    failed = {name: error for name, future in futures.items() if (error := future.exception())}
    for name, error in list(failed.items())[1:]:
        tell(str(error), name, kind="warning")
    for error in failed.values():
        raise error
    return {name: machine for name, future in futures.items() if (machine := future.result())}


def pinned(machine: Machine, spec: MachineSpec) -> Machine:
    """The machine with the host key that we gave it, where the provider does not name another."""
    return machine if machine.host_key_public else replace(machine, host_key_public=spec.host_key_public)
