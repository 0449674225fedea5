"""One machine: an unchanged `up` without latency and with it, and the memory that it takes; `deploy --help`."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, timed
from tests.bench.place import ROUND_TRIP, far_address, local_section, operator, relay
from tests.e2e.operator import CHECKOUT, Operator
from tests.rig.world import World

DEPLOY = str(CHECKOUT / "bin" / "deploy")


def help_text(world: World, folder: Path, runs: int) -> list[Figure]:
    """The shortest that a command can take."""
    argv = [DEPLOY, "--help"]
    figure = Figure("deploy --help", "ms", aim=150)
    for _ in range(runs + 1):
        figure.runs.append(1000 * timed(lambda: subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)))
    del figure.runs[0]
    return [figure]


def one(world: World, folder: Path, runs: int) -> list[Figure]:
    """The whole stack on one machine."""
    text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(world)
    near = operator(folder, "bench", "local", text)
    try:
        near.good("up", "--yes")
        made = near.good("up", "--yes").result
        figures = [unchanged("unchanged up, one machine, no latency", near, runs, aim=2.5)]
        figures.append(memory(near))
        figures.append(far_away(near, made["machines"][0]["address"], runs))
        return figures
    finally:
        near.good("down", "--yes")


def unchanged(name: str, who: Operator, runs: int, aim: float, round_trip: int = 0) -> Figure:
    figure = Figure(name, "s", aim=aim, machines=1, round_trip=round_trip)
    for _ in range(runs + 1):
        result: dict[str, Any] = {}
        figure.runs.append(timed(lambda found=result: found.update(who.good("up", "--yes").result)))
        assert result["changed"] == 0, result["changes"]
    del figure.runs[0]
    return figure


def far_away(near: Operator, address: str, runs: int) -> Figure:
    """The same machine behind a relay that delays everything, as bare metal elsewhere."""
    here = far_address(1)
    text = (
        "provider: ssh\nmachines:\n"
        f"- {{name: bench-all-1, roles: [all], address: {here}, private_address: {address}}}\n"
        "catch: true\nacme: {directories: []}\n"
    )
    (near.folder / "inventories" / "far.yaml").write_text(text, encoding="utf-8")
    far = Operator(near.folder, "far", near.home)
    with relay({here: address}):
        far.good("up", "--yes", "--trust-first")
        return unchanged("unchanged up, one machine, 50 ms", far, runs, aim=3.5, round_trip=ROUND_TRIP)


def memory(who: Operator) -> Figure:
    """The operator's process and the engine together at their highest, as resident memory."""
    process = who.start("up", "--yes")
    highest = 0.0

    def watch() -> None:
        nonlocal highest
        while process.poll() is None:
            highest = max(highest, sum(resident(pid) for pid in family(process.pid)))
            time.sleep(0.01)

    watching = threading.Thread(target=watch)
    watching.start()
    process.communicate(timeout=120)
    watching.join()
    return Figure("operator's process and engine together", "MB", [highest], aim=300, machines=1)


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def resident(pid: int) -> float:
    """MB; 0 for a process that ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
