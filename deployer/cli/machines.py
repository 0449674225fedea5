"""The verbs that look at machines: logs, ssh, exec, inbox."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from deployer.cli import output, results
from deployer.cli.draw import drawing
from deployer.cli.options import Verb, request, settings, target
from deployer.core.errors import DeployError


class CommandVerb(Verb):
    """A verb after whose `--` a command for the machine follows. Options may stand anywhere before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_COMMAND] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


_COMMAND = "deploy.command"


def command_words() -> list[str]:
    """What stands after --."""
    return list(click.get_current_context().meta.get(_COMMAND, []))


@click.command(cls=Verb)
@click.argument("what", required=False, metavar="[COMPONENT|UNIT]")
@target
@click.option("--machine", metavar="NAME", help="Only this machine.")
@click.option(
    "-n", "--lines", type=click.IntRange(1), default=100, show_default=True, help="The last N lines."
)
@click.option(
    "--since", metavar="TIME", help="From this time on, as journalctl reads it: 10min ago, 2026-11-24 03:00."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on; Ctrl-C ends it.")
def logs(
    what: str | None,
    provider: str | None,
    inventory: Path | None,
    machine: str | None,
    lines: int,
    since: str | None,
    follow: bool,
) -> None:
    """Show what the services wrote to their journal.

    Those of all components, of one component, or of one unit.

    \b
    Example:
      deploy logs --provider local mail_relay --since "10min ago"
      deploy logs --provider local --machine demo-all-1 --follow
      deploy logs --provider local postgresql@17-main.service
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.logs import logs as flow

        for line in flow(asked, draw, what, machine, lines, since, follow):
            draw.pause()
            if chosen.json:
                output.write_json("line", {"text": line})
            else:
                output.write(line)
            if output.Reader.gone:
                break


@click.command(cls=CommandVerb)
@click.argument("where", required=False, metavar="[MACHINE|ROLE] [-- COMMAND...]")
@target
def ssh(where: str | None, provider: str | None, inventory: Path | None) -> None:
    """Log in to a machine, by its name or by a role.

    Roles are app, database, mail and sms. Where there is one machine it need not be named. Only the host
    key that the toolkit knows is accepted.

    \b
    Example:
      deploy ssh --provider local
      deploy ssh --provider local database
      deploy ssh --provider local demo-all-1 -- systemctl --failed
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.ssh import ssh_command

        argv = [*ssh_command(asked, draw, where), *command_words()]
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        raise DeployError(
            "logging in", f"the program {argv[0]} is missing on this computer", "install it (openssh-client)"
        ) from None


@click.command("exec", cls=CommandVerb)
@target
@click.option("--machine", metavar="NAME", help="Only on this machine.")
@click.option("--role", metavar="ROLE", help="Only on machines of this role: app, database, mail, sms.")
@click.argument("stray", nargs=-1, metavar="-- COMMAND...")
def execute(
    provider: str | None,
    inventory: Path | None,
    machine: str | None,
    role: str | None,
    stray: tuple[str, ...],
) -> int:
    """Run a command on the machines, and show the answers.

    It runs as root. Ends with 1 when it failed anywhere. Each word stays one argument; for pipes use bash -c.

    \b
    Example:
      deploy exec --provider local -- df -h /
      deploy exec --provider local --role mail -- bash -c 'postqueue -p | tail -1'
    """
    chosen = settings()
    argv = command_words()
    if stray:
        raise click.UsageError(f"{stray[0]!r} stands before --; the command comes after it")
    if not argv:
        raise click.UsageError("there is no command; add it: -- COMMAND...")
    if machine and role:
        raise click.UsageError("--machine and --role were both given; give one of them")
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.execute import execute as flow

        answers = flow(asked, draw, argv, machine, role)
    results.answers(answers, chosen)
    return 1 if any(answer["code"] for answer in answers) else 0


@click.command(cls=Verb)
@target
@click.option("--mail", is_flag=True, help="Mail only.")
@click.option("--sms", is_flag=True, help="SMS only.")
@click.option("--to", metavar="ADDRESS", help="Only messages to this address or number.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the last N messages.")
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Wait until there is one; 1 if none comes.",
)
def inbox(
    provider: str | None,
    inventory: Path | None,
    mail: bool,
    sms: bool,
    to: str | None,
    last: int | None,
    wait: float | None,
) -> int:
    """Show mail and SMS that were caught, not sent.

    That is what `catch: true` in an inventory does; local has it.

    \b
    Example:
      deploy inbox --provider local
      deploy inbox --provider local --sms --to +491701234567 --last 1 --wait 30
    """
    chosen = settings()
    kind = None if mail == sms else ("mail" if mail else "sms")
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.inbox import inbox as flow

        messages = flow(asked, draw, kind, to, last, wait or 0)
    results.inbox(messages, chosen)
    return 1 if wait and not messages else 0
