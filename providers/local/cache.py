"""Downloads that local machines share, so that the second one does not fetch them again. Bounded.

Packages are hard links between the cache and the machines' own archives: apt locks its archive folder, so
one bound into several machines would make their installations fail.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from providers.local.settings import Settings

ARCHIVES = Path("var/cache/apt/archives")
# Bytes. Age is no measure: apt gives a package its time on the mirror, and each link counts as a change.
APT_LIMIT = 2 << 30
UV_LIMIT = 4 << 30


def packages(settings: Settings) -> Path:
    return settings.shared_dir / "cache" / "apt"


def uv(settings: Settings) -> Path:
    return settings.shared_dir / "cache" / "uv"


def fill(settings: Settings, upper: Path) -> None:
    """Give an unmounted new disk all packages of the cache."""
    target = upper / ARCHIVES
    target.mkdir(parents=True, exist_ok=True)
    for package in packages(settings).glob("*.deb"):
        _link(package, target / package.name)


def collect(settings: Settings, upper: Path) -> None:
    """Take what the machine downloaded into the cache."""
    source = upper / ARCHIVES
    if not source.is_dir():
        return
    packages(settings).mkdir(parents=True, exist_ok=True)
    # Complete packages only: apt downloads into the folder `partial` and renames.
    for package in source.glob("*.deb"):
        _link(package, packages(settings) / package.name)


def bound(settings: Settings, idle: bool) -> None:
    """Empty a cache that has grown too large. idle: no machine runs, so that nobody uses uv's."""
    if _size(packages(settings), APT_LIMIT) > APT_LIMIT:
        shutil.rmtree(packages(settings))
    if idle and _size(uv(settings), UV_LIMIT) > UV_LIMIT:
        shutil.rmtree(uv(settings))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        # Another file system, or no links on it: a copy does as well.
        temporary = target.with_name(f"{target.name}.{os.getpid()}.new")
        shutil.copy2(source, temporary)
        temporary.replace(target)


def _size(folder: Path, enough: int) -> int:
    """Bytes below the folder, counted until there are more than enough."""
    total = 0
    for path, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(path, name)).st_size for name in names)
        if total > enough:
            break
    return total
