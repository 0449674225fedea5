"""The provisioning part of `deploy up`, and nothing after it: for tests that kill it. Machines ready, no stack installed.

python -m tests.providers.bring PROJECT PROVIDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from deployer.core.events import discard
from deployer.flow import up
from deployer.flow.request import Request


def _machines(session: Any, run: Any) -> dict[str, Any]:
    return {"machines": sorted(run.machines)}


def main() -> None:
    up._converge = _machines
    up.up(Request(Path(sys.argv[1]), provider=sys.argv[2]), discard)


if __name__ == "__main__":
    main()
