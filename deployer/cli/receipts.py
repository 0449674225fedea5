"""The verb receipts: what was done, listed, in words, and as a page."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from deployer.cli import output, results
from deployer.cli.options import Verb, Verbs, need_project, settings
from deployer.core.amounts import size

if TYPE_CHECKING:
    from deployer.flow.story import Story

_WORDS = {"good": "good", "degraded": "with faults", "bad": "BAD"}
_COLOURS = {"good": "green", "degraded": "yellow", "bad": "red"}
# Failed requests that are named one by one; --json has those of the receipt.
FEW = 12


def _complete(ctx: click.Context, argument: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from deployer.flow.receipts import ids

    return [CompletionItem(one) for one in ids(settings(ctx).root) if one.startswith(incomplete)]


_id = click.argument("id", metavar="ID|last", shell_complete=_complete)


@click.group(cls=Verbs, invoke_without_command=True)
@click.pass_context
def receipts(ctx: click.Context) -> None:
    """Show what was done, how long it took, and what it met.

    Each up that changed something, each restore, drill and migrate leaves a receipt in receipts/ of the project.
    Without a verb of its own: a table, the newest last. Asks no machine.

    \b
    Example:
      deploy receipts
      deploy receipts show last
      deploy receipts page last -o move.html
    """
    if ctx.invoked_subcommand:
        return
    chosen = settings()
    root = need_project(chosen)
    from deployer.flow.receipts import list_

    found = list_(root)
    if chosen.json:
        output.write_json("result", {"data": found})
    else:
        _list(found)


def _list(found: Mapping[str, Any]) -> None:
    rows = [
        {
            "when": one["at"][:16].replace("T", " "),
            "verb": one["verb"],
            "deployment": one["deployment"],
            "took": "" if one["seconds"] is None else output.clock(one["seconds"]),
            "result": _WORDS[one["state"]],
            "what_matters": ", ".join(one["matters"]),
        }
        for one in found["receipts"]
    ]
    results.table(rows)
    for name in found["unreadable"]:
        output.write(output.style(f"receipts/{name} is no receipt", sys.stdout, fg="yellow"))
    if rows:
        output.write(f'Times are UTC. More of one: deploy receipts show last, or show "{rows[-1]["when"]}"')
    else:
        output.note("No receipts: the first deploy up writes one.")


@receipts.command(cls=Verb)
@_id
def show(id: str) -> None:
    """Tell one in words.

    ID: its file's name in receipts/ without .json, or its time, as far as only one has it.

    \b
    Example:
      deploy receipts show last
      deploy receipts show "2026-11-24 20:45" --json
    """
    chosen = settings()
    root = need_project(chosen)
    from deployer.flow.receipts import show as flow

    story, body = flow(root, id)
    if chosen.json:
        output.write_json("result", {"data": {"id": story.id, "state": story.state, "receipt": body}})
    else:
        _show(story)


def _show(story: Story) -> None:
    took = "" if story.seconds is None else f", {output.clock(story.seconds)}"
    output.write(output.style(story.title, sys.stdout, bold=True))
    output.write(f"  deploy {story.verb}, {story.deployment}, {story.at:%Y-%m-%d %H:%M:%S} UTC{took}")
    _table("What was done", story.facts)
    _table(
        "Phases",
        [(one.name, output.clock(one.seconds), size(one.bytes)) for one in story.phases],
    )
    _table("Seen from outside", story.outside_facts)
    _table("Requests that failed", story.failures[:FEW])
    if story.failures[FEW:]:
        output.write(f"  and {len(story.failures) - FEW} more; --json has them")
    _table("Sizes", [(name, size(count), output.clock(took)) for name, count, took in story.sizes])
    _table("Verified", [(said,) for said in story.verified])
    green = [name for name, answer in story.probes if answer == "green"]
    if story.probes:
        output.write(f"Probes  {len(green)} of {len(story.probes)} green")
    if story.way_back:
        output.write(f"The way back: {story.way_back}")
    for said in story.notes:
        output.write(f"note: {said}")
    for said in story.problems:
        output.write(output.style(f"problem: {said}", sys.stdout, fg="red"))
    verdict = {"good": "Good.", "degraded": "Done, with faults: see above.", "bad": "It failed: see above."}
    output.write(output.style(verdict[story.state], sys.stdout, fg=_COLOURS[story.state]))


def _table(heading: str, rows: Any) -> None:
    if rows:
        output.write(output.style(heading, sys.stdout, bold=True))
        for line in output.table([tuple(row) for row in rows]):
            output.write(line)


@receipts.command(cls=Verb)
@_id
@click.option(
    "-o",
    "--output",
    "to",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Into this file, which is replaced; - for standard output. Otherwise receipts/ID.html.",
)
def page(id: str, to: Path | None) -> None:
    """Write one as a page that can be shown to others.

    One file of HTML with its drawings; it needs no network and no script. It holds what the receipt holds: names of
    machines and what was done, no secrets. Look at it before you hand it on.

    \b
    Example:
      deploy receipts page last
      deploy receipts page migrate-agora@aws-20261124T204500Z -o move.html
    """
    chosen = settings()
    root = need_project(chosen)
    from deployer.flow.receipts import page as flow

    path, text = flow(root, id, to)
    if chosen.json:
        output.write_json("result", {"data": {"page": str(path), "bytes": len(text.encode())}})
    elif str(path) == "-":
        output.write(text.rstrip("\n"))
    else:
        output.write(f"wrote {path}")
