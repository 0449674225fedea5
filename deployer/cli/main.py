"""The command `deploy`: a group of verbs. Parsing here, work in flow/, drawing in draw.py and results.py."""

from __future__ import annotations

import sys

import click

from deployer import __version__
from deployer.cli import (
    about,
    app,
    backups,
    bring,
    doctor,
    failures,
    init,
    machines,
    migrate,
    output,
    receipts,
    restore,
    secrets,
    vendors,
)
from deployer.cli.options import Settings, Verbs

HEADINGS = {
    "Service": ("up", "plan", "status", "doctor", "down"),
    "App": ("app", "rollback"),
    "Backups": ("backup", "restore", "drill", "queue"),
    "Moving": ("migrate", "retire"),
    "Vendors": ("offers", "orphans", "adopt"),
    "Machines": ("logs", "ssh", "exec", "inbox"),
    "Project": ("init", "secrets", "receipts"),
    "Toolkit": ("version", "completion"),
}


@click.group(
    cls=Verbs,
    headings=HEADINGS,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="deploy")
@click.pass_context
def deploy(ctx: click.Context) -> None:
    """Bring up a whole social network on any vendor's machines, or on your own.

    \b
    Example:
      deploy up --provider local           the demo stack, on a machine inside this computer
      deploy status --provider local       is it well?
      deploy down --provider local         remove it again
    """


for verb in (
    bring.up,
    bring.plan,
    bring.status,
    doctor.doctor,
    bring.down,
    app.app,
    app.rollback,
    backups.backup,
    restore.restore,
    restore.drill,
    backups.queue,
    migrate.migrate,
    migrate.retire,
    vendors.offers,
    vendors.orphans,
    vendors.adopt,
    machines.logs,
    machines.ssh,
    machines.execute,
    machines.inbox,
    init.init,
    secrets.secrets,
    receipts.receipts,
    about.version,
    about.completion,
):
    deploy.add_command(verb)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script. Always ends by SystemExit."""
    words = sys.argv[1:] if arguments is None else arguments
    # What parsing has understood so far, also when it fails halfway.
    chosen = Settings(json="--json" in _before_command(words), debug="--debug" in _before_command(words))
    try:
        code = deploy.main(args=words, prog_name="deploy", standalone_mode=False, obj=chosen)
        # An integer is the exit code of ctx.exit, or what the verb returned.
        sys.exit(code if isinstance(code, int) else 0)
    except BrokenPipeError:
        output.discard_output()
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        verb = next((word for word in words if word in deploy.commands), "")
        sys.exit(failures.show(error, chosen, verb))


def _before_command(words: list[str]) -> list[str]:
    """The words before `--`, after which a command for a machine follows."""
    return words[: words.index("--")] if "--" in words else words
