"""The verbs about the app: app exec, status, upgrade, new, check; rollback."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click

from deployer.cli import app_text
from deployer.cli.backups import handed_on
from deployer.cli.draw import confirmation, drawing
from deployer.cli.machines import CommandVerb, command_words
from deployer.cli.options import Verb, Verbs, need_project, request, settings, target
from deployer.core.errors import DeployError, InputError

_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
_app = click.option("--app", "name", metavar="APP", help="Another app than the stack's.")


@click.group(cls=Verbs)
@target
@click.pass_context
def app(ctx: click.Context, provider: str | None, inventory: Path | None) -> None:
    """Look after the app: run commands, upgrade, write one.

    \b
    Example:
      deploy app status --provider hetzner
      deploy app upgrade --provider hetzner --to 1.164.0 --lock synapse.lock
    """
    handed_on(ctx, provider, inventory)


@app.command("exec", cls=CommandVerb)
@target
@_app
@click.option(
    "--process", metavar="NAME", default="", help="Whose environment; the first process's otherwise."
)
@click.option("--as-root", is_flag=True, help="As root, and without the sandbox.")
@click.argument("stray", nargs=-1, metavar="-- COMMAND...")
def execute(
    provider: str | None,
    inventory: Path | None,
    name: str | None,
    process: str,
    as_root: bool,
    stray: tuple[str, ...],
) -> int:
    """Run a command in the app's own environment.

    On the app's machine, as the app's user, in its data folder, with the environment and the sandbox of a process, and
    with the programs of its runtime first in PATH. Placeholders of app.yaml such as {config} are filled in.
    Standard input is handed on; ends with the command's exit code.

    \b
    Example:
      deploy app exec --provider local --process synapse -- register_new_matrix_user -c {config}/homeserver.yaml -u anna
      deploy app exec --provider local --process web -- python manage.py shell
      deploy app exec --provider local -- sqlite3 {data}/notes.db < report.sql
    """
    argv = command_words()
    if stray:
        raise click.UsageError(f"{stray[0]!r} stands before --; the command comes after it")
    if not argv:
        raise click.UsageError("there is no command; add it: -- COMMAND...")
    chosen = settings()
    terminal = not chosen.json and sys.stdin.isatty() and sys.stdout.isatty()
    with drawing(chosen) as draw:
        asked = request(provider, inventory, app=name)
        from deployer.flow.app_exec import command

        words = command(asked, draw, argv, process, as_root=as_root, terminal=terminal)
    sys.stdout.flush()
    try:
        if not chosen.json:
            os.execvp(words[0], words)
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise DeployError(
            "logging in", f"the program {words[0]} is missing on this computer", "install it (openssh-client)"
        ) from None
    app_text.answered({"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}, chosen)
    return done.returncode


@app.command(cls=Verb)
@target
@_app
def status(provider: str | None, inventory: Path | None, name: str | None) -> int:
    """Show the release in service and those kept.

    The one before it and whether there is a way back, their size, and what the project's files would bring, with its
    migrations. Ends with 1 when no release serves.

    \b
    Example:
      deploy app status --provider hetzner
      deploy app status --provider hetzner --json | tail -1
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory, app=name)
        from deployer.flow.app_state import status as flow

        result = flow(asked, draw)
    app_text.status(result, chosen)
    return 0 if result["ok"] else 1


@app.command(cls=Verb)
@target
@_app
@click.option("--to", "version", metavar="VERSION", default="", help="Else what app.yaml says.")
@click.option(
    "--lock",
    "locks",
    metavar="[RUNTIME=]FILE",
    multiple=True,
    help="A new lock file, of the name that app.yaml gives it or for that runtime; once for each.",
)
@click.option("--no-backup", is_flag=True, help="Make no recovery point, also where one is due.")
@_yes
def upgrade(
    provider: str | None,
    inventory: Path | None,
    name: str | None,
    version: str,
    locks: tuple[str, ...],
    no_backup: bool,
    yes: bool,
) -> None:
    """Bring another version of the app into service.

    Writes version and lock files into templates/apps/APP of the project's folder, builds the release beside the one
    that serves, and changes over while requests wait. Before a migration that cannot be undone a recovery point is made.
    If the new release does not answer, the old one serves again, and the files say it again.

    \b
    Example:
      deploy app upgrade --provider hetzner --to 1.164.0 --lock synapse.lock --lock sydent=~/new.lock
      deploy app upgrade --provider hetzner            what you wrote into app.yaml yourself
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory, app=name)
        asked = replace(asked, confirm=confirmation(chosen, draw, yes, "changing the release"))
        from deployer.flow.app_upgrade import Wish
        from deployer.flow.app_upgrade import upgrade as flow

        result = flow(asked, draw, Wish(version, locks, not no_backup))
    app_text.changed(result, chosen)


@app.command(cls=Verb)
@click.argument("name")
def new(name: str) -> None:
    """Write an app of your own that runs as it stands.

    A folder templates/apps/NAME in the project's folder, with an app.yaml that explains itself.

    \b
    Example:
      deploy app new notes
    """
    chosen = settings()
    with drawing(chosen):
        root = need_project(chosen)
        from deployer.flow.app_new import new as flow

        result = flow(root, name)
    app_text.made(result, chosen)


@app.command(cls=Verb)
@click.argument("name")
@target
def check(name: str, provider: str | None, inventory: Path | None) -> int:
    """Say what is wrong with an app's files.

    Schema, templates, units (by systemd-analyze where this computer has it), ports, data, secrets and routes. Needs no
    machine and no secret. Ends with 1 when something is wrong.

    \b
    Example:
      deploy app check notes
    """
    if provider and inventory:
        raise InputError("choosing where", "--provider and --inventory were both given", "give one of them")
    chosen = settings()
    with drawing(chosen):
        root = need_project(chosen)
        from deployer.flow.app_check import check as flow

        result = flow(root, name, provider, inventory)
    app_text.checked(result, chosen)
    return 0 if result["ok"] else 1


@click.command(cls=Verb)
@target
@_app
@click.option(
    "--to",
    "release",
    metavar="RELEASE",
    default="",
    help="A kept release or its version; else the one before.",
)
@click.option(
    "--despite-migrations",
    is_flag=True,
    help="Also over migrations that cannot be undone: it bears their data.",
)
@click.option(
    "--files-only", is_flag=True, help="Only have the project's files say it, for a restore that follows."
)
@_yes
def rollback(
    provider: str | None,
    inventory: Path | None,
    name: str | None,
    release: str,
    despite_migrations: bool,
    files_only: bool,
    yes: bool,
) -> None:
    """Go back to the app's release before this one.

    From what the machine keeps of it, so it works on any operator's computer. Data stay as they are; so it refuses, and
    says what to do, when a migration that cannot be undone ran since then. The project's files say that release then.

    \b
    Example:
      deploy rollback --provider hetzner
      deploy rollback --provider hetzner --to 1.163.2
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory, app=name)
        asked = replace(asked, confirm=confirmation(chosen, draw, yes, "changing the release"))
        from deployer.flow.app_rollback import Wish
        from deployer.flow.app_rollback import rollback as flow

        result = flow(asked, draw, Wish(release, despite_migrations, files_only))
    app_text.changed(result, chosen)
