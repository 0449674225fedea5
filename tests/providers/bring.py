"""The provisioning part of `deploy up`, and nothing after it: for tests that kill it. Machines ready, no stack installed.

python -m tests.providers.bring PROJECT PROVIDER [AT_ONCE]

AT_ONCE: machines that are made at a time; 1, so that a call's index is the same in each run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from deployer.core.events import discard
from deployer.flow import provision, session, up
from deployer.flow.request import Request


def _machines(session: Any, run: Any) -> dict[str, Any]:
    return {"machines": sorted(run.machines)}


class _NoEngine:
    """Stands for the process that works on machines, which is not needed so far and slow to start."""

    def __init__(self, *words: Any, **named: Any) -> None:
        pass

    def close(self) -> None:
        pass


def main() -> None:
    provision.AT_ONCE = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    session.Engine = _NoEngine
    up.converge = _machines
    up.up(Request(Path(sys.argv[1]), provider=sys.argv[2]), discard)


if __name__ == "__main__":
    main()
