"""One run at a time in one project folder, on one computer.

The lease on the machines keeps computers apart; this keeps processes apart, and remembers which leases
processes of this computer took, so that one that a killed process left behind does not have to expire.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deployer.core.errors import LeaseError
from deployer.state.files import make_private
from deployer.state.lease import new_id

# How many leases of ended processes are remembered; one that old has long expired.
REMEMBERED = 20


@dataclass(frozen=True)
class Held:
    """lease: id for this process's lease. ours: ids that ended processes of this folder may have left."""

    lease: str
    ours: tuple[str, ...]


@contextmanager
def lock(state_dir: Path, what: str) -> Iterator[Held]:
    """Hold the lock of `state_dir` while the body runs. what: the verb, shown to whoever comes second.

    The kernel frees it when the process ends, however it ends.
    Raises LeaseError, naming process and time, when another process holds it.
    """
    make_private(state_dir)
    path = state_dir / "lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(_read(handle)) from None
        before = _read(handle)
        here = f"{socket.gethostname()}:{path.resolve()}"
        ours = _ids(before) if before.get("where") == here else ()
        held = Held(new_id(), ours)
        _write(
            handle,
            {
                "pid": os.getpid(),
                "what": what,
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                # A folder copied to another computer must not take the original's lease for its own.
                "where": here,
                "lease": held.lease,
                "before": list(ours),
            },
        )
        yield held
    finally:
        os.close(handle)


def _ids(content: dict[str, object]) -> tuple[str, ...]:
    before = content.get("before")
    ids = [content.get("lease"), *(before if isinstance(before, list) else [])]
    return tuple(id for id in ids if isinstance(id, str))[:REMEMBERED]


def _busy(holder: dict[str, object]) -> LeaseError:
    pid, since = holder.get("pid", "?"), holder.get("since", "an unknown time")
    return LeaseError(
        "starting",
        f"`deploy {holder.get('what', '')}` (process {pid}) has been running in this folder since {since}",
        "wait until it ends, or stop it; then run this again",
    )


def _read(handle: int) -> dict[str, object]:
    """What the last holder wrote; empty when it was killed while writing."""
    try:
        content = json.loads(os.pread(handle, 1 << 16, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _write(handle: int, content: dict[str, object]) -> None:
    # Not renamed into place: the lock belongs to this very file. Longer text first, then the cut, so that
    # a kill in between leaves at worst something unreadable, which counts as "nothing remembered".
    text = json.dumps(content).encode() + b"\n"
    os.pwrite(handle, text, 0)
    os.ftruncate(handle, len(text))
    os.fsync(handle)
