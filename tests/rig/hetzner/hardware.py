"""What a server of the vendor is: a record only, or (machines.py) a real machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Wanted:
    """What a machine is made of. private: address and length of its network's prefix, "" without one."""

    id: int
    name: str
    address: str = ""
    address6: str = ""
    private: str = ""
    user_data: str = ""
    # Ids of its volumes.
    volumes: list[int] = field(default_factory=list)


class Hardware(Protocol):
    def addresses(self) -> Iterable[str]:
        """IPv4 addresses that the vendor can give out."""

    def network6(self, number: int) -> str:
        """The n-th /64 that the vendor gives out."""

    def create(self, wanted: Wanted) -> None:
        """Make the machine and switch it on. Takes as long as it takes."""

    def start(self, name: str) -> None: ...

    def stop(self, name: str) -> None: ...

    def delete(self, name: str) -> None: ...

    def delete_volume(self, number: int) -> None: ...

    def close(self) -> None:
        """Delete what is left."""


class OnPaper:
    """No machines: enough for what is said, not for what runs. Remembers what it was asked for."""

    def __init__(self) -> None:
        self.made: dict[str, Wanted] = {}

    def addresses(self) -> Iterable[str]:
        # For tests of networks (RFC 2544).
        return (f"198.18.{high}.{low}" for high, low in itertools.product(range(256), range(1, 255)))

    def network6(self, number: int) -> str:
        return f"2001:db8:{number:x}::/64"

    def create(self, wanted: Wanted) -> None:
        self.made[wanted.name] = wanted

    def start(self, name: str) -> None:
        """Nothing to switch on."""

    def stop(self, name: str) -> None:
        """Nothing to switch off."""

    def delete(self, name: str) -> None:
        self.made.pop(name, None)

    def delete_volume(self, number: int) -> None:
        """Nothing was stored."""

    def close(self) -> None:
        self.made.clear()
