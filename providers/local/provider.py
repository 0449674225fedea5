"""The provider's methods; see deployer.core.provider for what each one promises."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from deployer.core.errors import DeployError
from deployer.core.machine import Deployment, Machine, MachineSpec
from deployer.core.provider import Offer
from providers.local import cache, host, image, mirror, network, processes, seed
from providers.local.records import Record, Records
from providers.local.settings import MACHINE_OPTIONS, Settings, bad, flag, parse


def make(options: Mapping[str, object], deployment: Deployment) -> LocalProvider:
    """Raises InputError for options that it does not understand."""
    return LocalProvider(parse(options), deployment)


class LocalProvider:
    """Machines on the operator's own computer. Safe to kill and repeat at any point."""

    name = "local"

    def __init__(self, settings: Settings, deployment: Deployment) -> None:
        self.settings = settings
        self._deployment = deployment
        self._records = Records(settings)

    def check(self) -> None:
        """Root on Linux, and a subnet that this computer does not use for something else."""
        host.require_root()
        if shutil.which("ip", path=host.SEARCH) and (interface := network.clash(self.settings)):
            raise bad("subnet", f"{self.settings.subnet} is already used by {interface} of this computer")
        for layer in self.settings.layers:
            if not layer.is_dir():
                raise bad("layer", f"there is no folder {layer}")

    def missing(self) -> Sequence[str]:
        host.require_root()
        wanted = host.missing_packages()
        if not image.path(self.settings, image.recipe()).is_dir():
            wanted.append("the base image (about 250 MB, made once)")
        return wanted

    def prepare(self) -> None:
        host.require_root()
        if packages := host.missing_packages():
            host.install(packages)
        image.build(self.settings, image.recipe(), self._layers_in_use())

    def list_machines(self, deployment: Deployment) -> Sequence[Machine]:
        host.require_root()
        return [
            self._machine(record) for record in self._records.all() if record.labels == deployment.labels()
        ]

    def create_machine(self, deployment: Deployment, spec: MachineSpec) -> Machine:
        host.require_root()
        with self._lock(f"making the machine {spec.name}"):
            record = self._records.load(spec.name)
            if record:
                _refuse_foreign(record, deployment)
            if record and record.state == "deleting":
                processes.stop(record.name, self._records.of(record.name), self.settings)
                self._remove(record)
                record = None
            record = record or self._reserve(deployment, spec)
            network.ensure(self.settings, (*self.settings.reach, *mirror.proxy_ways(mirror.proxies())))
            if record.state == "creating":
                record = self._write_disk(record, spec)
            self._start(record)
            return self._machine(record)

    def delete_machine(self, machine: Machine) -> None:
        host.require_root()
        with self._lock(f"deleting the machine {machine.name}"):
            record = self._records.load(machine.name)
            if record:
                _refuse_foreign(record, self._deployment)
                record = self._records.mark(record, "deleting")
            elif not self._records.all():
                network.remove(self.settings)
        if record:
            # Outside of the lock, as a shutdown takes a while and other machines go at the same time.
            processes.stop(record.name, self._records.of(record.name), self.settings)
            with self._lock(f"deleting the machine {machine.name}"):
                self._remove(record)

    def stop_machine(self, machine: Machine) -> None:
        """Shut it down and keep it; create_machine starts it again."""
        host.require_root()
        processes.stop(machine.name, self._records.of(machine.name), self.settings)

    def offers(self) -> Sequence[Offer]:
        """This computer, as it is; its machines share it."""
        existing = next(
            path for path in (self.settings.state_dir, *self.settings.state_dir.parents) if path.exists()
        )
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        free = shutil.disk_usage(existing).free
        return [Offer("this-computer", os.cpu_count() or 1, round(memory / (1 << 30), 1), free >> 30, 0)]

    # --- steps of making and removing; all under the lock ---

    def _lock(self, what: str) -> AbstractContextManager[int]:
        return host.lock(self.settings.state_dir / "lock", what, timeout=180)

    def _reserve(self, deployment: Deployment, spec: MachineSpec) -> Record:
        """Write the record, before anything exists that would have to be removed."""
        unknown = sorted(set(spec.options) - set(MACHINE_OPTIONS))
        if unknown:
            raise bad(
                unknown[0], f"a machine of provider local does not know it ({', '.join(MACHINE_OPTIONS)})"
            )
        base = image.path(self.settings, image.recipe())
        if not base.is_dir():
            raise DeployError(
                "making a local machine",
                "the base image is missing",
                "run `deploy up` again",
                machine=spec.name,
            )
        self._register()
        address, address6 = self._records.free_addresses(network.has_ipv6())
        return self._records.save(
            Record(
                name=spec.name,
                labels=deployment.labels(),
                address=address,
                address6=address6,
                lower=[str(layer) for layer in (*self.settings.layers, base)],
                nesting=flag(spec.options, "nesting", self.settings.nesting),
            )
        )

    def _register(self) -> None:
        """Note beside the shared images that this state folder has machines made of them."""
        users = self.settings.shared_dir / "users"
        users.mkdir(parents=True, exist_ok=True)
        state = str(self.settings.state_dir)
        host.write_atomically(users / hashlib.sha256(state.encode()).hexdigest()[:16], state)

    def _layers_in_use(self) -> frozenset[Path]:
        """Layers of all machines of all instances on this computer, whether they run or not."""
        found = set()
        for user in (self.settings.shared_dir / "users").glob("[!.]*"):
            folder = Path(user.read_text(encoding="utf-8"))
            records = Records(replace(self.settings, state_dir=folder)).all()
            found |= {Path(layer) for record in records for layer in record.lower}
            if not folder.exists():
                user.unlink(missing_ok=True)
        return frozenset(found)

    def _write_disk(self, record: Record, spec: MachineSpec) -> Record:
        """Make the disk of a machine that never ran."""
        folder = self._records.of(record.name)
        # A killed attempt may have left parts of it.
        host.remove_tree(folder, record.name)
        folder.mkdir(mode=0o700)
        others = [item for item in self._records.all() if item.name != record.name]
        for other in others:
            cache.collect(self.settings, self._records.of(other.name) / "upper")
        cache.bound(
            self.settings, idle=not any(processes.runs(self._records.of(item.name)) for item in others)
        )
        cache.fill(self.settings, folder / "upper")
        self._mount(record)
        public = seed.write(folder / "root", record, spec, self.settings)
        return self._records.save(replace(record, state="made", host_key_public=public))

    def _mount(self, record: Record) -> None:
        folder = self._records.of(record.name)
        if str(folder / "root") in host.mounts_below(folder):
            return
        for part in ("upper", "work", "root", "containers"):
            (folder / part).mkdir(exist_ok=True, mode=0o755)
        options = f"lowerdir={':'.join(record.lower)},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        command = ["mount", "-t", "overlay", "overlay", "-o", options, str(folder / "root")]
        host.run("mounting the disk", command, machine=record.name)

    def _start(self, record: Record) -> None:
        folder = self._records.of(record.name)
        processes.trim_console(folder)
        if not processes.runs(folder):
            self._mount(record)
            seed.write_resolvers(folder / "root", self.settings)
            cache.uv(self.settings).mkdir(parents=True, exist_ok=True)
            processes.start(record.name, folder, self.settings, record.nesting)

    def _remove(self, record: Record) -> None:
        """Remove all that belongs to the machine; its record last, so that a killed removal is continued."""
        folder = self._records.of(record.name)
        host.unmount_below(folder, record.name)
        cache.collect(self.settings, folder / "upper")
        host.remove_tree(folder, record.name)
        if all(other.name == record.name for other in self._records.all()):
            network.remove(self.settings)
        self._records.path(record.name).unlink()

    def _machine(self, record: Record) -> Machine:
        running = record.state == "made" and processes.runs(self._records.of(record.name))
        return Machine(
            name=record.name,
            id=f"{self.settings.bridge}/{record.name}",
            status="running" if running else "stopped",
            address=record.address,
            address6=record.address6,
            host_key_public=record.host_key_public,
            labels=record.labels,
        )


def _refuse_foreign(record: Record, deployment: Deployment) -> None:
    if record.labels != deployment.labels():
        raise DeployError(
            "looking for the machine on this computer",
            f"a local machine of that name belongs to {record.labels}",
            "rename one of them, or set another `bridge`, `subnet` and `state_dir` in the inventory",
            machine=record.name,
        )
