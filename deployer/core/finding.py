"""What one check of `deploy doctor` came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Finding:
    """id: stable, for programs ("mail.port25"); what: what was looked at, in words; where: machine, name or server.

    found: what was seen, or why nothing was looked at; next: what to do, of a warning or a failure.
    """

    id: str
    status: Status
    what: str
    where: str = ""
    found: str = ""
    next: str = ""

    def to_json(self) -> dict[str, str]:
        return dict(vars(self))
