"""What an operator should know before saying yes to a move: whether the new vendor lets us in and has room, what it costs,
and how long others remember the old addresses."""

from __future__ import annotations

from deployer.core.errors import InputError
from deployer.core.events import Event
from deployer.core.finding import Finding
from deployer.flow import names
from deployer.flow.doctor import outside
from deployer.flow.doctor.examination import Examination
from deployer.flow.doctor.runner import Runner
from deployer.flow.doctor.scene import Scene
from deployer.flow.moves import Sides
from deployer.flow.session import Session

# Seconds for all of it.
BOUND = 15.0


def foresee(sides: Sides) -> None:
    """Tell it. Raises InputError, before anything was changed, where the new vendor would stop the move later."""
    runner = Runner(BOUND)
    examination = Examination(sides.new, runner)
    scene = Scene(sides.old, runner)
    if scene.public:
        runner.start("dns.ttl", "TTL of what moves", lambda: _lifetimes(scene))
    for finding in examination.of_vendor():
        _tell(sides.new, finding)


def _lifetimes(scene: Scene) -> list[Finding]:
    session = scene.session
    machines = session.existing()
    if len(machines) < len(session.machine_specs()):
        return []
    return outside.lifetimes(scene, names.records(session.specs(machines, {}).values()))


def _tell(session: Session, finding: Finding) -> None:
    words = ": ".join(filter(None, (finding.what, finding.where, finding.found)))
    if finding.status == "fail" and finding.id.startswith("vendor."):
        raise InputError(f"looking at {session.project.inventory.provider}", words, finding.next)
    if finding.status in ("fail", "warn"):
        session.sink(Event("warning", f"{words} ({finding.next})" if finding.next else words))
    elif finding.status == "ok" and finding.id in ("vendor.price", "vendor.total", "dns.ttl"):
        session.sink(Event("notice", words))
