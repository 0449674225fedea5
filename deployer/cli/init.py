"""The verb init: a project of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from deployer.cli import results
from deployer.cli.options import Verb, settings


@click.command(cls=Verb)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--name", required=True, metavar="NAME", help="Short name of the stack: small letters, digits, dashes."
)
@click.option(
    "--domain", required=True, metavar="DOMAIN", help="The domain that it serves, such as example.org."
)
@click.option("--app", default="matrix", show_default=True, metavar="APP", help="The social app.")
def init(folder: Path, name: str, domain: str, app: str) -> None:
    """Make a project of your own.

    That is a folder with stack.yaml and inventories to edit. Nothing that exists is overwritten.

    \b
    Example:
      deploy init ~/agora --name agora --domain agora.example --app matrix
    """
    from deployer.flow.init import init as flow

    results.init(flow(folder.expanduser(), name, domain, app), settings())
