"""The verbs about backups: backup create, list, points, verify, prune; queue status, release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from deployer.cli import backups_text
from deployer.cli.draw import confirmation, drawing
from deployer.cli.options import Verb, Verbs, inventories, request, settings, target


def _complete_repository(
    ctx: click.Context, option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from deployer.flow.holdings import repository_names

    names = repository_names(settings(ctx).root, ctx.params.get("provider"), ctx.params.get("inventory"))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


_repository = click.option(
    "--repository", metavar="NAME", shell_complete=_complete_repository, help="Only this repository."
)
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")


def handed_on(ctx: click.Context, provider: str | None, inventory: Path | None) -> None:
    """The target may stand before the verb of the group too: `deploy backup --provider hetzner list`."""
    given = {key: value for key, value in {"provider": provider, "inventory": inventory}.items() if value}
    group = ctx.command
    assert isinstance(group, click.Group)
    ctx.default_map = dict.fromkeys(group.commands, given)


@click.group(cls=Verbs)
@target
@click.pass_context
def backup(ctx: click.Context, provider: str | None, inventory: Path | None) -> None:
    """Make, list, verify and prune backups.

    They are made by themselves, as `backup:` of stack.yaml says, in every repository of the inventory.

    \b
    Example:
      deploy backup list --provider hetzner
      deploy backup create --provider hetzner
    """
    handed_on(ctx, provider, inventory)


@backup.command(cls=Verb)
@target
@_repository
@click.option(
    "--type",
    "type_",
    type=click.Choice(["full", "diff"]),
    help="Of the database; otherwise the one that is due, or diff.",
)
def create(provider: str | None, inventory: Path | None, repository: str | None, type_: str | None) -> int:
    """Make a backup now.

    The files of all machines at one point, the database into each repository, and the catalogue (secrets bundle,
    project files, the app as it was built). A repository that fails stops no other; ends with 1 then.

    \b
    Example:
      deploy backup create --provider hetzner
      deploy backup create --provider hetzner --repository minio --type full
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.backups import create as flow

        result = flow(asked, draw, repository, type_ or "auto")
    backups_text.created(result, chosen)
    return 0 if result["ok"] else 1


@backup.command("list", cls=Verb)
@target
def list_(provider: str | None, inventory: Path | None) -> int:
    """Show what each repository holds, and how old it is.

    The newest commit is read back from the repository. "proven" is the last drill or restore from it. Ends
    with 1 when something could not be asked.

    \b
    Example:
      deploy backup list --provider hetzner
      deploy backup list --provider hetzner --json | tail -1
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.holdings import list_ as flow

        result = flow(asked, draw)
    backups_text.listed(result, chosen)
    return 1 if result["failed"] else 0


@backup.command(cls=Verb)
@target
@_repository
@click.option(
    "--last", type=click.IntRange(1), default=20, show_default=True, help="The newest N; --json has all."
)
def points(provider: str | None, inventory: Path | None, repository: str | None, last: int) -> None:
    """List the recovery points.

    At these times there are snapshots of files: `restore --point TIME`. The database alone can be restored to any
    moment between: `restore --at TIME` takes the files of the point before it.

    \b
    Example:
      deploy backup points --provider hetzner --repository minio
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.holdings import points as flow

        result = flow(asked, draw, repository)
    backups_text.points(result, chosen, last)


@backup.command(cls=Verb)
@target
@_repository
def verify(provider: str | None, inventory: Path | None, repository: str | None) -> int:
    """Read back everything, and say what is damaged.

    The database's backups and WAL, the files' snapshots and the catalogue, by their checksums. This reads all that
    the repositories hold, which vendors may charge for. Ends with 1 when something is damaged.

    \b
    Example:
      deploy backup verify --provider hetzner
      deploy backup verify --provider hetzner --repository minio
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.backups import verify as flow

        result = flow(asked, draw, repository)
    backups_text.verified(result, chosen)
    return 0 if result["ok"] else 1


def _complete_place(ctx: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in inventories(settings(ctx).root) if name.startswith(incomplete)]


@backup.command(cls=Verb)
@target
@_repository
@_yes
@click.option(
    "--on",
    metavar="INVENTORY",
    shell_complete=_complete_place,
    help="Where to make the throw-away machine, by name or file; otherwise this computer.",
)
@click.option(
    "--generation",
    "generations",
    type=click.IntRange(1),
    metavar="N",
    multiple=True,
    help="Delete all backups of this generation, which must be over; once for each.",
)
def prune(
    provider: str | None,
    inventory: Path | None,
    repository: str | None,
    yes: bool,
    on: str | None,
    generations: tuple[int, ...],
) -> int:
    """Delete backups that are older than the policy keeps.

    Keeps keep_full full backups and keep_files days of files (`backup:` of stack.yaml). Uses prune_key, which no
    machine of the stack has: runs on this computer when pgbackrest and restic are installed, else on a throw-away
    machine. Asks first.

    \b
    Example:
      deploy backup prune --provider hetzner
      deploy backup prune --provider hetzner --on aws --yes
      deploy backup prune --provider hetzner --generation 1
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        asked = replace(asked, confirm=confirmation(chosen, draw, yes, "deleting backups"))
        from deployer.flow.pruning import prune as flow

        result = flow(asked, draw, repository, on, generations)
    backups_text.pruned(result, chosen)
    return 0 if result["ok"] else 1


# --- queue ---


@click.group(cls=Verbs)
@target
@click.pass_context
def queue(ctx: click.Context, provider: str | None, inventory: Path | None) -> None:
    """See and release mail and SMS that a restore held.

    What waited when the backup was made may have been sent since: somebody should look before it goes out.

    \b
    Example:
      deploy queue status --provider hetzner
      deploy queue release --provider hetzner --mail
    """
    handed_on(ctx, provider, inventory)


@queue.command("status", cls=Verb)
@target
def queue_status(provider: str | None, inventory: Path | None) -> None:
    """Show how much waits, and whether it is held.

    \b
    Example:
      deploy queue status --provider hetzner
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.queues import status as flow

        result = flow(asked, draw)
    backups_text.queues(result, chosen)


@queue.command(cls=Verb)
@target
@click.option("--mail", is_flag=True, help="Mail only.")
@click.option("--sms", is_flag=True, help="SMS only.")
def release(provider: str | None, inventory: Path | None, mail: bool, sms: bool) -> None:
    """Let what is held go out.

    SMS that waited longer than 15 minutes are dropped: they are codes that have expired.

    \b
    Example:
      deploy queue release --provider hetzner
      deploy queue release --provider hetzner --sms
    """
    chosen = settings()
    kinds = ("mail", "sms") if mail == sms else ("mail",) if mail else ("sms",)
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.queues import release as flow

        result = flow(asked, draw, kinds)
    backups_text.queues(result, chosen)
