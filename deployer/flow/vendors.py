"""Every vendor that the project's inventories name, for the verbs that look at all of them: offers, orphans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deployer.core.errors import DeployError, InputError
from deployer.core.model import Project
from deployer.core.provider import Provider
from deployer.core.resources import shipped
from deployer.flow import registry

T = TypeVar("T")


@dataclass(frozen=True)
class Vendor:
    """One inventory and its provider. inventory: the name that --provider takes, or the file."""

    inventory: str
    project: Project
    provider: Provider


@dataclass(frozen=True)
class Skipped:
    """An inventory that was passed over, and why, in words."""

    inventory: str
    why: str


def configured(root: Path, names: Sequence[str], files: Sequence[Path]) -> tuple[list[Vendor], list[Skipped]]:
    """The named inventories; without any, all of the project and the shipped ones that it does not have itself.

    One that cannot be read is passed over where nobody named it. Raises InputError for a named one.
    """
    wanted: list[tuple[str | None, Path | None]] = [
        *((name, None) for name in names),
        *((None, file) for file in files),
    ]
    chosen = bool(wanted)
    found: list[Vendor] = []
    skipped: list[Skipped] = []
    for name, file in wanted or [(name, None) for name in inventories(root)]:
        label = name or str(file)
        try:
            found.append(_vendor(root, name, file))
        except InputError as error:
            if chosen:
                raise
            skipped.append(Skipped(label, f"{error.what}: {error.why}"))
    return found, skipped


def _vendor(root: Path, name: str | None, file: Path | None) -> Vendor:
    from deployer.project import load

    # Machines and offers need no password of other vendors, so an unset variable stops nobody.
    project = load(root, name, file, options=registry.provider_options, expand=False)
    return Vendor(name or str(file), project, registry.provider(project, trust_first=False))


def inventories(root: Path) -> list[str]:
    """Names of the project's inventories, and of shipped ones."""
    folders = [root / "inventories", shipped("inventories")]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def ask(
    vendors: Sequence[Vendor], question: Callable[[Vendor], T]
) -> tuple[list[tuple[Vendor, T]], list[Skipped]]:
    """Ask all of them at the same time. One that refuses or does not answer is passed over with the reason."""

    def one(vendor: Vendor) -> T | Skipped:
        try:
            return question(vendor)
        except DeployError as error:
            return Skipped(vendor.inventory, f"{error.why}" + (f"; {error.next}" if error.next else ""))

    with ThreadPoolExecutor(max(len(vendors), 1)) as pool:
        answers = list(zip(vendors, pool.map(one, vendors), strict=True))
    good = [(vendor, answer) for vendor, answer in answers if not isinstance(answer, Skipped)]
    return good, [answer for _, answer in answers if isinstance(answer, Skipped)]
