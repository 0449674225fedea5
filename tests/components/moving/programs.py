"""The programs of the machine as modules; there they lie in two folders and find each other by name."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

from deployer.core import resources

COMPONENTS = Path(resources.__file__).parent.parent / "components"


@cache
def load(name: str) -> Any:
    """A module of service/, under the name that it has on the machine."""
    for component in ("backups", "moving"):
        path = str(COMPONENTS / component / "service")
        if path not in sys.path:
            # Behind all others: nothing of ours is hidden by a name of theirs.
            sys.path.append(path)
    return importlib.import_module(name)
