"""Commands about the app's processes, for flows to send by `run`."""

from __future__ import annotations

from deployer.components.app.layout import SWITCH, Layout
from deployer.core.model import Project


def _layout(project: Project) -> Layout:
    return Layout(project.app, project.stack.domain)


def stop(project: Project) -> tuple[str, ...]:
    """Stop every process and wait until it is gone. They start again with the machine."""
    return ("systemctl", "stop", *_layout(project).units)


def start(project: Project) -> tuple[str, ...]:
    """Start what was in service. Returns at once; `put_in_service` waits until it answers."""
    return ("systemctl", "start", "--no-block", *_layout(project).units)


def put_in_service(project: Project) -> tuple[str, ...]:
    """Bring the written release and configuration into service and wait until every process is ready.

    Exit 1 with the reason and the journal on standard error; what served before serves again then.
    """
    return (SWITCH, project.app.name)


def journal(project: Project, lines: int = 50) -> tuple[str, ...]:
    """The last lines that the processes wrote."""
    units = (word for name in _layout(project).units for word in ("-u", name))
    return ("journalctl", "--no-pager", "-o", "short-iso", "-n", str(lines), *units)
