"""What an app's units say, and the plan that its switch shall reach."""

from __future__ import annotations

import json

from deployer.components.app.layout import SWITCH, Layout
from deployer.core.manifest import AppStep, Process


def process_values(layout: Layout, process: Process) -> dict[str, object]:
    def expand(text: str, part: str) -> str:
        what = f"{part} of process {process.name}"
        return layout.expand(text, what, runtime=process.runtime, port=process.port)

    return {
        **_unit_values(layout, process.name, process.environment_file, process.runtime),
        "command": for_systemd(_within(layout, process, expand(process.command, "command"), process.name)),
        "memory": process.memory,
        "prepare": tuple(for_systemd(expand(line, "prepare")) for line in process.prepare),
        "environment": _environment({key: expand(v, key) for key, v in process.environment.items()}),
        "start_timeout": process.start_timeout,
        "restored": layout.restored,
    }


def step_values(layout: Layout, step: AppStep) -> dict[str, object]:
    def expand(text: str, part: str) -> str:
        return layout.expand(text, f"{part} of step {step.name}", runtime=step.runtime)

    return {
        **_unit_values(layout, step.name, step.environment_file, step.runtime),
        "command": for_systemd(_within(layout, step, expand(step.command, "command"))),
        "environment": _environment({key: expand(v, key) for key, v in step.environment.items()}),
        "stdin": layout.stdin(step) if step.stdin else "",
        "timeout": step.timeout,
    }


def _within(layout: Layout, job: Process | AppStep, command: str, name: str = "") -> str:
    """The command, in a container where its runtime is one."""
    if not layout.in_container(job.runtime):
        return command
    return f"{layout.container(job.runtime, name)} {command}".rstrip()


def _unit_values(layout: Layout, name: str, environment_file: str, runtime: str) -> dict[str, object]:
    return {
        "containers": layout.containers_unit if layout.in_container(runtime) else "",
        "app": layout.app.name,
        "version": layout.app.version,
        "name": name,
        "user": layout.user,
        "data": layout.data,
        "switch": SWITCH,
        "environment_file": f"{layout.config}/{environment_file}" if environment_file else "",
    }


def _environment(environment: dict[str, str]) -> dict[str, str]:
    return {
        key: for_systemd(value).replace("\\", "\\\\").replace('"', '\\"')
        for key, value in environment.items()
    }


def for_systemd(text: str) -> str:
    """One line of a unit: a percent sign would start a specifier (systemd.unit(5))."""
    return " ".join(text.split()).replace("%", "%%")


def switch_plan(layout: Layout) -> str:
    """What app-switch shall reach, as JSON. Holds no secret."""
    app = layout.app
    files = [f"{layout.config}/{file.path}" for file in app.files]
    files += [f"/etc/systemd/system/{name}" for name in layout.units]
    plan = {
        "app": app.name,
        "version": app.version,
        "home": layout.home,
        "state": layout.state,
        "release": layout.release(),
        # Read for "is what runs what shall run?", and put back when a change fails.
        "files": [*files, layout.plan],
        "processes": [
            {
                "name": process.name,
                "unit": layout.unit(process),
                "ready": layout.expand(
                    process.ready,
                    f"ready of process {process.name}",
                    runtime=process.runtime,
                    port=process.port,
                ),
                "timeout": process.start_timeout,
            }
            for process in app.processes
        ],
        "migrations": [
            {
                "name": step.name,
                "unit": layout.step_unit(step),
                "reversible": step.reversible,
                "timeout": step.timeout,
            }
            for step in app.migrations
        ],
        "after_restore": [
            {"name": step.name, "unit": layout.step_unit(step), "timeout": step.timeout}
            for step in app.after_restore
        ],
    }
    return json.dumps(plan, indent=1) + "\n"
