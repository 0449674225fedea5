"""Measure what the operator feels: `bin/bench` prints a table and writes JSON. Never part of a timed test.

Figures of one run belong together: the computer, its load and its caches are the same for all of them. Quote
ratios from one run, and medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.e2e.operator import CHECKOUT, Operator
from tests.rig.world import World, why_not

DEPLOY = str(CHECKOUT / "bin" / "deploy")
FAR = "127.0.0.2"


@dataclass
class Figure:
    """name: what was measured; unit; runs: every single value; aim: what the design asks for (0: nothing)."""

    name: str
    unit: str
    runs: list[float] = field(default_factory=list)
    aim: float = 0
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.runs)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=7, help="counted runs of each quick figure")
    parser.add_argument("--json", type=Path, default=CHECKOUT / "tests" / "artefacts" / "bench.json")
    parser.add_argument("--quick", action="store_true", help="without the first installations")
    asked = parser.parse_args()
    if reason := why_not():
        sys.exit(f"bench: {reason}")
    figures = [help_text(asked.runs)]
    with bench_world() as world, tempfile.TemporaryDirectory(prefix="deploy-bench-") as folder:
        figures += whole(world, Path(folder), asked.runs, first=not asked.quick)
    show(figures)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
    listed = [asdict(figure) | {"median": figure.median} for figure in figures]
    asked.json.write_text(json.dumps({**about, "figures": listed}, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {asked.json}")


@contextmanager
def bench_world() -> Iterator[World]:
    """The rig without its DNS and certificate authority, which nothing here needs."""
    with tempfile.TemporaryDirectory(prefix="deploy-bench-rig-", dir="/var/tmp") as folder:
        world = World(Path(folder), bridge="dbench0", prefix="10.229.0")
        world.provider.check()
        world.provider.prepare()
        try:
            yield world
        finally:
            world.stop()


def help_text(runs: int) -> Figure:
    argv = [DEPLOY, "--help"]
    figure = Figure("deploy --help", "ms", aim=150)
    for _ in range(runs + 1):
        figure.runs.append(1000 * timed(lambda: subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)))
    del figure.runs[0]
    return figure


# --- the whole stack on one machine ---


def whole(world: World, folder: Path, runs: int, *, first: bool) -> list[Figure]:
    figures = []
    near = operator(world, folder / "near", "local", LOCAL.format(**world.options))
    try:
        fill_caches = near.good("up", "--yes").result
        if first:
            figures += first_installation(world, near, folder)
        near.good("up", "--yes")
        figures.append(unchanged("unchanged up, one machine, no latency", near, runs, aim=2.5))
        figures.append(memory(near))
        figures.append(far_away(near, fill_caches["machines"][0]["address"], runs))
    finally:
        near.good("down", "--yes")
    return figures


LOCAL = """\
provider: local
machines:
- roles: [all]
local: {{bridge: {bridge}, subnet: {subnet}, state_dir: {state_dir}}}
"""


def operator(world: World, folder: Path, inventory: str, text: str) -> Operator:
    (folder / "project" / "inventories").mkdir(parents=True)
    (folder / "home").mkdir()
    stack = "name: bench\ndomain: bench.test\napp: matrix\n"
    (folder / "project" / "stack.yaml").write_text(stack, encoding="utf-8")
    (folder / "project" / "inventories" / f"{inventory}.yaml").write_text(text, encoding="utf-8")
    return Operator(folder / "project", inventory, folder / "home")


def unchanged(name: str, who: Operator, runs: int, aim: float) -> Figure:
    figure = Figure(name, "s", aim=aim)
    for _ in range(runs + 1):
        result: dict[str, Any] = {}
        figure.runs.append(timed(lambda found=result: found.update(who.good("up", "--yes").result)))
        assert result["changed"] == 0, result["changes"]
    del figure.runs[0]
    return figure


def far_away(near: Operator, address: str, runs: int) -> Figure:
    """The same machine behind a relay that delays everything by 25 ms each way, as bare metal elsewhere."""
    ports = (22, 25, 443)
    ways = [f"{FAR}:{port}={address}:{port}" for port in ports]
    relay = subprocess.Popen(
        [sys.executable, "-m", "tests.rig.delay", "50", *ways],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert relay.stdout and relay.stdout.readline() == "ready\n"
        text = textwrap.dedent(f"""\
            provider: ssh
            machines:
            - {{name: bench-all-1, roles: [all], address: {FAR}, private_address: {address}}}
            catch: true
            acme: {{directories: []}}
            """)
        (near.folder / "inventories" / "far.yaml").write_text(text, encoding="utf-8")
        far = Operator(near.folder, "far", near.home)
        far.good("up", "--yes", "--trust-first")
        return unchanged("unchanged up, one machine, 50 ms", far, runs, aim=3.5)
    finally:
        relay.terminate()
        relay.wait(10)


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
    return Figure("operator's process and engine together", "MB", [highest], aim=300)


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


# --- the first installation, beside a plain script ---


def first_installation(world: World, near: Operator, folder: Path) -> list[Figure]:
    """`up` on a bare machine, and a shell script that only installs the same packages on another, in turn.

    Both find the same packages in the same cache; what the app's runtimes hold comes from the same cache of uv.
    """
    packages = near.on("bench-all-1", "apt-mark showmanual").split()
    script = plain_script(packages)
    up = Figure("first up on a bare machine", "s")
    plain = Figure("a plain script that installs the same packages", "s")
    for number in range(2):
        near.good("down", "--yes")
        phases: dict[str, float] = {}
        began = time.perf_counter()
        run = near.good("up", "--yes")
        up.runs.append(time.perf_counter() - began)
        for event in run.events:
            if event["kind"] == "stage" and event.get("seconds", 0) >= 0.5:
                phases[event["text"]] = round(phases.get(event["text"], 0) + event["seconds"], 1)
        up.note = ", ".join(f"{name} {seconds} s" for name, seconds in phases.items())
        machine, shell = world.bare(f"plain-{number}")
        shell.run("true")
        plain.runs.append(timed(lambda remote=shell: remote.run("bash -s", stdin=script, timeout=900)))
        shell.close()
        world.provider.delete_machine(machine)
    ratio = Figure("first up against the plain script", "times", aim=1.3)
    ratio.runs = [one / other for one, other in zip(up.runs, plain.runs, strict=True)]
    return [up, plain, ratio]


# The uv of the toolkit and the app's locks, as the toolkit's templates have them.
APP = CHECKOUT / "templates" / "apps" / "matrix"
UV = CHECKOUT / "templates" / "app" / "uv.lock"


def plain_script(packages: list[str]) -> str:
    """The same Debian packages and the same Python packages, and nothing else. Services do not start, as with us."""
    locks = {"uv": UV, "synapse": APP / "synapse.lock", "sydent": APP / "sydent.lock"}
    lines = [
        "set -e",
        "export DEBIAN_FRONTEND=noninteractive UV_CACHE_DIR=/var/cache/deploy/uv UV_LINK_MODE=copy UV_SYSTEM_CERTS=1",
        "printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d",
        "apt-get -q update",
        f"apt-get -q -y install --no-install-recommends {' '.join(packages)}",
        "cd /opt",
    ]
    for name, lock in locks.items():
        lines.append(f"cat > {name}.lock <<'LOCK'\n{lock.read_text(encoding='utf-8')}LOCK")
    lines += [
        'python3 "$(ls /usr/share/python-wheels/pip-*.whl)/pip" install -q --no-deps --target uv -r uv.lock',
        "for one in synapse sydent; do uv/bin/uv venv -q $one; uv/bin/uv pip sync -q --require-hashes"
        " --python $one/bin/python $one.lock; done",
    ]
    return "\n".join(lines) + "\n"


def show(figures: list[Figure]) -> None:
    width = max(len(figure.name) for figure in figures)
    print(f"{'':{width}}  {'median':>8}  {'min':>8}  {'max':>8}  {'aim':>8}")
    for figure in figures:
        numbers = (figure.median, min(figure.runs), max(figure.runs))
        cells = "  ".join(f"{number:8.2f}" for number in numbers)
        aim = f"{figure.aim:8g}" if figure.aim else " " * 8
        print(f"{figure.name:{width}}  {cells}  {aim}  {figure.unit}")
        if figure.note:
            print(textwrap.fill(figure.note, 100, initial_indent="    ", subsequent_indent="    "))


if __name__ == "__main__":
    main()
