"""The verbs about vendors: offers, orphans, adopt."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployer.cli import output, results
from deployer.cli.draw import confirmation, drawing
from deployer.cli.options import Settings, Verb, need_project, request, settings, target, targets
from deployer.core.errors import InputError

if TYPE_CHECKING:
    from deployer.flow.request import Request


def _request() -> Request:
    """Several inventories may be meant, so the target is not one."""
    from deployer.flow.request import Request

    chosen = settings()
    return Request(
        root=need_project(chosen), identity=chosen.identity, verbose=chosen.verbose, debug=chosen.debug
    )


@click.command(cls=Verb)
@targets
@click.option(
    "--role",
    type=click.Choice(["app", "database", "mail", "sms", "all"]),
    help="Only what is large enough for this role; all: for everything on one machine.",
)
def offers(provider: tuple[str, ...], inventory: tuple[Path, ...], role: str | None) -> None:
    """Compare what machines cost, vendor beside vendor.

    Asks every inventory's vendor for its machine types and prices a month, the cheapest first. Inventories
    without credentials are named. Prices are the vendors', without VAT and traffic; currencies are not
    converted. "~" marks those that the vendor could not be asked for: they are about that.

    \b
    Example:
      deploy offers --role app
      deploy offers --provider hetzner --provider aws --role all
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = _request()
        from deployer.flow.offers import offers as flow

        result = flow(asked, draw, role, provider, inventory)
    if chosen.json:
        output.write_json("result", {"data": result})
    else:
        _offers(result)


def _offers(result: Mapping[str, Any]) -> None:
    size = result["size"]
    if size:
        output.write(
            f"For {result['role']}: {size['cores']} cores, {size['memory']:g} GiB of memory, {size['disk']} GiB of disk"
        )
    results.table(
        [
            {
                "inventory": row["inventory"],
                "type": row["type"],
                "cores": row["cores"],
                "memory": f"{row['memory']:g} GiB",
                "disk": f"{row['disk']} GiB",
                "volume": f"{row['volume']} GiB" if row["volume"] else "",
                "price": results.money(row["price"], row["currency"], row["approximate"]),
            }
            for row in result["offers"]
        ]
    )
    if not result["offers"]:
        output.write("No offers.")
    _skipped(result)


def _skipped(result: Mapping[str, Any]) -> None:
    for one in result["skipped"]:
        output.write(f"skipped {one['inventory']}: {one['why']}")


@click.command(cls=Verb)
@targets
@click.option(
    "--delete",
    metavar="NAME",
    multiple=True,
    help="Delete this one, by name, id or KIND:NAME; once for each.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
def orphans(
    provider: tuple[str, ...], inventory: tuple[Path, ...], delete: tuple[str, ...], yes: bool
) -> None:
    """Find what costs money and belongs to nothing.

    Lists everything at every vendor of the project that carries the toolkit's label and belongs to no
    deployment that runs, with its age and price. Deletes only what you name.

    \b
    Example:
      deploy orphans
      deploy orphans --provider hetzner --delete agora-database-1-data
    """
    chosen = settings()
    with drawing(chosen) as draw:
        asked = _request()
        if delete:
            asked = replace(asked, confirm=confirmation(chosen, draw, yes, "deleting"))
        from deployer.flow.orphans import orphans as flow

        result = flow(asked, draw, delete, provider, inventory)
    if chosen.json:
        output.write_json("result", {"data": result})
    else:
        _orphans(result)


def _orphans(result: Mapping[str, Any]) -> None:
    results.table(
        [
            {
                "inventory": row["inventory"],
                "kind": row["kind"],
                "name": row["name"],
                "id": row["id"],
                "deployment": row["deployment"],
                "age": _age(row["age"]),
                "price": results.money(row["price"], row["currency"]) if row["price"] else "",
                "data": "holds data" if row["data"] else "",
                "why": row["why"],
            }
            for row in result["orphans"]
        ]
    )
    for row in result["deleted"]:
        output.write(f"deleted {row['kind']} {row['name']} ({row['id']})")
    _skipped(result)
    if result["orphans"]:
        cost = " and ".join(results.money(amount, name) for name, amount in sorted(result["cost"].items()))
        output.write(f"{len(result['orphans'])} left over" + (f": {cost}." if cost else "."))
    else:
        output.write("Nothing is left over at the vendors that were asked.")


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 2 * 86400:
        return output.clock(seconds)
    return f"{int(seconds // 86400)} days"


@click.command(cls=Verb)
@target
@click.option(
    "--from",
    "source",
    metavar="URL",
    help="Everything back from this repository: s3://KEY@host/bucket/prefix or file:///path.",
)
def adopt(provider: str | None, inventory: Path | None, source: str | None) -> None:
    """Take over a deployment on this computer.

    Rebuilds what this computer knows of a deployment that another one brought up: from the labels at the
    vendor and the secrets bundle. Says what it found; changes nothing there.

    With --from, on a computer that has an age identity and nothing else: brings stack, inventories, templates
    and secrets back from a repository's catalogue into this folder, and overwrites nothing. The repository's
    secret key is asked for, or taken from the variable DEPLOY_REPOSITORY_SECRET.

    \b
    Example:
      deploy adopt --provider hetzner
      deploy adopt --from 's3://KEY@s3.example.net/backups/agora?region=eu-1'
    """
    chosen = settings()
    if source is not None:
        if provider or inventory:
            raise InputError(
                "adopting",
                "--from and --provider were both given",
                "with --from the inventories come from the repository; leave --provider and --inventory out",
            )
        _regain(source, chosen)
        return
    with drawing(chosen) as draw:
        asked = request(provider, inventory)
        from deployer.flow.adopt import adopt as flow

        result = flow(asked, draw)
    if chosen.json:
        output.write_json("result", {"data": result})
        return
    results.table(result["machines"])
    for key, word in (("missing", "missing"), ("unwanted", "not in the inventory")):
        for name in result[key]:
            output.write(f"{word}: {name}")
    for path in result["written"]:
        output.write(f"wrote {path}")
    for note in result["notes"]:
        output.write(f"note: {note}")
    output.write(f"This computer knows {result['deployment']} now.")


def _regain(source: str, chosen: Settings) -> None:
    from deployer.flow.regain import VARIABLE, needs_secret, regain
    from deployer.flow.request import Request

    secret = os.environ.get(VARIABLE, "")
    if needs_secret(source) and not secret:
        if chosen.json or not sys.stdin.isatty():
            raise InputError(
                "asking for the repository's secret key",
                "there is no terminal to ask on",
                f"set the variable {VARIABLE}",
            )
        secret = click.prompt("Secret key of the repository", hide_input=True, err=True)
    root = chosen.root
    if not root.is_dir():
        raise InputError("adopting", f"the folder {root} does not exist", f"mkdir {root}")
    with drawing(chosen) as draw:
        asked = Request(root=root, identity=chosen.identity, verbose=chosen.verbose, debug=chosen.debug)
        result = regain(asked, draw, source, secret)
    if chosen.json:
        output.write_json("result", {"data": result})
        return
    for name in result["written"]:
        output.write(f"wrote {root / name}")
    for name in result["there"]:
        output.write(f"kept {root / name}, which is the same")
    for note in result["notes"]:
        output.write(f"note: {note}")
    output.write(
        f"This folder is the project of {result['stack']} as of {result['at']} "
        f"(generation {result['generation']}, last live: {result['deployment']})."
    )
