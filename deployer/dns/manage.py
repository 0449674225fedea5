"""Plan, apply and remove the stack's records at every vendor that serves one of its zones.

Nothing is kept between calls: each reads the zones anew, so a run that was killed is continued by the next one,
on whatever computer. Ownership is written before what it speaks of and taken back after it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deployer.core.component import DnsRecord
from deployer.core.errors import DeployError
from deployer.core.machine import Deployment
from deployer.core.model import DnsService
from deployer.core.plan import Change
from deployer.dns import owners, rrset, vendors
from deployer.dns.failures import Again, translated
from deployer.dns.merge import Decision, decide
from deployer.dns.rrset import Key, Rrset

# Times that a zone is read and planned anew when it changed under us or the network broke off.
TRIES = 4
# Characters of one value that a plan shows.
LONGEST = 90


@dataclass(frozen=True)
class Planned:
    """What shall change, or was changed. notes: what is left as it is and why; refused: of which sets.

    conflicts: others' records that stand in the way (nothing is applied then);
    failed: vendors that cannot be talked to, by "provider zone".
    """

    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    refused: frozenset[Key] = frozenset()
    conflicts: tuple[str, ...] = ()
    failed: Mapping[str, DeployError] = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """What every call needs to know. services: the inventory's; domain: the stack's; records: what it wants.

    takes: deployments (stack@inventory) whose records become ours, for a move.
    environment: where credentials are looked up; None is the process's own.
    """

    services: Sequence[DnsService]
    domain: str
    deployment: Deployment
    records: Sequence[DnsRecord] = ()
    takes: frozenset[str] = frozenset()
    environment: Mapping[str, str] | None = None


def plan(names: Names) -> Planned:
    """What `apply` would do. Raises DeployError when no vendor of a zone can be talked to."""
    return _everywhere(names, lambda zone: zone.planned())


def apply(names: Names) -> Planned:
    """Make the zones what the records say; what was done. Raises DeployError, also for conflicts, before anything is
    changed at that vendor."""
    return _everywhere(names, lambda zone: zone.applied())


def planned_removal(names: Names) -> Planned:
    """What `remove` would do."""
    return _everywhere(names, lambda zone: zone.planned(removing=True))


def remove(names: Names) -> Planned:
    """Take away every record that is ours and nobody else's."""
    return _everywhere(names, lambda zone: zone.applied(removing=True))


def _everywhere(names: Names, work: Callable[[_Zone], Planned]) -> Planned:
    """All vendors side by side. One of two that serve a zone may be dead: the other must still be told."""

    def one(service: DnsService) -> tuple[str, Planned | DeployError]:
        label = f"{service.provider} {service.zone or names.domain}"
        try:
            return label, _persistently(names, service, work)
        except DeployError as error:
            return label, error

    if not names.services:
        return Planned()
    with ThreadPoolExecutor(len(names.services)) as pool:
        answers = list(pool.map(one, names.services))
    failed = {label: answer for label, answer in answers if isinstance(answer, DeployError)}
    good = [answer for _, answer in answers if isinstance(answer, Planned)]
    # Whoever serves another zone is no substitute. Without `zone` it is one that the domain lies in.
    alive = {
        service.zone
        for service, (_, answer) in zip(names.services, answers, strict=True)
        if isinstance(answer, Planned)
    }
    for service, (_, answer) in zip(names.services, answers, strict=True):
        alike = service.zone in alive or "" in alive or (not service.zone and alive)
        if isinstance(answer, DeployError) and not alike:
            raise answer
    return Planned(
        tuple(change for item in good for change in item.changes),
        tuple(dict.fromkeys(note for item in good for note in item.notes)),
        frozenset(key for item in good for key in item.refused),
        tuple(dict.fromkeys(text for item in good for text in item.conflicts)),
        failed,
    )


def _persistently(names: Names, service: DnsService, work: Callable[[_Zone], Planned]) -> Planned:
    for number in range(1, TRIES + 1):
        try:
            with translated(service.provider, service.zone):
                return work(_Zone(names, service))
        except Again as again:
            if number == TRIES:
                raise again.error from again
            time.sleep(number * random.uniform(0.2, 0.6))
    raise AssertionError("not reached")


class _Zone:
    """One zone at one vendor, for one reading."""

    def __init__(self, names: Names, service: DnsService) -> None:
        self.names, self.service = names, service
        self.provider = vendors.make(service, names.environment)
        self.name = service.zone or self._find()
        self.exact = isinstance(self.provider, vendors.Exact)

    def _find(self) -> str:
        """The longest zone of the vendor that the domain lies in."""
        with translated(self.service.provider, ""):
            there = set(vendors.zones_of(self.provider, self.names.domain))
        labels = self.names.domain.split(".")
        for first in range(len(labels) - 1):
            if (name := ".".join(labels[first:])) in there:
                return name
        raise DeployError(
            f"looking for the zone of {self.names.domain} at {self.service.provider}",
            "there is none",
            f"make it there and have it delegated, or write `zone:`; it has: {', '.join(sorted(there)[:5]) or 'none'}",
        )

    def _wanted(self) -> dict[Key, Rrset]:
        """Records of this zone, and of no longer one that another entry names."""
        longer = [service.zone for service in self.names.services if service.zone.endswith("." + self.name)]
        found = rrset.wanted(self.names.records)
        return {
            key: value
            for key, value in found.items()
            if _within(key[0], self.name) and not any(_within(key[0], zone) for zone in longer)
        }

    def _plan(self, removing: bool) -> tuple[Any, Decision]:
        """octoDNS's plan (None: nothing to do), and what it was made from."""
        from deployer.dns import octo

        home = f"{owners.LABEL}.{self.names.domain if _within(self.names.domain, self.name) else self.name}"
        ours = octo.Ours(
            self.name,
            {} if removing else self._wanted(),
            lambda view, wanted: decide(
                self.name,
                view,
                wanted,
                str(self.names.deployment),
                home,
                takes=self.names.takes,
                exact=self.exact,
            ),
        )
        found = octo.plan(self.provider, self.name, ours)
        if not ours.exists:
            raise DeployError(
                f"looking for the zone {self.name} at {self.service.provider}",
                "there is none",
                "make it there and have it delegated to its name servers; deploy never makes one",
            )
        return found, ours.decision

    def planned(self, removing: bool = False) -> Planned:
        _, decision = self._plan(removing)
        return self._told(decision)

    def applied(self, removing: bool = False) -> Planned:
        from deployer.dns import octo

        found, decision = self._plan(removing)
        told = self._told(decision)
        if decision.conflicts:
            raise DeployError(
                f"changing the zone {self.name} at {self.service.provider}",
                f"{len(decision.conflicts)} name(s) of the stack are taken; nothing was changed there",
                "remove those records or choose another domain; those of another deployment go with its deploy down",
                detail="\n".join(decision.conflicts),
            )
        if found:
            octo.carry_out(self.provider, found, decision, None if removing else self.service.limit)
        return told

    def _told(self, decision: Decision) -> Planned:
        """The changes as rows of a plan. The ownership records are not worth a row each."""
        view = decision.view
        changes = [
            _row(self.service.provider, view.get(key), after, key) for key, after in decision.after.items()
        ]
        if decision.owners and not changes:
            key = next(iter(decision.owners))
            changes.append(_row(self.service.provider, view.get(key), decision.owners[key], key))
        notes = [f"{self.service.provider}: {note}" for note in decision.notes]
        conflicts = [f"{self.service.provider}: {text}" for text in decision.conflicts]
        return Planned(tuple(changes), tuple(notes), frozenset(decision.refused), tuple(conflicts))


def _row(provider: str, before: Rrset | None, after: Rrset | None, key: Key) -> Change:
    name = f"{key[0]} {key[1]}"
    if before is None and after:
        return Change("", "dns", "dns", name, "create", f"{_listed(after.values)} at {provider}")
    if before and after is None:
        return Change("", "dns", "dns", name, "remove", f"{_listed(before.values)} at {provider}")
    assert before and after
    come = [f"+ {value}" for value in after.values if value not in before.values]
    go = [f"- {value}" for value in before.values if value not in after.values]
    ttl = [f"TTL {before.ttl} to {after.ttl}"] if before.ttl != after.ttl else []
    return Change("", "dns", "dns", name, "change", f"{_listed([*go, *come, *ttl])} at {provider}")


def _listed(values: Sequence[str]) -> str:
    """Values in a line; a key is recognized by its beginning."""
    return ", ".join(value if len(value) <= LONGEST else f"{value[:LONGEST]}..." for value in values)


def _within(name: str, zone: str) -> bool:
    return name == zone or name.endswith("." + zone)
