"""What the public routes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .config import Config
from .guard import Guard
from .kannel import Kannel
from .records import Records
from .store import Store


@dataclass(frozen=True)
class State:
    """wake: tells the sender that there is a new message."""

    config: Config
    store: Store
    records: Records
    kannel: Kannel
    guard: Guard
    wake: Callable[[], None]
