"""A move of the service from one deployment of a stack to another, as all operators know it: it stands in the bundle.

    moves/ID              the move, as JSON
    moves/ID/key/SIDE     the SSH key with which the machines of one side reach the other's; "old" or "new"
    moves/ID/replication  the password of the role that the standby reads with

While it is being prepared, the new side has the settings of the generation that it will open, and serves nothing. Once it
is live, the old one is its standby, until `deploy retire`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from deployer.core import generation
from deployer.core.component import Secret
from deployer.core.generation import Generation
from deployer.core.machine import Deployment, Machine

_MOVE = re.compile(r"moves/([0-9A-Za-z-]+)")
PREPARING, SETTLING, MOVED, ENDED = "preparing", "settling", "moved", "ended"
# Of a rehearsal, which no bundle knows of: the new side is a copy that is thrown away, and works with no generation.
REHEARSING = "rehearsing"
# The role that reads the stream, and the port on the standby's loopback that leads to the primary.
ROLE, PORT = "deploy_replication", 5499
SLOT = "deploy_standby"


@dataclass(frozen=True)
class Place:
    """A machine, as the other side reaches it. side: "old" or "new"; addresses: all that it may be seen with."""

    side: str
    name: str
    address: str
    internal: str
    port: int
    host_key: str
    roles: tuple[str, ...]
    addresses: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name among the machines of both sides, which may be called the same."""
        return f"{self.side}/{self.name}"

    @property
    def lead(self) -> bool:
        """Where the database is: it leads its side."""
        return "database" in self.roles


@dataclass(frozen=True)
class Move:
    """old, new: deployments, "stack@inventory". number: the generation that the new one opens. began: ISO 8601, UTC.

    phase: "preparing", "settling" (the new one is live, and what follows from that is not all done), "moved" (the old one
    is its standby), "ended".
    """

    id: str
    old: str
    new: str
    number: int
    began: str
    phase: str = PREPARING
    places: tuple[Place, ...] = ()

    def side(self, deployment: Deployment | str) -> str:
        """ "old", "new", or "" for a deployment that has no part in it."""
        return {self.old: "old", self.new: "new"}.get(str(deployment), "")

    def of(self, side: str) -> tuple[Place, ...]:
        return tuple(place for place in self.places if place.side == side)

    def player(self, side: str, role: str) -> Place | None:
        """The machine of a side that plays a role."""
        return next((place for place in self.of(side) if role in place.roles), None)

    @property
    def entry(self) -> str:
        """Name of its entry in the secrets bundle."""
        return f"moves/{self.id}"

    @property
    def password(self) -> Secret:
        return Secret(f"{self.entry}/replication")

    def key(self, side: str) -> Secret:
        return Secret(f"{self.entry}/key/{side}", "ssh")

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Move:
        body = json.loads(text)
        places = tuple(
            Place(**{**one, "roles": tuple(one["roles"]), "addresses": tuple(one["addresses"])})
            for one in body.pop("places")
        )
        return cls(**body, places=places)

    def at(self, places: Sequence[Place]) -> Move:
        return replace(self, places=tuple(places))


def place(side: str, machine: Machine, roles: Sequence[str]) -> Place:
    """A machine of a provider as a place of a move."""
    seen = (machine.address, machine.address6, machine.private_address)
    return Place(
        side,
        machine.name,
        machine.address,
        machine.internal,
        machine.ssh_port,
        machine.host_key_public,
        tuple(roles),
        tuple(dict.fromkeys(address for address in seen if address)),
    )


def newest(secrets: Mapping[str, str]) -> Move | None:
    """The move that is under way, or that could be taken back; None when there is none."""
    found = [Move.from_json(secrets[name]) for name in sorted(secrets) if _MOVE.fullmatch(name)]
    return found[-1] if found and found[-1].phase != ENDED else None


def concerning(secrets: Mapping[str, str], deployment: Deployment | str) -> Move | None:
    """The same, when this deployment has a part in it."""
    move = newest(secrets)
    return move if move and move.side(deployment) else None


def standing_by(secrets: Mapping[str, str], deployment: Deployment | str) -> bool:
    """The deployment is to take over, and serves nothing yet."""
    move = newest(secrets)
    return move is not None and move.phase == PREPARING and move.new == str(deployment)


def acting(secrets: Mapping[str, str], deployment: Deployment | str) -> Generation | None:
    """The generation that a deployment's machines work with: the one that it holds, or that it is about to open."""
    move = newest(secrets)
    if move and move.phase == PREPARING and move.new == str(deployment):
        return Generation(move.number, move.new, move.began, move.id)
    return generation.held(secrets, str(deployment))
