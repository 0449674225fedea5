"""`deploy version`."""

from __future__ import annotations

import platform
from typing import Any

from deployer import __version__


def version() -> dict[str, Any]:
    """Our version, and of what we stand on, for a report of a fault."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    parts = {}
    for package in ("pyinfra", "paramiko", "click", "pydantic", "jinja2"):
        try:
            parts[package] = of(package)
        except PackageNotFoundError:
            parts[package] = "missing"
    return {"deploy": __version__, "python": platform.python_version(), **parts}
