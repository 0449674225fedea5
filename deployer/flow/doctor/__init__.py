"""`deploy doctor`: what would go wrong, before money is spent and after. Reads, and changes nothing.

project, vendor, hosts, mail and names judge, and are pure: answers in, findings out. inside and outside ask, and
examination says what is asked when.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import Any

from deployer.core.events import Event, Sink
from deployer.core.finding import Finding
from deployer.flow.doctor.examination import Examination
from deployer.flow.doctor.runner import Runner
from deployer.flow.request import Request
from deployer.flow.session import Session

# Seconds for all checks together.
SECONDS = 20.0


def doctor(request: Request, sink: Sink) -> dict[str, Any]:
    """deployment, ok (nothing failed), findings, counts by status, seconds."""
    began = time.monotonic()
    runner = Runner(SECONDS)
    # Works before the first `up`: what the bundle lacks is made in memory.
    with Session.open(request, sink, make_secrets=False, draft=True) as session:
        session.sink(Event("stage", "looking at everything", status="start"))
        found = [_masked(session, one) for one in Examination(session, runner).findings()]
        seconds = round(time.monotonic() - began, 2)
        session.sink(Event("stage", "looking at everything", status="ok", seconds=seconds))
        counts = Counter(one.status for one in found)
        return {
            "deployment": str(session.project.deployment),
            "ok": not counts["fail"],
            "counts": {status: counts[status] for status in ("fail", "warn", "ok", "skipped")},
            "findings": [one.to_json() for one in found],
            "seconds": seconds,
        }


def _masked(session: Session, finding: Finding) -> Finding:
    """What a vendor or a machine answered might quote a secret."""
    return replace(finding, found=session.mask.text(finding.found), next=session.mask.text(finding.next))
