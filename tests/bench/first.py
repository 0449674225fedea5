"""The first installation, beside a plain shell script that only installs the same packages."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, timed
from tests.bench.place import local_section, operator
from tests.e2e.operator import CHECKOUT, Operator
from tests.rig.world import World

# Installations of each kind, in turn.
RUNS = 2


def first(world: World, folder: Path, runs: int) -> list[Figure]:
    """`up` on a bare machine, and the script on another, in turn.

    Both find the same packages in the same cache; what the app's runtimes hold comes from the same cache of uv.
    """
    text = "provider: local\nmachines:\n- roles: [all]\n" + local_section(world)
    near = operator(folder, "first", "local", text)
    try:
        near.good("up", "--yes")
        return _in_turn(world, near)
    finally:
        near.good("down", "--yes")


def _in_turn(world: World, near: Operator) -> list[Figure]:
    packages = near.on("first-all-1", "apt-mark showmanual").split()
    script = plain_script(packages)
    up = Figure("first up on a bare machine", "s", machines=1)
    plain = Figure("a plain script that installs the same packages", "s", machines=1)
    for number in range(RUNS):
        near.good("down", "--yes")
        began = time.perf_counter()
        run = near.good("up", "--yes")
        up.runs.append(time.perf_counter() - began)
        up.note = _longest(run.events)
        machine, shell = world.bare(f"plain-{number}")
        shell.run("true")
        plain.runs.append(timed(lambda remote=shell: remote.run("bash -s", stdin=script, timeout=900)))
        shell.close()
        world.provider.delete_machine(machine)
    ratio = Figure("first up against the plain script", "times", aim=1.3, machines=1)
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
