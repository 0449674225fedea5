"""The command `deploy`."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def deploy() -> None:
    """Bring up a whole social network on any vendor's machines, or on your own."""


def main() -> None:
    """Entry point of the console script."""
    deploy(prog_name="deploy")
