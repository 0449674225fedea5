"""The database's backups: pgBackRest, a configuration for each repository."""

from __future__ import annotations

from deployer.components.backups.parts import Part
from deployer.core.component import Context


def part(ctx: Context) -> Part:
    return Part()
