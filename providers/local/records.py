"""What is known about each local machine: a file NAME.json beside the folder NAME with its disk."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from deployer.core.errors import DeployError
from providers.local.host import write_atomically
from providers.local.settings import FIRST_MACHINE, Settings


@dataclass(frozen=True)
class Record:
    """state: "creating" until its disk is ready, "made", then "deleting".

    It is written before the first thing that would have to be removed, and removed after the last one,
    so whatever was left by a killed process is found by it.
    """

    name: str
    labels: dict[str, str]
    address: str
    address6: str
    host_key_public: str = ""
    state: str = "creating"
    # Read-only layers of its disk, the topmost first.
    lower: list[str] = field(default_factory=list)
    nesting: bool = False


class Records:
    """All machines of one state folder. Changes need its lock."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = settings.state_dir / "machines"

    def of(self, name: str) -> Path:
        """The machine's folder."""
        return self.folder / name

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def all(self) -> list[Record]:
        if not self.folder.is_dir():
            return []
        found = (self.load(path.stem) for path in sorted(self.folder.glob("[!.]*.json")))
        return [record for record in found if record]

    def load(self, name: str) -> Record | None:
        path = self.path(name)
        try:
            return Record(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise DeployError(
                "reading what is known of a local machine",
                f"{path}: {error}",
                "remove that file, and the folder beside it, if nothing in it is needed",
                machine=name,
            ) from error

    def save(self, record: Record) -> Record:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.path(record.name), json.dumps(asdict(record), indent=2) + "\n")
        return record

    def mark(self, record: Record, state: str) -> Record:
        return self.save(replace(record, state=state))

    def free_addresses(self, with_ipv6: bool) -> tuple[str, str]:
        """The lowest pair of addresses that no machine has."""
        offset = lowest_free(self._settings, (record.address for record in self.all()))
        address6 = str(self._settings.subnet6.network_address + offset) if with_ipv6 else ""
        return str(self._settings.subnet.network_address + offset), address6


def lowest_free(settings: Settings, taken: Iterable[str]) -> int:
    """Offset of the lowest free address in the subnet. Raises DeployError when none is left."""
    used = set(taken)
    for offset in range(FIRST_MACHINE, settings.subnet.num_addresses - 1):
        if str(settings.subnet.network_address + offset) not in used:
            return offset
    raise DeployError(
        "finding an address for a local machine",
        f"all addresses of {settings.subnet} are taken",
        "delete a deployment (`deploy down`), or set another `subnet` in the inventory",
    )
