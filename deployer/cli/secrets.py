"""The verbs of the secrets bundle: list, show, edit, rotate."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from deployer.cli import output, results
from deployer.cli.options import Verb, Verbs, need_project, settings
from deployer.core.errors import InputError

if TYPE_CHECKING:
    from deployer.flow.request import Request


def _request() -> Request:
    """Secrets belong to the stack, so no target is needed."""
    from deployer.flow.request import Request

    chosen = settings()
    return Request(
        root=need_project(chosen), identity=chosen.identity, verbose=chosen.verbose, debug=chosen.debug
    )


@click.group(cls=Verbs)
def secrets() -> None:
    """List, show, set or rotate secrets of the bundle.

    The bundle is secrets.age in the project's folder. Only `show` prints a value, and nothing else ever does.

    \b
    Example:
      deploy secrets list
      deploy secrets rotate database/synapse
    """


@secrets.command("list", cls=Verb)
def list_() -> None:
    """List the names of all secrets, without their values.

    \b
    Example:
      deploy secrets list
    """
    from deployer.flow.secrets import list_secrets

    results.secrets(list_secrets(_request()), settings())


@secrets.command(cls=Verb)
@click.argument("name")
def show(name: str) -> None:
    """Show the value of one secret.

    \b
    Example:
      deploy secrets show app/admin_password
    """
    from deployer.flow.secrets import read_secret

    value = read_secret(_request(), name)
    if settings().json:
        output.write_json("result", {"data": {"name": name, "value": value}})
    else:
        output.write(value)


@secrets.command(cls=Verb)
@click.argument("name")
def edit(name: str) -> None:
    """Set one secret to a value of your own.

    It is asked for without showing it. Where there is no terminal the value is read from standard
    input, as it stands but for the last line end.

    \b
    Example:
      deploy secrets edit app/admin_password
      deploy secrets edit mail_relay/dkim < dkim.pem
    """
    asked = _request()
    if sys.stdin.isatty():
        value = click.prompt(
            f"New value of {name}", hide_input=True, confirmation_prompt="Once more", err=True
        )
    else:
        value = sys.stdin.read().removesuffix("\n")
    if not value:
        raise InputError("reading the new value", "it is empty", "type it, or give it on standard input")
    from deployer.flow.secrets import set_secret

    results.replaced(set_secret(asked, name, value), settings())


@secrets.command(cls=Verb)
@click.argument("name")
def rotate(name: str) -> None:
    """Make a new value for one secret.

    The next `deploy up` brings it to the machines.

    \b
    Example:
      deploy secrets rotate cache/password
    """
    from deployer.flow.secrets import rotate as flow

    results.replaced(flow(_request(), name), settings())
