"""What a restore has decided, on the operator's computer: a run that was killed goes on with the same decisions."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from deployer.state.files import make_private, write_atomically

_FILE = "restore.json"


@dataclass(frozen=True)
class Order:
    """repository: its name. generation: whose backups are read. time, point: the moment; "" for the newest.

    began: ISO 8601, UTC. claimed: the generation that was opened for the restored service; 0 before that. placing: the
    data are being put in place: what was there is no more. instead: id of the order that this one took the place of.
    """

    id: str
    repository: str
    generation: int
    time: str
    point: str
    began: str
    claimed: int = 0
    placing: bool = False
    instead: str = ""


def new_id() -> str:
    """An id that names one restore on its machines."""
    return secrets.token_hex(6)


def save(state_dir: Path, order: Order) -> None:
    make_private(state_dir)
    write_atomically(state_dir / _FILE, json.dumps(asdict(order), indent=1) + "\n")


def load(state_dir: Path) -> Order | None:
    """The restore that has not ended; None when there is none."""
    try:
        body: Mapping[str, object] = json.loads((state_dir / _FILE).read_text(encoding="utf-8"))
        return Order(**body)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError):
        return None


def forget(state_dir: Path) -> None:
    """The restore has ended."""
    (state_dir / _FILE).unlink(missing_ok=True)
