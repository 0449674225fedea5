"""A drill on its throw-away machine: the data, the machine closed, the service, its exercise, and the machine gone again."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from deployer.core import generation
from deployer.core.errors import DeployError
from deployer.core.events import Event
from deployer.core.machine import Machine
from deployer.core.model import Repository
from deployer.core.resources import find_template
from deployer.flow import up as bringing
from deployer.flow.groundwork import ready
from deployer.flow.recovery import Restored, bring_back, fetch_release, lacking
from deployer.flow.session import Session

# Seconds that the app's own exercise may take; to ask a repository what it holds.
EXERCISE, ASK = 300, 300
# The target that means a moment by chance. It lies this long before the newest, so that it is in the repository.
BY_CHANCE, SETTLED = "random", timedelta(seconds=90)
# There is a choice of moments when there are so many seconds of them.
SPAN = timedelta(seconds=10)
# Seconds before the files' point in which a file may be named already and was not yet written.
WRITTEN = 60
# The exercise, and what it imports, as files of a folder that goes with it.
_LOADER = """\
import pathlib, runpy, sys, tempfile
with tempfile.TemporaryDirectory() as folder:
    for name, text in {files!r}.items():
        pathlib.Path(folder, name).write_text(text)
    sys.path.insert(0, folder)
    runpy.run_path(folder + "/drill.py", run_name="__main__")
"""
# Nothing leaves the machine any more but answers to us; what runs on it reaches itself.
_CLOSE = """
set -e
nft -f - <<'RULES'
table inet deploy_drill
delete table inet deploy_drill
table inet deploy_drill {
    chain output {
        type filter hook output priority -10; policy drop;
        oif lo accept
        ct state established,related accept
        fib daddr type local accept
        meta l4proto ipv6-icmp accept
    }
}
RULES
"""


def rehearse(
    session: Session, repository: Repository, source: generation.Generation, target: str, keep: bool
) -> dict[str, Any]:
    from deployer.state.lock import lock
    from deployer.state.restoring import Order, new_id

    began, started = time.monotonic(), datetime.now(UTC)
    times: dict[str, float] = {}

    def lap(name: str) -> None:
        times[name] = round(time.monotonic() - began - sum(times.values()), 1)

    good = False
    with lock(session.project.state_dir, "drill") as held:
        # A drill that was killed left a machine whose keys nobody knows.
        _clear(session)
        try:
            run = bringing.make_machines(session, held, started, began)
            lap("machines")
            view = ready(session, run)
            lap("packages and files")
            if target == BY_CHANCE:
                target = _by_chance(session, repository, source)
            order = Order(new_id(), repository.name, source.number, target, "", started.isoformat())
            restored = bring_back(session, view, order, hold_queues=True, amcheck=True)
            _as_built(repository, fetch_release(session, order))
            lap("data")
            _close(session, run.machines)
            body = bringing.converge(session, replace(run, record=False))
            lap("services")
            checks = [text for one in restored.parts.values() for text in one.checks]
            checks.append(f"{len(body['probes'])} probes green")
            if session.project.app.drill:
                checks.append(_exercise(session, run.machines, restored))
            lap("exercise")
            lacks = lacking(session, restored)
            _complete([*(text for one in restored.parts.values() for text in one.lacks), *lacks.lost])
            if lacks.newer:
                checks.append(
                    f"{len(lacks.newer)} file(s) that the database names are newer than the files' point"
                )
            good = True
        finally:
            if good or not keep:
                _clear(session)
    asked = {"asked_for": target or "newest", "recovered_to": restored.recovered_to}
    return {**asked, "seconds": times, "checks": checks}


def _by_chance(session: Session, repository: Repository, source: generation.Generation) -> str:
    """A moment, ISO 8601, of the time from which on the repository has everything without a gap."""
    from deployer.components.backups import restoring, spec
    from deployer.components.backups.actions import answer
    from deployer.flow import provision

    what = f"choosing a moment by chance in {repository.name}"
    machine = provision.roles(session.project)["database"][0]
    request = restoring.whole_since_request(
        spec.repository(session.project.stack.name, repository, source.number, session.secrets)
    )
    code, out, err = session.engine.run(machine, restoring.whole_since(), stdin=request, timeout=ASK)
    since = datetime.fromisoformat(str(answer(what, machine, code, out, err)["since"]))
    young = since + SETTLED + SPAN - datetime.now(UTC)
    if young > 2 * SETTLED:
        raise DeployError(
            what,
            f"its oldest backup without a gap ended at {since:%H:%M:%S} UTC, which is to come by this computer's clock",
            "deploy doctor compares the clocks",
            machine=machine,
        )
    if young > timedelta():
        text = f"{repository.name} has no gap since {since:%H:%M:%S} UTC only: waiting {young.seconds + 1} s"
        session.sink(Event("notice", text))
        time.sleep(young.total_seconds())
    end = datetime.now(UTC) - SETTLED
    chosen = since + (end - since) * random.random()
    return chosen.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clear(session: Session) -> None:
    from deployer.flow import provision
    from deployer.state.journal import Journal

    ours = {name: machine for name, machine in session.existing().items() if machine.ours}
    if ours:
        provision.delete(session.provider, ours, Journal(session.project.state_dir), session.sink)


def _close(session: Session, machines: Mapping[str, Machine]) -> None:
    for name in machines:
        code, out, err = session.engine.run(name, _CLOSE, timeout=30)
        if code:
            raise DeployError("closing the machine's ways out", (err or out).strip()[-500:], machine=name)


def _exercise(session: Session, machines: Mapping[str, Machine], restored: Restored) -> str:
    """The app's own test: a person who uses the service; its last line. It is told the domain, and until when files are
    all there, in seconds since 1970. Raises DeployError with its last lines."""
    app = session.project.app
    machine = next(iter(machines))
    files = {"drill.py": f"apps/{app.name}/{app.drill}", "doors.py": "app/doors.py"}
    texts = {
        name: find_template(path, session.project.root).read_text(encoding="utf-8")
        for name, path in files.items()
    }
    domain = session.project.stack.domain
    points = [one.recovered_to for part, one in restored.parts.items() if part.endswith(" files")]
    until = (
        min(datetime.fromisoformat(one) for one in points if one).timestamp() - WRITTEN if any(points) else 0
    )
    code, out, err = session.engine.run(
        machine, f"python3 - {domain} {until:.0f}", stdin=_LOADER.format(files=texts), timeout=EXERCISE
    )
    if code:
        lines = (out + err).strip().splitlines()
        raise DeployError(
            f"using the restored {app.name} as a person would",
            lines[-1] if lines else f"it ended with {code}",
            "the backup restores, and what runs from it does not work: see the lines above",
            machine=machine,
            detail=session.mask.text("\n".join(lines[-12:-1])),
        )
    return out.strip().splitlines()[-1] if out.strip() else "used as a person would"


def _complete(lacks: Sequence[str]) -> None:
    if lacks:
        raise DeployError(
            "comparing the files with what the database names",
            "missing: " + and_more(lacks),
            "deploy backup verify says what is damaged",
            detail="\n".join(lacks[1:12]),
        )


def _as_built(repository: Repository, lacking: Sequence[str]) -> None:
    """A restore may build the app anew; a drill proves that it need not."""
    if lacking:
        raise DeployError(
            f"fetching the app as it was built from {repository.name}",
            f"it does not hold the release {lacking[0]}",
            "deploy backup create puts it there again",
        )


def and_more(texts: Sequence[str]) -> str:
    return texts[0] + (f" (and {len(texts) - 1} more)" if texts[1:] else "")
