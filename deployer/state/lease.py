"""The lease that keeps two operators apart. It lies on the machines, as JSON, with holder and expiry."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployer.state import lease_rule
from deployer.state.lease_rule import decide

# Seconds without renewal after which another operator may go on.
SECONDS = 120


@dataclass(frozen=True)
class Lease:
    """holder: "user@host"; seconds: how long it lasts without renewal.

    taken, expires: seconds since 1970 by the machine's clock; 0 before it was granted.
    """

    id: str
    holder: str
    pid: int
    taken: float = 0
    expires: float = 0
    seconds: int = SECONDS

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lease:
        """Raises KeyError, TypeError or ValueError when `data` is no lease."""
        return cls(
            id=str(data["id"]),
            holder=str(data["holder"]),
            pid=int(data["pid"]),
            taken=float(data["taken"]),
            expires=float(data["expires"]),
            seconds=int(data["seconds"]),
        )


def new_id() -> str:
    """An id that no other lease has."""
    return secrets.token_hex(8)


def wanted(id: str, seconds: int = SECONDS) -> Lease:
    """The lease that this process asks for."""
    return Lease(
        id=id, holder=f"{getpass.getuser()}@{socket.gethostname()}", pid=os.getpid(), seconds=seconds
    )


def may_take(
    existing: Lease | None, asked: Lease, now: float, own_ids: Sequence[str] = ()
) -> tuple[Lease | None, str]:
    """The lease as it has to be written, or None where it is refused; and why.

    own_ids: what `Held.ours` of state/lock.py gives.
    """
    found = existing.to_json() if existing else None
    answer = decide(found, asked.to_json(), now, list(own_ids))
    return (Lease.from_json(answer["lease"]) if answer["granted"] else None), answer["why"]


def rule_source() -> str:
    """Source of `decide`, to be sent to a machine: the rule exists once."""
    return Path(lease_rule.__file__).read_text(encoding="utf-8")
