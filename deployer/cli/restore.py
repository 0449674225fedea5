"""The verbs that bring a service back from a repository: restore, drill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from deployer.cli import restore_text
from deployer.cli.draw import confirmation, drawing
from deployer.cli.options import Verb, request, settings, target

_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")


@click.command(cls=Verb)
@target
@click.option(
    "--from", "source", metavar="REPO", default="", help="Repository; else the one with the newest data."
)
@click.option("--at", metavar="TIME", default="", help="As of this moment (UTC unless it names a zone).")
@click.option(
    "--point", metavar="ID", default="", help="As of this recovery point; deploy backup points lists them."
)
@click.option(
    "--as", "name", metavar="NAME", default="", help="Under another name, beside what is there: STACK@NAME."
)
@click.option(
    "--old-is-dead",
    is_flag=True,
    help="Whoever is live now is gone for good; it serves nothing any more if it comes back.",
)
@_yes
def restore(
    provider: str | None,
    inventory: Path | None,
    source: str,
    at: str,
    point: str,
    name: str,
    old_is_dead: bool,
    yes: bool,
) -> None:
    """Bring the service back from a repository.

    Makes the machines, brings back database, files and queues, checks them, starts the service and moves
    its names. Needs an operator's age identity and one repository; deploy adopt --from fetches all else.
    Killed anywhere, the same command goes on. Mail and SMS that waited are held until deploy queue release.

    \b
    Example:
      deploy restore --provider aws --old-is-dead
      deploy restore --provider baremetal --from second --at 2026-11-24T03:00:00Z
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = replace(request(provider, inventory), as_name=name)
        asked = replace(asked, confirm=confirmation(chosen, draw, yes, "changing anything"))
        from deployer.flow.restore import Wish
        from deployer.flow.restore import restore as flow

        result = flow(asked, draw, Wish(source, at, point, old_is_dead))
    restore_text.restored(result, chosen)


@click.command(cls=Verb)
@target
@click.option("--from", "source", metavar="REPO", default="", help="This repository; else the newest data.")
@click.option("--each", is_flag=True, help="Every repository, one after the other.")
@click.option("--at", metavar="TIME|random", default="", help="As of this moment, or of one by chance.")
@click.option(
    "--on", metavar="INVENTORY", default="drill", show_default=True, help="Whose provider makes the machine."
)
@click.option("--keep", is_flag=True, help="Leave the machine of a drill that failed, to look at it.")
def drill(
    provider: str | None,
    inventory: Path | None,
    source: str,
    each: bool,
    at: str,
    on: str,
    keep: bool,
) -> int:
    """Prove the backups by restoring them on a throw-away machine.

    Everything comes from the repository: the secrets, the project, the app, the data. The service starts with
    every way out closed, its probes are asked, a person signs up, and the machine is deleted. Ends with 1 when
    one repository failed.

    \b
    Example:
      deploy drill --provider hetzner --each
      deploy drill --provider hetzner --from second --at random
    """
    if each and source:
        raise click.UsageError("--each and --from were both given; give one of them")
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.drill import Exercise
        from deployer.flow.drill import drill as flow

        result = flow(asked, draw, Exercise(source, each, at, on, keep))
    restore_text.drilled(result, chosen)
    return 0 if result["ok"] else 1
