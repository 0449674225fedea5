"""The verbs that move a live service: migrate, retire."""

from __future__ import annotations

from dataclasses import replace

import click

from deployer.cli import migrate_text
from deployer.cli.draw import confirmation, drawing
from deployer.cli.options import Verb, anywhere, complete_provider, settings

_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")


@click.command(cls=Verb)
@click.option(
    "--from",
    "old",
    metavar="NAME",
    default="",
    shell_complete=complete_provider,
    help="The inventory where the service is.",
)
@click.option(
    "--to",
    "new",
    metavar="NAME",
    default="",
    shell_complete=complete_provider,
    help="The inventory where it shall be.",
)
@click.option("--back", is_flag=True, help="Take the last move back: the same move the other way.")
@click.option("--resume", is_flag=True, help="Go on with the move that is under way, whoever began it.")
@click.option(
    "--max-pause",
    type=click.FloatRange(3, 600),
    default=25.0,
    show_default=True,
    metavar="SECONDS",
    help="Without its permit by then, the old side opens again. After 30 the proxy answers 503.",
)
@click.option("--old-is-dead", is_flag=True, help="The old side is gone for good: go on without its word.")
@click.option(
    "--rehearse",
    is_flag=True,
    help="Try it with a copy on machines that are thrown away; says what to expect.",
)
@click.option("--give-up", is_flag=True, help="Give up the move that is under way; the old side serves on.")
@_yes
def migrate(
    old: str,
    new: str,
    back: bool,
    resume: bool,
    max_pause: float,
    old_is_dead: bool,
    rehearse: bool,
    give_up: bool,
    yes: bool,
) -> None:
    """Move the live service to another vendor's machines.

    Copies database and files while the old side serves; then requests wait for some seconds, the new side takes over,
    and the old one forwards to it until the names have changed everywhere. Nothing that was acknowledged is lost.
    Until the old side has given its permit, it opens again by itself. Afterwards it follows, and --back leads there,
    until deploy retire. Killed anywhere, the same command goes on.

    \b
    Example:
      deploy migrate --from hetzner --to aws --rehearse
      deploy migrate --from hetzner --to aws
      deploy migrate --back
    """
    chosen = settings()
    if sum((bool(old or new), back, resume, give_up)) != 1:
        raise click.UsageError("give --from and --to, or --back, or --resume, or --give-up")
    if rehearse and not (old and new):
        raise click.UsageError("--rehearse needs --from and --to")
    with drawing(chosen) as draw:
        asked = replace(anywhere(), confirm=confirmation(chosen, draw, yes, "changing anything"))
        if give_up:
            from deployer.flow.retire import give_up as flow_give_up

            result = flow_give_up(asked, draw)
        elif rehearse:
            from deployer.flow.trial import rehearse as flow_rehearse

            result = flow_rehearse(asked, draw, old, new)
        else:
            from deployer.flow.migrate import Wish
            from deployer.flow.migrate import migrate as flow

            result = flow(asked, draw, Wish(old, new, back, resume, max_pause, old_is_dead))
    migrate_text.migrated(result, chosen)


@click.command(cls=Verb)
@_yes
def retire(yes: bool) -> None:
    """End the way back of the last move.

    The old side's machines are deleted (your own are only stopped), and every secret that they held is replaced on
    the machines that serve. Data volumes stay until deploy down --destroy-data.

    \b
    Example:
      deploy retire
    """
    chosen = settings()
    with drawing(chosen) as draw:
        from deployer.flow.retire import retire as flow

        asked = replace(anywhere(), confirm=confirmation(chosen, draw, yes, "changing anything"))
        result = flow(asked, draw)
    migrate_text.retired(result, chosen)
