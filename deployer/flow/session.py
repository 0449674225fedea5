"""One run over one deployment: project, secrets, machines, engine. Every verb that touches machines uses it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deployer.core.component import ComponentSpec, Context
from deployer.core.errors import DeployError, InputError, UnreachableError
from deployer.core.events import Event, Sink
from deployer.core.machine import Facts, Machine, MachineSpec
from deployer.core.model import Project
from deployer.core.provider import Provider
from deployer.flow import generations, provision, registry
from deployer.flow.client import Engine
from deployer.flow.masking import Mask
from deployer.flow.request import Request
from deployer.flow.secrets import former, open_bundle
from deployer.flow.wanted import Wanted, build

# Seconds for SSH to answer: on a machine that should be up, and on one that was just made.
SSH = 20
SSH_NEW = 120


@dataclass
class Session:
    """An opened project. `close()` ends the engine; use it as a context manager."""

    request: Request
    sink: Sink
    engine: Engine
    project: Project
    secrets: Mapping[str, str]
    provider: Provider
    mask: Mask
    # A restore takes the names of the deployment whose place it takes, before it is live itself.
    taking: frozenset[str] = frozenset()
    # This run has asked the repositories who is live.
    asked_claims: bool = False

    @property
    def takes(self) -> frozenset[str]:
        """Deployments whose names become this one's: those that were live before it."""
        from deployer.core import generation

        own = str(self.project.deployment)
        former = generation.known(self.secrets) if generation.held(self.secrets, own) else []
        return (self.taking | {one.deployment for one in former}) - {own}

    @classmethod
    def open(
        cls,
        request: Request,
        sink: Sink,
        *,
        make_secrets: bool,
        draft: bool = False,
        vendors: bool = True,
        change: Callable[[Project], Project] | None = None,
    ) -> Session:
        """Start the engine, then read the project while it imports.

        make_secrets: make what the bundle lacks; draft: make it in memory only; without either there must be a bundle.
        vendors: False for verbs that need no vendor's password, so that an unset variable does not stop them.
        change: what to make of the project that was read, for a copy of it under another name.
        Raises InputError.
        """
        from deployer.project import load

        mask = Mask()
        masked = mask.sink(sink)
        engine = Engine(masked, debug=request.debug)
        try:
            project = load(
                request.root,
                request.provider,
                request.inventory_file,
                request.app,
                options=registry.provider_options,
                expand=vendors,
            )
            if change or request.as_name:
                project = change(project) if change else renamed(project, request.as_name)
            secrets, notices = open_bundle(project, request, make=make_secrets, draft=draft)
            if not make_secrets:
                secrets = generations.completed(project, secrets, draft=draft)
            mask.learn(secrets.values(), project)
            for notice in notices:
                masked(Event("notice", notice))
            provider = registry.provider(project, trust_first=request.trust_first)
        except BaseException:
            engine.close()
            raise
        return cls(request, masked, engine, project, secrets, provider, mask)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.engine.close()

    # --- machines ---

    def machine_specs(self) -> list[MachineSpec]:
        return provision.machine_specs(self.project, self.secrets)

    def existing(self) -> dict[str, Machine]:
        """Machines that carry our label, with the host key that we know each by."""
        specs = {spec.name: spec for spec in self.machine_specs()}
        return {
            machine.name: provision.pinned(machine, specs[machine.name]) if machine.name in specs else machine
            for machine in self.provider.list_machines(self.project.deployment)
        }

    def running(self) -> dict[str, Machine]:
        """The wanted machines that exist; raises DeployError when there is none."""
        wanted = {spec.name for spec in self.machine_specs()}
        found = {name: machine for name, machine in self.existing().items() if name in wanted}
        if not found:
            raise DeployError(
                f"looking for {self.project.deployment}",
                f"no machine of it exists at {self.project.inventory.provider}",
                f"make it: deploy up --provider {self.project.inventory.name}",
            )
        return found

    def connect(self, machines: Mapping[str, Machine], timeout: float) -> Future[Any]:
        """Start connecting to all machines; give the future to `connected`."""
        return self.engine.send(
            "connect",
            machines=[
                {"name": m.name, "address": m.address, "port": m.ssh_port, "user": m.ssh_user}
                for m in machines.values()
            ],
            known_hosts=[str(path) for path in self._known_hosts_in_turn(machines)],
            # After a rotation machines know the former key until they were brought up to date.
            keys=former(self.secrets, "ssh/deploy"),
            # On a machine that somebody else installed, the operator's own key opens the door the first time.
            agent=self.project.inventory.provider == "ssh",
            key_files=self._own_keys(),
            timeout=timeout,
            new=timeout >= SSH_NEW,
        )

    def _own_keys(self) -> list[str]:
        if self.project.inventory.provider != "ssh":
            return []
        named = self.project.inventory.options.get("ssh_key")
        paths = [Path(str(named)).expanduser()] if named else sorted(Path.home().glob(".ssh/id_*"))
        return [str(path) for path in paths if path.is_file() and path.suffix != ".pub"]

    def known_hosts(self, machines: Mapping[str, Machine]) -> Path:
        """A file with every host key that the machines may show, for ssh(1)."""
        from deployer.state import known_hosts

        pinned = [(m.address, m.ssh_port, key) for m in machines.values() for key in self._host_keys(m)]
        return known_hosts.write(self.project.state_dir, pinned)

    def _known_hosts_in_turn(self, machines: Mapping[str, Machine]) -> list[Path]:
        """The same for paramiko, which compares with one key of a kind only: a file for each rank of key."""
        from deployer.state import known_hosts

        keys = [(m.address, m.ssh_port, self._host_keys(m)) for m in machines.values()]
        return [
            known_hosts.write(
                self.project.state_dir,
                [(address, port, own[min(rank, len(own) - 1)]) for address, port, own in keys],
                f"known_hosts.{rank + 1}",
            )
            for rank in range(max(len(own) for _, _, own in keys))
        ]

    def _host_keys(self, machine: Machine) -> list[str]:
        """The key that the machine was made with, and on machines of ours the one that it gets and the one it had."""
        from deployer.core.keytext import public_ssh

        keys = former(self.secrets, f"ssh/host/{machine.name}") if machine.ours else []
        given = [public_ssh(key) for key in keys]
        return list(dict.fromkeys([*given, machine.host_key_public]))

    def connected(self, future: Future[Any], timeout: float) -> None:
        """Wait for `connect`. Raises UnreachableError saying which machine failed and how."""
        for name, failure in future.result(timeout + 30).items():
            if failure:
                raise unreachable(name, failure, timeout)

    def trusted_ca(self) -> str:
        """PEM certificates that sign our public names, besides those that this computer trusts."""
        from deployer.core.keytext import split_pem

        return self.project.inventory.acme.trusted_ca + split_pem(self.secrets["pki/ca"])[1]

    # --- what is wanted ---

    def context(self, machine: Machine, machines: Mapping[str, Machine], facts: Facts) -> Context:
        return Context(self.project, machine, machines, provision.roles(self.project), self.secrets, facts)

    def specs(
        self, machines: Mapping[str, Machine], facts: Mapping[str, Facts]
    ) -> dict[str, list[ComponentSpec]]:
        return {
            name: registry.specs(self.context(machine, machines, facts.get(name, Facts())))
            for name, machine in machines.items()
        }

    def wanted(self, specs: Mapping[str, list[ComponentSpec]]) -> dict[str, Wanted]:
        return {name: build(name, specs[name], self.project.root) for name in specs}


def renamed(project: Project, name: str) -> Project:
    """The same stack at the same inventory as a deployment of another name, beside one that is there: stack@name.
    Machines that the inventory does not name by itself get the name too. Raises InputError."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
        raise InputError("reading --as", f'"{name}" is no name', "use small letters, digits and hyphens")
    stack = project.stack.name
    machines = tuple(
        replace(entry, name=f"{stack}-{name}-{entry.name.removeprefix(stack + '-')}")
        for entry in project.inventory.machines
    )
    return replace(project, inventory=replace(project.inventory, name=name, machines=machines))


def unreachable(name: str, failure: Mapping[str, str], timeout: float) -> UnreachableError:
    """The error for a machine that `connect` could not reach. failure: what it answered."""
    kind, why = failure.get("kind"), failure["why"]
    if kind == "hostkey":
        return UnreachableError(
            "connecting",
            f"the machine shows another SSH host key than the one we know ({why})",
            "do not go on before you know why: it was reinstalled, or somebody stands in between",
            machine=name,
        )
    if kind == "auth":
        return UnreachableError(
            "connecting",
            f"the machine refuses our SSH keys ({why})",
            "see whether your key is in its /root/.ssh/authorized_keys (for bare metal: ssh root@ADDRESS must work)",
            machine=name,
        )
    return UnreachableError(
        "connecting",
        f"no SSH within {timeout:g} s ({why})",
        "see whether the machine runs and port 22 is open to you, then run this again",
        machine=name,
    )


def single(
    machines: Mapping[str, Machine], wanted: str | None, roles: Mapping[str, tuple[str, ...]]
) -> Machine:
    """The machine that the operator means: by name, by role, or the only one. Raises InputError."""
    if wanted is None:
        if len(machines) == 1:
            return next(iter(machines.values()))
        raise InputError(
            "choosing a machine", f"there are {len(machines)}", f"name one: {', '.join(machines)}"
        )
    for name in (wanted, *roles.get(wanted, ())):
        if name in machines:
            return machines[name]
    known = ", ".join([*machines, *roles])
    raise InputError("choosing a machine", f"no machine or role {wanted!r}", f"known: {known}")
