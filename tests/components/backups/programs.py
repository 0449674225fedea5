"""The programs of the machine as modules; there they lie in one folder and find each other by name."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

from deployer.components import backups

SERVICE = Path(backups.__file__).parent / "service"


@cache
def load(name: str) -> Any:
    """A module of service/, with those that it imports."""
    sys.path.insert(0, str(SERVICE))
    try:
        spec = importlib.util.spec_from_file_location(f"backups_service_{name}", SERVICE / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(SERVICE))
