"""What one part of the component adds to its spec."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.core.component import Directory, File, Probe, Step, Unit


@dataclass(frozen=True)
class Part:
    packages: tuple[str, ...] = ()
    directories: tuple[Directory, ...] = ()
    files: tuple[File, ...] = ()
    units: tuple[Unit, ...] = ()
    steps: tuple[Step, ...] = ()
    probes: tuple[Probe, ...] = ()
    warnings: tuple[str, ...] = ()
