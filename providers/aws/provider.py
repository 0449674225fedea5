"""The provider's methods; see deployer.core.provider for what each one promises."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deployer.core.errors import DeployError
from deployer.core.machine import Deployment, Machine, MachineSpec
from deployer.core.provider import Offer, Resource
from providers import cloudinit
from providers.aws import (
    checking,
    drift,
    firewall,
    instances,
    leftovers,
    machines,
    network,
    prices,
    reverse,
    shown,
)
from providers.aws.account import Account
from providers.aws.errors import used_up
from providers.aws.parts import MACHINE, Parts, Thing, labels_of, read, system_volumes, tags
from providers.aws.settings import MACHINE_OPTIONS, Settings, bad, parse


def make(options: Mapping[str, object], deployment: Deployment) -> AwsProvider:
    """Raises InputError for options that it does not understand. Does not load boto3."""
    return AwsProvider(parse(options), deployment)


class AwsProvider:
    """EC2 instances of one region. Safe to kill and repeat at any point: tags are the truth."""

    name = "aws"
    at_once = 4

    def __init__(self, settings: Settings, deployment: Deployment) -> None:
        self.settings = settings
        self._deployment = deployment
        self._account = Account(settings)
        # Around the network that the deployment's machines share, so that two of them do not make it at the same time.
        self._sharing = threading.Lock()
        # What `check` could not find out, for the operator to know.
        self.remarks: tuple[str, ...] = ()

    def check(self) -> None:
        """Credentials, region, zone, image, and the account's limits as far as they may be read (else: remarks)."""
        self.remarks = tuple(checking.check(self._account, self._deployment))

    def list_machines(self, deployment: Deployment) -> Sequence[Machine]:
        """Also those of which only a part was made: "failed", so that they are finished or deleted."""
        parts = read(self._account, deployment.labels())
        return [machine for name in parts.names() if (machine := self._machine(name, parts))]

    def create_machine(self, deployment: Deployment, spec: MachineSpec) -> Machine:
        unknown = sorted(set(spec.options) - set(MACHINE_OPTIONS))
        if unknown:
            raise bad(
                unknown[0],
                f"a machine of provider aws does not know it ({', '.join(MACHINE_OPTIONS)})",
                spec.name,
            )
        parts = read(self._account, deployment.labels())
        mine = parts.of(spec.name)
        instance = next(iter(mine.instances), None)
        if instance is None:
            instance = self._make(deployment, spec, parts)
        else:
            instances.start(self._account, instance)
        self._attach_kept(spec, instance, mine)
        mine = read(self._account, deployment.labels()).of(spec.name)
        if not mine.instances:
            # Amazon's lists are late; what its answer said is as good.
            mine = replace(mine, instances=[instance])
        made = shown.machine(self.settings, spec.name, mine)
        status = "starting" if made.status == "stopped" else made.status
        return replace(made, status=status, host_key_public=spec.host_key_public)

    def delete_machine(self, machine: Machine) -> None:
        """With its address, interface and group, and with the network after the last one. Volumes with data stay."""
        deployment = Deployment(
            machine.labels.get("deploy-stack", self._deployment.stack),
            machine.labels.get("deploy-inventory", self._deployment.inventory),
        )
        if deployment != self._deployment:
            raise DeployError(
                "deleting the machine",
                f"{machine.id} belongs to {deployment}",
                "run this with the inventory of that deployment",
                machine=machine.name,
            )
        parts = read(self._account, deployment.labels())
        leftovers.delete_parts(self._account, parts.of(machine.name))
        left = read(self._account, deployment.labels())
        others = {tags(thing).get(MACHINE) for thing in (*left.instances, *left.interfaces, *left.groups)}
        if not others - {machine.name}:
            network.remove_all(self._account, left)

    def offers(self) -> Sequence[Offer]:
        """With system disk and address. Prices are a table's, about, where the Pricing API may not be asked."""
        return prices.offers(self._account)

    def volume_price(self, size: int) -> float:
        """Of gp3, about."""
        return prices.volume(self.settings.region, size)

    # --- Listing, Keeping, Mending, ReverseDns, ReverseDnsShown ---

    def resources(self) -> Sequence[Resource]:
        return leftovers.resources(self._account)

    def delete_resource(self, resource: Resource) -> None:
        leftovers.delete_resource(self._account, resource)

    def delete_data(self, deployment: Deployment) -> Sequence[str]:
        return leftovers.delete_data(self._account, deployment)

    def drift(self, machine: Machine, spec: MachineSpec) -> Sequence[str]:
        parts = read(self._account, self._deployment.labels())
        return drift.look(self._account, self._deployment, spec, parts)

    def mend(self, machine: Machine, spec: MachineSpec) -> None:
        parts = read(self._account, self._deployment.labels())
        drift.mend(self._account, self._deployment, spec, parts)

    def set_reverse_dns(self, machine: Machine, name: str) -> None:
        parts = read(self._account, self._deployment.labels())
        reverse.put(self._account, parts.of(machine.name), machine, name)

    def reverse_dns(self, machine: Machine) -> Mapping[str, str]:
        return reverse.names(self._account, machine)

    # --- steps of making ---

    def _machine(self, name: str, parts: Parts) -> Machine | None:
        mine = parts.of(name)
        network_of = {"vpcs": parts.vpcs, "gateways": parts.gateways}
        whole = replace(
            mine,
            **{
                key: [one for one in found if tags(one).get(MACHINE) == name]
                for key, found in network_of.items()
            },
        )
        return shown.machine(self.settings, name, whole) if name else None

    def _make(self, deployment: Deployment, spec: MachineSpec, parts: Parts) -> Thing:
        account = self._account
        mine = parts.of(spec.name)
        # First everything that can be wrong, while nothing has been made.
        wish = machines.wish(account, spec, self._kind(spec))
        kept = mine.data()
        zone = machines.choose_zone(self.settings, wish.zones, kept, wish.kind, spec.name)
        labels = labels_of(deployment, spec.name, spec.roles)
        with self._sharing:
            # Another machine's thread may have made it since.
            parts = read(account, deployment.labels())
            vpc, subnet = network.ensure(account, deployment, parts, spec.name, zone)
        if kept and kept[0]["AvailabilityZone"] != subnet["AvailabilityZone"]:
            raise DeployError(
                "making the machine",
                f"its kept volume {kept[0]['VolumeId']} is in {kept[0]['AvailabilityZone']}, the other machines are "
                f"in {subnet['AvailabilityZone']}",
                "copy it by a snapshot in Amazon's console, or restore from a backup after `deploy down`",
                machine=spec.name,
            )
        try:
            return self._run(spec, wish, labels, vpc, subnet, mine)
        except DeployError as error:
            if not used_up(error):
                raise
        # Deleted by hand, and Amazon still remembers its token: a new group begins a new generation.
        old = read(account, deployment.labels()).of(spec.name)
        leftovers.delete_parts(account, replace(old, addresses=[]))
        mine = read(account, deployment.labels()).of(spec.name)
        return self._run(spec, wish, labels, vpc, subnet, mine)

    def _run(
        self,
        spec: MachineSpec,
        wish: machines.Wish,
        labels: dict[str, str],
        vpc: Thing,
        subnet: Thing,
        mine: Parts,
    ) -> Thing:
        account = self._account
        group = firewall.ensure(account, labels, spec, vpc, mine.groups)
        own = machines.interface(account, labels, group, subnet, mine.interfaces)
        machines.address(account, labels, own, mine.addresses)
        new_volume = bool(spec.volume and not mine.data())
        return instances.run(
            account, labels, spec, cloudinit.user_data(spec), wish, group, own, new_volume=new_volume
        )

    def _kind(self, spec: MachineSpec) -> str:
        """The type that flow chose, or the inventory; else the cheapest that fits."""
        named = spec.type or spec.options.get("type", "")
        if not isinstance(named, str):
            raise bad("type", f"expected a type such as t3.small, found {named!r}", spec.name)
        if named:
            return named
        for offer in self.offers():
            if offer.cores >= spec.size.cores and offer.memory >= max(spec.size.memory, 0.5):
                return offer.name
        raise bad("size", f"no type of {self.settings.region} has {spec.size}", spec.name)

    def _attach_kept(self, spec: MachineSpec, instance: Thing, mine: Parts) -> None:
        """A volume that was kept from a former machine of this name."""
        if not spec.volume:
            return
        system = {str(volume) for volume in system_volumes(instance)}
        kept = [
            volume
            for volume in mine.volumes
            if volume["VolumeId"] not in system and not volume.get("Attachments")
        ]
        attached = [device for device in instance.get("BlockDeviceMappings", ()) if "Ebs" in device]
        if kept and len(attached) <= len(system):
            instances.attach(self._account, instance, kept[0])
