"""What is damaged or missing in the database's part of a repository. Not a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def verify(name: str, conf: Path) -> dict[str, Any]:
    raise NotImplementedError
