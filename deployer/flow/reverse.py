"""Reverse names: the mail machine's addresses lead back to mail.DOMAIN, where the machines' vendor can set that."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.machine import Machine
from deployer.core.plan import Change
from deployer.core.provider import ReverseDns, ReverseDnsShown
from deployer.flow import provision

if TYPE_CHECKING:
    from deployer.flow.session import Session

# Seconds after a name was set during which resolvers may still have the old one: until then they are not believed.
REMEMBERED = 3600


@dataclass(frozen=True)
class Reverse:
    """changes: one for each address with another name; seen: machines that were looked at; warnings: why one was not."""

    changes: tuple[Change, ...] = ()
    seen: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    def right(self, machine: str) -> bool:
        return machine in self.seen and not any(change.machine == machine for change in self.changes)


def look(session: Session, machines: Mapping[str, Machine], names: Collection[str]) -> Reverse:
    """What the addresses of those of the machines `names` that send mail answer with, as their vendor says it, else as
    DNS does. Changes nothing."""
    provider = session.provider
    if not isinstance(provider, ReverseDns):
        return Reverse()
    changes, seen, warnings = [], set(), []
    for machine in _mailing(session, machines):
        if machine.name not in names or not machine.id:
            continue
        try:
            present = _present(session, machine)
        except DeployError as error:
            warnings.append(f"{machine.name}: its reverse name could not be looked at: {error.why}")
            continue
        if present is None:
            continue
        seen.add(machine.name)
        changes += list(_differing(machine, present, _wanted(session)))
    return Reverse(tuple(changes), frozenset(seen), tuple(warnings))


def _present(session: Session, machine: Machine) -> Mapping[str, str] | None:
    """Address -> name; None where nobody who knows could be asked."""
    provider = session.provider
    if isinstance(provider, ReverseDnsShown):
        return provider.reverse_dns(machine)
    if time.time() - _set_at(session) < REMEMBERED:
        return None
    from deployer.probes.names import Resolver

    resolver = Resolver(session.project.inventory.doctor.resolvers)
    answers = {one: resolver.reverse(one) for one in (machine.address, machine.address6) if one}
    if any(answer.why for answer in answers.values()):
        return None
    # Of several names the first that is wrong.
    wanted = _wanted(session)
    return {
        address: next((name for name in answer.values if not _same(name, wanted)), "".join(answer.values[:1]))
        for address, answer in answers.items()
    }


def _differing(machine: Machine, present: Mapping[str, str], wanted: str) -> Iterator[Change]:
    for address, found in present.items():
        if not _same(found, wanted):
            detail = f"{found.rstrip('.') or 'none'} -> {wanted}"
            yield Change(machine.name, "", "dns", f"reverse name of {address}", "change", detail)


def _same(one: str, other: str) -> bool:
    return one.rstrip(".").lower() == other.rstrip(".").lower()


def put(session: Session, machines: Mapping[str, Machine], found: Reverse) -> list[str]:
    """Set what `look` found different, and of machines that it did not look at what was not set before.

    Called after the forward records are there, since vendors look. A vendor that refuses is a warning, which is
    returned: mail leaves, and some will not take it.
    """
    provider = session.provider
    if not isinstance(provider, ReverseDns):
        return []
    name, known, refused = _wanted(session), _known(session), []
    for machine in _mailing(session, machines):
        wish = [machine.id, machine.address, machine.address6, name]
        if found.right(machine.name) or (machine.name not in found.seen and known.get(machine.name) == wish):
            continue
        try:
            provider.set_reverse_dns(machine, name)
        except DeployError as error:
            refused.append(f"reverse name of {machine.name} is not set: {error.why}; the next up tries again")
            continue
        session.sink(Event("machine", f"reverse name {name}", machine=machine.name, status="ok"))
        known[machine.name] = wish
        _note(session, known)
    return refused


def _mailing(session: Session, machines: Mapping[str, Machine]) -> list[Machine]:
    return [machines[name] for name in provision.roles(session.project).get("mail", ()) if name in machines]


def _wanted(session: Session) -> str:
    from deployer.components.mail_relay.layout import mail_host

    return mail_host(session.project)


# --- what was set from this computer, for what nobody tells ---


def _path(session: Session) -> Path:
    return session.project.state_dir / "reverse.json"


def _known(session: Session) -> dict[str, object]:
    try:
        found = json.loads(_path(session).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _set_at(session: Session) -> float:
    try:
        return _path(session).stat().st_mtime
    except OSError:
        return 0.0


def _note(session: Session, known: Mapping[str, object]) -> None:
    from deployer.state.files import make_private, write_atomically

    make_private(session.project.state_dir)
    write_atomically(_path(session), json.dumps(known))
