"""The machines as they were last seen: a cache. Labels at the vendor are the truth."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from deployer.core.machine import Machine
from deployer.state.files import make_private, write_atomically


def save(state_dir: Path, machines: Iterable[Machine]) -> None:
    """Write `state_dir`/machines.json, unless it says the same already."""
    make_private(state_dir)
    path = state_dir / "machines.json"
    known = sorted(machines, key=lambda machine: machine.name)
    text = json.dumps([asdict(machine) for machine in known], indent=2) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def load(state_dir: Path) -> list[Machine]:
    """The machines last seen; empty when nothing usable is there."""
    try:
        found = json.loads((state_dir / "machines.json").read_text(encoding="utf-8"))
        return [Machine(**entry) for entry in found]
    except (FileNotFoundError, ValueError, TypeError):
        return []
