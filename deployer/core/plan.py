"""The difference between what is wanted and what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["machine", "package", "user", "directory", "file", "unit", "step", "restart", "reload", "dns"]
Action = Literal["create", "change", "remove", "run", "start", "stop", "restart", "reload"]


@dataclass(frozen=True)
class Change:
    """One thing that `up` would do. name: the path, package, unit ...; detail: why, or what differs (never a secret)."""

    machine: str
    component: str
    kind: Kind
    name: str
    action: Action
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.action} {self.kind} {self.name}{detail}"

    def to_json(self) -> dict[str, str]:
        return {
            "machine": self.machine,
            "component": self.component,
            "kind": self.kind,
            "name": self.name,
            "action": self.action,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Plan:
    """All changes, in the order in which they would be made."""

    changes: tuple[Change, ...] = ()
    # Why the deployment would be degraded, for the operator.
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def empty(self) -> bool:
        return not self.changes

    def to_json(self) -> dict[str, object]:
        return {
            "empty": self.empty,
            "changes": [change.to_json() for change in self.changes],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }
