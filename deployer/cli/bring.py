"""The verbs about the whole service: up, plan, status, down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from deployer.cli import results
from deployer.cli.draw import confirmation, drawing
from deployer.cli.options import Verb, request, settings, target

_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
_trust = click.option(
    "--trust-first",
    is_flag=True,
    help="Accept an unknown host key on the first connection to a machine of your own, and remember it.",
)
_app = click.option("--app", metavar="APP", help="Another app than the stack's.")


@click.command(cls=Verb)
@target
@_app
@_yes
@_trust
def up(provider: str | None, inventory: Path | None, app: str | None, yes: bool, trust_first: bool) -> None:
    """Bring the service up, or to what your files say now.

    Makes the machines that are missing, installs and configures what differs, starts it, and ends when
    every probe is green. Safe to repeat: a run that was stopped or killed is continued by the next.

    \b
    Example:
      deploy up --provider local --yes
      deploy up --inventory inventories/rack.yaml --trust-first
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory, app=app, trust_first=trust_first)
        asked = replace(asked, confirm=confirmation(chosen, draw, yes, "changing anything"))
        from deployer.flow.up import up as flow

        result = flow(asked, draw)
    results.up(result, chosen)


@click.command(cls=Verb)
@target
@_app
@_trust
@click.option("--exit-code", is_flag=True, help="End with 3 when changes are pending.")
def plan(
    provider: str | None, inventory: Path | None, app: str | None, trust_first: bool, exit_code: bool
) -> int:
    """Show what up would change; change nothing.

    \b
    Example:
      deploy plan --provider local
      deploy plan --provider local --exit-code     3 when changes are pending, 0 when not
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory, app=app, trust_first=trust_first)
        from deployer.flow.plan import plan as flow

        found = flow(asked, draw)
    results.plan(found, chosen)
    return 3 if exit_code and not found.empty else 0


@click.command(cls=Verb)
@target
def status(provider: str | None, inventory: Path | None) -> int:
    """Say whether the service is well.

    Shows machines, probes and disks. Ends with 1 when it is not well. "degraded" means that it serves,
    but something you should know is missing, such as a carrier for SMS.

    \b
    Example:
      deploy status --provider local
      deploy status --provider local --json | tail -1
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.status import status as flow

        result = flow(asked, draw)
    results.status(result, chosen)
    return 0 if result.get("ok") else 1


@click.command(cls=Verb)
@target
@_yes
def down(provider: str | None, inventory: Path | None, yes: bool) -> None:
    """Remove the machines with all data on them.

    Asks first. Machines of your own (baremetal) are left as they are. Secrets and project files are kept.

    \b
    Example:
      deploy down --provider local --yes
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        asked = replace(asked, confirm=confirmation(chosen, draw, yes, "removing machines and their data"))
        from deployer.flow.down import down as flow

        result = flow(asked, draw)
    results.down(result, chosen)
