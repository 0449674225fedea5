"""Ask the machines what is there: one request a machine, made from the specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.core.component import ComponentSpec
from deployer.core.errors import DeployError, UnreachableError
from deployer.core.machine import Facts
from deployer.flow.client import Engine

# Seconds for the whole look at one machine; each check in it is bounded itself.
BOUND = 90


@dataclass(frozen=True)
class Found:
    """What remote/observe.py answered for one machine."""

    machine: str
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def facts(self) -> Facts:
        facts = self.raw["facts"]
        return Facts(facts["cores"], facts["memory"], facts["architecture"], facts["system"])

    def part(self, name: str) -> Mapping[str, Any]:
        value: Mapping[str, Any] = self.raw.get(name, {})
        return value


# A machine that does not exist yet: compared with nothing.
def nothing(machine: str) -> Found:
    return Found(
        machine, {"facts": {"cores": 1, "memory": 1 << 30, "architecture": "amd64", "system": "debian 13"}}
    )


def step_key(spec: ComponentSpec, step: str) -> str:
    return f"{spec.name}.{step}"


def probes_of(specs: Sequence[ComponentSpec]) -> dict[str, list[object]]:
    """Probes that run on the machine, as {"component/name": [script, seconds]}."""
    return {
        f"{spec.name}/{probe.name}": [probe.args["script"], probe.timeout]
        for spec in specs
        for probe in spec.probes
        if not probe.outside
    }


def request_for(
    specs: Sequence[ComponentSpec],
    *,
    probes: bool = True,
    scripts: Mapping[str, str] | None = None,
    lease: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The request of remote/observe.py for these specs."""
    return {
        "files": sorted(
            {file.path for spec in specs for file in spec.files}
            | {directory.path for spec in specs for directory in spec.directories}
        ),
        "packages": sorted({package for spec in specs for package in spec.packages}),
        "users": sorted({user.name for spec in specs for user in spec.users}),
        "units": sorted({unit.name for spec in specs for unit in spec.units}),
        "components": [spec.name for spec in specs],
        "steps": {step_key(spec, step.name): step.check for spec in specs for step in spec.steps},
        "probes": probes_of(specs) if probes else {},
        "scripts": dict(scripts or {}),
        "lease": lease,
    }


def observe(engine: Engine, requests: Mapping[str, Mapping[str, Any]]) -> dict[str, Found]:
    """Look at all machines at once. Raises UnreachableError for the first that cannot be read."""
    answers = engine.ask("observe", bound=BOUND + 10, requests=requests, timeout=BOUND)
    found = {}
    for name, answer in answers.items():
        if "error" in answer:
            error = answer["error"]
            if error.get("kind") in ("unreachable", "timeout"):
                raise UnreachableError(
                    "looking at the machine",
                    error["why"],
                    "see whether it runs and answers SSH, then run this again",
                    machine=name,
                )
            raise DeployError(
                "looking at the machine", error["why"], machine=name, detail=error.get("detail", "")
            )
        found[name] = Found(name, answer)
    return found
