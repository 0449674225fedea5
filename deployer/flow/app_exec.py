"""`deploy app exec`: a command as the app's processes run it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from deployer.components.app.layout import EXEC, Layout
from deployer.core.errors import InputError
from deployer.core.events import Sink
from deployer.core.manifest import Manifest, Process
from deployer.flow import provision
from deployer.flow.execute import ssh_words
from deployer.flow.request import Request
from deployer.flow.session import Session, single

_MISSING = "this machine has no app-exec yet: deploy up brings it"


def command(
    request: Request, sink: Sink, argv: Sequence[str], process: str, *, as_root: bool, terminal: bool
) -> list[str]:
    """The words of an ssh(1) that runs `argv` on the app's machine; it ends with the command's exit code.

    process: whose environment, the first one's for "". Placeholders of the manifest are filled in. Raises InputError.
    """
    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        app = session.project.app
        remote = remote_command(
            Layout(app, session.project.stack.domain), chosen(app, process), argv, as_root
        )
        machine = single(session.running(), "app", provision.roles(session.project))
        words = ssh_words(session, machine, [machine])
    # Neither a notice of ssh's own nor its greeting belongs to the command's answer.
    return [words[0], "-t" if terminal else "-T", "-o", "LogLevel=ERROR", *words[1:], remote]


def chosen(app: Manifest, name: str) -> Process:
    """The process of that name, or the first one. Raises InputError."""
    for process in app.processes:
        if name in ("", process.name):
            return process
    raise InputError(
        "choosing a process",
        f'{app.name} has no process "{name}"',
        f"known: {', '.join(process.name for process in app.processes)}",
    )


def remote_command(layout: Layout, process: Process, argv: Sequence[str], as_root: bool) -> str:
    """What the machine's shell gets."""
    expanded = [
        layout.expand(word, "the command", runtime=process.runtime, port=process.port) for word in argv
    ]
    words = [EXEC, layout.unit(process), "--path", layout.programs(process.runtime)]
    words += ["--root"] if as_root else []
    if layout.in_container(process.runtime) and not as_root:
        # Another container beside those that serve.
        expanded = [*layout.container(process.runtime).split(), *expanded]
    missing = f"{{ echo {shlex.quote(_MISSING)} >&2; exit 125; }}"
    return f"test -x {EXEC} || {missing}; exec {shlex.join([*words, '--', *expanded])}"
