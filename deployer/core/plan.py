"""The difference between what is wanted and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

Kind = Literal[
    "machine",
    "volume",
    "firewall",
    "package",
    "user",
    "directory",
    "file",
    "unit",
    "step",
    "restart",
    "reload",
    "dns",
]
Action = Literal["create", "change", "remove", "run", "start", "stop", "restart", "reload"]


@dataclass(frozen=True)
class Change:
    """One thing that `up` would do. name: the path, package, unit ...; detail: why, or what differs (never a secret).

    diff: of a file's text, in unified form with secrets masked, where somebody asked for it.
    """

    machine: str
    component: str
    kind: Kind
    name: str
    action: Action
    detail: str = ""
    diff: str = field(default="", repr=False)

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.action} {self.kind} {self.name}{detail}"

    def to_json(self) -> dict[str, str]:
        """All fields; without `diff` where there is none."""
        full = asdict(self)
        if not self.diff:
            del full["diff"]
        return full


@dataclass(frozen=True)
class Place:
    """A machine as the plan shows it. state: "exists", "create", "start", "remove" or "unwanted".

    price: a month, with its volume, in `currency`; 0 where it costs nothing or nobody says. approximate: it is about
    that (Offer.approximate).
    volume: GiB of a data volume to be made; 0 for none, or where it exists. openings: "443/tcp" and the like.
    """

    name: str
    state: str
    roles: tuple[str, ...] = ()
    type: str = ""
    address: str = ""
    volume: int = 0
    price: float = 0.0
    currency: str = ""
    openings: tuple[str, ...] = ()
    approximate: bool = False


@dataclass(frozen=True)
class Plan:
    """All changes, in the order in which they would be made; and the machines, as they would be then."""

    changes: tuple[Change, ...] = ()
    # Why the deployment would be degraded, for the operator.
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    machines: tuple[Place, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.changes

    @property
    def cost(self) -> Mapping[str, float]:
        """A month of all machines that would be there then, by currency."""
        found: dict[str, float] = {}
        for place in self.machines:
            if place.price and place.state != "remove":
                found[place.currency] = round(found.get(place.currency, 0.0) + place.price, 2)
        return found

    @property
    def approximate(self) -> bool:
        """The cost is about that, because a part of it is."""
        return any(place.approximate for place in self.machines if place.price and place.state != "remove")

    def to_json(self) -> dict[str, object]:
        return {
            "empty": self.empty,
            "changes": [change.to_json() for change in self.changes],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "machines": [asdict(place) for place in self.machines],
            "cost": dict(self.cost),
            "approximate": self.approximate,
        }
