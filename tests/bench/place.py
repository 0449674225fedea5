"""Where it is measured: real machines on a bridge of their own, and links that take time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from providers import local
from tests.e2e.operator import CHECKOUT, Operator
from tests.rig.objects import Objects
from tests.rig.world import NUMBER, World

# Milliseconds to a machine elsewhere.
ROUND_TRIP = 50
# What is asked of a machine from outside.
PORTS = (22, 25, 443)


@contextmanager
def bench_world() -> Iterator[World]:
    """The rig without its DNS and certificate authority, which nothing here needs."""
    with tempfile.TemporaryDirectory(prefix="deploy-bench-rig-", dir="/var/tmp") as folder:
        world = World(Path(folder), bridge=f"dbench{NUMBER}", prefix=f"10.{229 - NUMBER}.0")
        world.provider.check()
        world.provider.prepare()
        try:
            yield world
        finally:
            world.stop()


def operator(folder: Path, name: str, inventory: str, text: str, app: str = "matrix") -> Operator:
    """Somebody with a project of that name and one inventory."""
    (folder / "project" / "inventories").mkdir(parents=True)
    (folder / "home").mkdir()
    stack = f"name: {name}\ndomain: bench.test\napp: {app}\n"
    (folder / "project" / "stack.yaml").write_text(stack, encoding="utf-8")
    (folder / "project" / "inventories" / f"{inventory}.yaml").write_text(text, encoding="utf-8")
    return Operator(folder / "project", inventory, folder / "home")


def local_section(world: World, layer: Path | None = None) -> str:
    texts = {
        key: f"[{', '.join(value)}]" if isinstance(value, list) else value
        for key, value in world.options.items()
    }
    lines = [f"  {key}: {value}" for key, value in texts.items()]
    lines += [f"  layer: [{layer}]"] if layer else []
    return "local:\n" + "\n".join(lines) + "\n"


@contextmanager
def vendors(world: World, folder: Path, ports: Mapping[str, int]) -> Iterator[dict[str, Objects]]:
    """Vendors of object storage at the bridge's own address, by name. The bridge is there with its first machine."""
    with ExitStack() as stack:
        made = {}
        for name, port in ports.items():
            (folder / name).mkdir(parents=True)
            place = (_gateway(world), port)
            made[name] = stack.enter_context(Objects(folder / name, f"{name}.social.test", place))
        yield made


def reaching(world: World, ports: Mapping[str, int]) -> None:
    """Machines that are made from now on reach these vendors, and so do the others then."""
    world.options["reach"] = [f"tcp/{port}@{_gateway(world)}" for port in ports.values()]
    world.provider = local.make(world.options, world.deployment)


def _gateway(world: World) -> str:
    return str(world.options["subnet"]).rpartition(".")[0] + ".1"


def far_address(number: int) -> str:
    """An address of this computer that stands for a machine elsewhere. number: from 1."""
    return f"127.{100 + NUMBER}.0.{number}"


@contextmanager
def relay(ways: Mapping[str, str]) -> Iterator[None]:
    """ways: address here -> machine; everything takes half of the round trip, each way."""
    listed = [f"{here}:{port}={there}:{port}" for here, there in ways.items() for port in PORTS]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.rig.delay", str(ROUND_TRIP), *listed],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield
    finally:
        process.terminate()
        process.wait(10)
