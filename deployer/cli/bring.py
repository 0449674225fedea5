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
_destroy = click.option(
    "--allow-destroy",
    metavar="NAME",
    multiple=True,
    help="A machine that the inventory does not name any more and that may be deleted; once for each.",
)
_app = click.option("--app", metavar="APP", help="Another app than the stack's.")


@click.command(cls=Verb)
@target
@_app
@_yes
@_trust
@_destroy
def up(
    provider: str | None,
    inventory: Path | None,
    app: str | None,
    yes: bool,
    trust_first: bool,
    allow_destroy: tuple[str, ...],
) -> None:
    """Bring the service up, or to what your files say now.

    Makes the machines that are missing, installs and configures what differs, starts it, and ends when
    every probe is green. Safe to repeat: a run that was stopped or killed is continued by the next. Nothing
    is deleted but what --allow-destroy names.

    \b
    Example:
      deploy up --provider local --yes
      deploy up --inventory inventories/rack.yaml --trust-first
      deploy up --provider hetzner --allow-destroy agora-mail-1
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory, app=app, trust_first=trust_first, allow_destroy=allow_destroy)
        asked = replace(asked, confirm=confirmation(chosen, draw, yes, "changing anything"))
        from deployer.flow.up import up as flow

        result = flow(asked, draw)
    results.up(result, chosen)


@click.command(cls=Verb)
@target
@_app
@_trust
@_destroy
@click.option("--exit-code", is_flag=True, help="End with 3 when changes are pending.")
def plan(
    provider: str | None,
    inventory: Path | None,
    app: str | None,
    trust_first: bool,
    allow_destroy: tuple[str, ...],
    exit_code: bool,
) -> int:
    """Show what up would change, and the price; change nothing.

    Machines, volumes, firewall, names, packages, files. With -v also what differs in each file.

    \b
    Example:
      deploy plan --provider local
      deploy plan --provider hetzner -v
      deploy plan --provider local --exit-code     3 when changes are pending, 0 when not
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(
            provider,
            inventory,
            app=app,
            trust_first=trust_first,
            allow_destroy=allow_destroy,
            details=chosen.verbose or chosen.json,
        )
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
@click.option(
    "--destroy-data", metavar="STACKNAME", default="", help="Delete the stack's data volumes too, for ever."
)
def down(provider: str | None, inventory: Path | None, yes: bool, destroy_data: str) -> None:
    """Remove the machines with all on their disks.

    Asks first. Data volumes of vendors that have them stay. Machines of your own (baremetal) are left as they
    are. Secrets and project files are kept.

    \b
    Example:
      deploy down --provider local --yes
      deploy down --provider hetzner --destroy-data agora
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory, destroy_data=destroy_data)
        asked = replace(asked, confirm=confirmation(chosen, draw, yes, "removing machines and their data"))
        from deployer.flow.down import down as flow

        result = flow(asked, draw)
    results.down(result, chosen)
