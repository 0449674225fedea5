"""PostgreSQL's memory, from the machine's."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CONNECTIONS = 200
_MIB = 1 << 20


@dataclass(frozen=True)
class Memory:
    """All in MiB, as postgresql.conf wants them with the unit MB."""

    shared_buffers: int
    effective_cache_size: int
    maintenance_work_mem: int
    work_mem: int


def size(memory: int, shared: bool) -> Memory:
    """memory: bytes of the machine. shared: other roles run on it too, so the database takes half as much.

    A quarter of the memory for the buffers is what PostgreSQL's manual suggests for a machine of its own. The steps
    are coarse, because another kernel finds a few MiB more or less and a new value means a restart.
    """
    total = max(memory // _MIB, 512)
    part = total // (8 if shared else 4)
    return Memory(
        shared_buffers=_between(part, 128, 16384, step=64),
        effective_cache_size=_between(part * 3, 256, 65536, step=256),
        maintenance_work_mem=_between(part // 4, 64, 1024, step=16),
        # Every connection may sort several times at once.
        work_mem=_between(part // 64, 4, 64, step=4),
    )


def _between(value: int, low: int, high: int, step: int) -> int:
    return min(max(round(value / step) * step, low), high)
