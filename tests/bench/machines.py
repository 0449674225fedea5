"""Does an unchanged `up` of several machines take longer than of one? The stack on 1, 2 and 4 machines, and machines
with *base* only, all behind a link with latency."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from providers.local.processes import control_group, unit
from providers.local.settings import Settings, parse
from tests.bench.figures import Figure, timed
from tests.bench.place import ROUND_TRIP, far_address, local_section, operator, relay
from tests.e2e.operator import Operator
from tests.rig import layer
from tests.rig.world import World

STACK = {
    1: ("[all]",),
    2: ("[app, mail, sms]", "[database]"),
    4: ("[app]", "[database]", "[mail]", "[sms]"),
}
BARE = (1, 2, 4, 16)
# Runs in which all machines must have come up.
PATIENCE = 4
# The aim of the design: four machines against one.
AIM = {4: 1.5}


@dataclass
class Fleet:
    """Machines of one deployment, brought up nearby. entries: what `up` says of them."""

    near: Operator
    entries: Sequence[dict[str, Any]]
    groups: Sequence[Path]

    def __len__(self) -> int:
        return len(self.entries)

    def cpu(self) -> float:
        """CPU seconds that the machines have used so far; 0 where the kernel does not tell."""
        found = 0.0
        for group in self.groups:
            try:
                lines = (group / "cpu.stat").read_text(encoding="ascii").splitlines()
            except OSError:
                return 0
            found += sum(int(line.split()[1]) for line in lines if line.startswith("usage_usec")) / 1e6
        return found


def machines(world: World, folder: Path, runs: int) -> list[Figure]:
    """The whole stack on more machines."""
    return _compare(world, folder, runs, "the stack", STACK)


def bare(world: World, folder: Path, runs: int) -> list[Figure]:
    """Machines that have nothing but what every machine has."""
    return _compare(world, folder, runs, "base only", {number: ("[base]",) * number for number in BARE})


def _compare(
    world: World, folder: Path, runs: int, what: str, plans: dict[int, tuple[str, ...]]
) -> list[Figure]:
    """The deployments one after the other, then again: what else the computer does meets all of them alike."""
    numbers = count(1)
    with ExitStack() as stack:
        fleets = []
        installed: Path | None = None
        for number, roles in plans.items():
            name = f"{what[:4].strip()}{number}"
            fleet = stack.enter_context(_fleet(world, folder / name, name, roles, installed))
            fleets.append(fleet)
            if installed is None:
                # The others find installed what the first has installed.
                disk = world.folder / "machines" / "machines" / str(fleet.entries[0]["name"])
                installed = layer.make(disk, folder / "layer")
        far = [(fleet, stack.enter_context(_far(fleet, numbers))) for fleet in fleets]
        return _measure(what, far, runs)


@contextmanager
def _fleet(
    world: World, folder: Path, name: str, roles: Sequence[str], installed: Path | None
) -> Iterator[Fleet]:
    entries = "".join(f"- roles: {one}\n" for one in roles)
    text = f"provider: local\nmachines:\n{entries}" + local_section(world, installed)
    near = operator(folder, name, "local", text)
    try:
        # On a busy computer one of many machines may boot too slowly for a run; the next goes on from there.
        for _ in range(PATIENCE):
            if near.run("up", "--yes").code == 0:
                break
        result = near.good("up", "--yes").result
        settings = parse(world.options)
        yield Fleet(near, result["machines"], [_group(one["name"], settings) for one in result["machines"]])
    finally:
        near.good("down", "--yes")


def _group(machine: str, settings: Settings) -> Path:
    found = control_group(machine, settings)
    return (
        found if found and found.is_dir() else Path("/sys/fs/cgroup/system.slice") / unit(machine, settings)
    )


@contextmanager
def _far(fleet: Fleet, numbers: Iterator[int]) -> Iterator[Operator]:
    """The same machines as bare metal elsewhere."""
    ways = {far_address(next(numbers)): str(one["address"]) for one in fleet.entries}
    lines = []
    for (here, there), one in zip(ways.items(), fleet.entries, strict=True):
        roles = ", ".join(one["roles"]) or "base"
        lines.append(
            f"- {{name: {one['name']}, roles: [{roles}], address: {here}, private_address: {there}}}\n"
        )
    text = "provider: ssh\nmachines:\n" + "".join(lines) + "catch: true\nacme: {directories: []}\n"
    (fleet.near.folder / "inventories" / "far.yaml").write_text(text, encoding="utf-8")
    far = Operator(fleet.near.folder, "far", fleet.near.home)
    with relay(ways):
        far.good("up", "--yes", "--trust-first")
        yield far


def _measure(what: str, fleets: Sequence[tuple[Fleet, Operator]], runs: int) -> list[Figure]:
    walls = [
        Figure(f"unchanged up, {what}", "s", machines=len(fleet), round_trip=ROUND_TRIP)
        for fleet, _ in fleets
    ]
    for number in range(runs + 1):
        for (fleet, far), figure in zip(fleets, walls, strict=True):
            wall, here, there = _once(fleet, far)
            # The first round warms caches up.
            if number:
                figure.runs.append(wall)
                figure.here.append(here)
                figure.there.append(there)
    ratios = []
    for figure in walls[1:]:
        ratio = Figure(
            f"  {what}: against one machine",
            "times",
            [many / one for many, one in zip(figure.runs, walls[0].runs, strict=True)],
            aim=AIM.get(figure.machines, 0) if what == "the stack" else 0,
            machines=figure.machines,
            round_trip=ROUND_TRIP,
        )
        ratios.append(ratio)
    return [*walls, *ratios]


def _once(fleet: Fleet, far: Operator) -> tuple[float, float, float]:
    """Wall, CPU seconds here, CPU seconds there."""
    here, there = _own_cpu(), fleet.cpu()
    result: dict[str, Any] = {}
    wall = timed(lambda: result.update(far.good("up", "--yes").result))
    assert result["changed"] == 0, result["changes"]
    return wall, _own_cpu() - here, fleet.cpu() - there


def _own_cpu() -> float:
    """Of the programs that were started from here and have ended: deploy, which waits for its engine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
