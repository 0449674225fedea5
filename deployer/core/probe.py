"""What a probe found. Probes from outside and those on the machines give the same kind of result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """name: the probe's; detail: one line for the operator; seconds: how long the answer took.

    degrades: copied from the probe: red makes the deployment degraded, not failed.
    """

    name: str
    ok: bool
    detail: str
    seconds: float
    degrades: bool = False
