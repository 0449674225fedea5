"""From "the vendor is gone" to all probes green, by phase: the receipt of a `deploy restore` of the whole stack."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from deployer.core.keytext import public_ssh
from deployer.core.machine import Deployment
from providers import local
from tests.bench.figures import Figure
from tests.bench.place import local_section, operator, reaching, vendors
from tests.e2e.operator import Operator
from tests.rig.objects import Objects
from tests.rig.remote import Remote
from tests.rig.world import World

PORTS = {"own": 9503, "other": 9504}
NAME = "gone"
# Seconds for a backup, and for the restore.
PATIENCE = 3600
SETTINGS = "/etc/deploy/backups/settings.json"


def gone(world: World, folder: Path, scale: float) -> list[Figure]:
    """A stack with two vendors and data of that size; one vendor vanishes, and its machine with it."""

    world.start_names()
    reaching(world, PORTS)
    with ExitStack() as stack:
        stores = stack.enter_context(vendors(world, folder, PORTS))
        for one in stores.values():
            stack.enter_context(one.known())
            world.set_records([{"name": one.host, "type": "A", "value": one.address}])
        who = _project(world, folder / "operator", stores)
        stack.callback(who.run, "down", "--yes")
        # On a busy computer a probe may be late; the next run goes on from there.
        if who.run("up", "--yes").code:
            who.good("up", "--yes")
        address = who.good("up", "--yes").result["machines"][0]["address"]
        _live(who, address, scale)
        # The vendor goes, with the machine and with its repository.
        provider = local.make(world.options, Deployment(NAME, "local"))
        for machine in provider.list_machines(Deployment(NAME, "local")):
            provider.delete_machine(machine)
        stores["own"].vanish()
        began, runs = time.monotonic(), []
        while not runs or (runs[-1].code and len(runs) < 3):
            # One that stops goes on when it is run again; the seconds count.
            runs.append(who.run("restore", "--yes", timeout=PATIENCE))
        wall = time.monotonic() - began
    if runs[-1].code:
        print(f"no restore: {runs[-1].out[-2000:]}{runs[-1].err[-500:]}")
        return []
    figures = _figures(wall, runs[-1].result["restore"], scale)
    figures[0].note = f"in {len(runs)} runs; the phases are those of the last" if len(runs) > 1 else ""
    return figures


def _project(world: World, folder: Path, stores: Mapping[str, Objects]) -> Operator:
    text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(world)
    text += f"  nameservers: [{world.internet.address}]\n"
    text += "repositories:\n" + "".join(one.section(f"{name}.crt") for name, one in stores.items())
    who = operator(folder, NAME, "local", text)
    for name, one in stores.items():
        (who.folder / f"{name}.crt").write_text(one.ca, encoding="utf-8")
    return who


def _live(who: Operator, address: str, scale: float) -> None:
    """Data of that size, all of them in the backups."""
    from tests.bench.backups import fill

    host_key = who.secret(f"ssh/host/{NAME}-all-1") + "\n"
    shell = Remote(address, who.secret("ssh/deploy") + "\n", public_ssh(host_key))
    data = json.loads(shell.run(f"cat {SETTINGS}"))["data"]
    media = next(one["where"] for one in data if one["name"].endswith("media"))
    fill(shell, media, scale)
    shell.run(f"chown -R --reference={media} {media}")
    shell.close()
    who.good("backup", "create", timeout=PATIENCE)


def _figures(wall: float, record: Mapping[str, Any], scale: float) -> list[Figure]:
    figures = [Figure('from "vendor gone" to all probes green', "s", [wall], machines=1)]
    figures += [
        Figure(f"  {name}", "s", [seconds], machines=1) for name, seconds in record["seconds"].items()
    ]
    parts = [
        f"{name}: " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in part["seconds"].items())
        for name, part in record["parts"].items()
    ]
    speed = Figure(
        "  data against the time of its phase", "MB/s", [record.get("mb_per_second", 0)], machines=1
    )
    speed.note = f"scale {scale:g}, {record['bytes'] / 1e6:.0f} MB; " + "; ".join(parts)
    return [*figures, speed]
