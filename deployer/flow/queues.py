"""`deploy queue`: mail and SMS that a restore brought back held, until somebody has looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployer.components.backups import actions
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Sink
from deployer.flow import provision
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session

KINDS = ("mail", "sms")
# Seconds; releasing hands each message to its program.
LONGEST = 600


def status(request: Request, sink: Sink) -> dict[str, Any]:
    """queues: machine and the fields of actions.Queue."""
    return _ask(request, sink, KINDS, release=False)


def release(request: Request, sink: Sink, kinds: Sequence[str]) -> dict[str, Any]:
    """Let go out what is held. kinds: of "mail", "sms". The queues as they are then."""
    return _ask(request, sink, kinds, release=True)


def _ask(request: Request, sink: Sink, kinds: Sequence[str], *, release: bool) -> dict[str, Any]:
    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        try:
            roles = provision.roles(session.project)
            machines = session.running()
            places: dict[str, list[str]] = {}
            for kind in kinds:
                for name in roles.get(kind, ()):
                    if name in machines:
                        places.setdefault(name, []).append(kind)
            if not places:
                raise InputError(
                    "looking for queues", f"no machine of the inventory plays {' or '.join(kinds)}"
                )
            session.connected(session.connect({name: machines[name] for name in places}, SSH), SSH)
            found = []
            for name, wanted in places.items():
                command = actions.release_queue(wanted) if release else actions.queue_status()
                answer = session.engine.run(name, command, timeout=LONGEST)
                body = actions.answer("asking for the queues", name, *answer)
                found += [
                    {"machine": name, **vars(one)} for one in actions.queues(body) if one.kind in wanted
                ]
            return {"deployment": str(session.project.deployment), "queues": found}
        except DeployError as error:
            session.mask.error(error)
            raise
