"""The guard: a machine whose generation is not the newest serves nothing."""

from __future__ import annotations

from collections.abc import Sequence

from deployer.components.backups.parts import Part
from deployer.core.component import ComponentSpec, Context
from deployer.core.generation import Generation


def part(ctx: Context, peers: Sequence[ComponentSpec], live: Generation | None) -> Part:
    return Part()
