"""Drawing results on standard output: as text for a person, or as the last JSON line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deployer.cli import output, parts
from deployer.cli.options import Settings

if TYPE_CHECKING:
    from deployer.core.plan import Change, Place, Plan


def _row(change: Mapping[str, Any]) -> list[str]:
    what = " ".join(str(change.get(key, "")) for key in ("action", "kind", "name"))
    detail = f"({change['detail']})" if change.get("detail") else ""
    return [str(change.get("machine", "")), str(change.get("component", "")), f"{what} {detail}".strip()]


def up(result: Mapping[str, Any], chosen: Settings) -> None:
    """Where the service is, what answered, what to know."""
    if parts.as_json(result, chosen):
        return
    parts.heading("Addresses")
    parts.lines(parts.pairs(result.get("urls")))
    parts.machines(result.get("machines"))
    parts.probes(result.get("probes"))
    made = result.get("changes") or ()
    if 0 < len(made) <= parts.FEW:
        parts.heading("Changed")
        parts.lines(output.table([_row(change) for change in made]))
    _entered(result)
    parts.notes(result.get("notes"))
    changed = result.get("changed")
    count = len(changed) if isinstance(changed, list | tuple) else int(changed or 0)
    what = parts.count(count, "change") if count else "no change"
    parts.verdict(result, f"Up, {what}, in {output.clock(float(result.get('seconds') or 0))}.")


def _entered(result: Mapping[str, Any]) -> None:
    """Records that nobody but the operator can set, when something changed."""
    if result.get("dns_by_hand") and result.get("changed"):
        parts.heading("DNS records to enter at whoever serves the zone")
        rows = [
            [str(one[key]) for key in ("name", "type", "ttl", "value")] for one in result.get("dns") or ()
        ]
        parts.lines(output.table(rows))


def status(result: Mapping[str, Any], chosen: Settings) -> None:
    """Every machine, probe and disk, then the verdict."""
    if parts.as_json(result, chosen):
        return
    parts.machines(result.get("machines"))
    parts.probes(result.get("probes"))
    parts.heading("Disks", result.get("disks"))
    parts.lines(parts.records([_disk(disk) for disk in result.get("disks") or ()]))
    parts.notes(result.get("notes"))
    problems = result.get("problems") or ()
    for problem in problems:
        output.write(parts.bad(f"problem: {problem}"))
    if result.get("ok"):
        parts.verdict(result, "All is well.")
    else:
        output.write(
            parts.bad(
                "Not well: the red probes and problems above say why; deploy logs shows what services wrote."
            )
        )


def _disk(disk: Mapping[str, Any]) -> dict[str, str]:
    """A disk in the units that people think in; --json has bytes."""
    free, size = (f"{disk[key] / (1 << 30):.1f} GiB" for key in ("available", "size"))
    used, inodes = f"{disk['percent']} %", f"{disk['inodes_percent']} %"
    return {
        "machine": disk["machine"],
        "mount": disk["mount"],
        "used": used,
        "free": free,
        "of": size,
        "inodes": inodes,
    }


def down(result: Mapping[str, Any], chosen: Settings) -> None:
    if parts.as_json(result, chosen):
        return
    deleted, stopped = result.get("deleted") or (), result.get("stopped") or ()
    for name in deleted:
        output.write(f"deleted {name}")
    for name in stopped:
        output.write(f"stopped our services on {name}; the machine and its data stay")
    for name in result.get("destroyed") or ():
        output.write(f"deleted the data volume {name}")
    kept = result.get("kept") or ()
    for volume in kept:
        price = f", {money(volume['price'], volume['currency'])}" if volume.get("price") else ""
        output.write(f"the data volume {volume['name']} ({volume['id']}) stays{price}")
    if kept:
        output.write("note: deploy down --destroy-data STACKNAME deletes what holds data, for ever")
    if names := result.get("dns"):
        output.write(f"{parts.count(len(names), 'set')} of records taken out of DNS")
    parts.notes(result.get("notes"))
    if deleted or stopped or names or result.get("destroyed"):
        output.write("Down.")
    else:
        output.write("Nothing to do: no machine of this deployment exists.")
    output.write("The secrets bundle and the project's files are kept.")


def plan(found: Plan, chosen: Settings) -> None:
    """Every change, machine by machine, component by component."""
    if parts.as_json(found.to_json(), chosen):
        return
    if found.cost or any(place.state != "exists" for place in found.machines):
        parts.heading("Machines", found.machines)
        parts.lines(parts.records([_place(place) for place in found.machines]))
    by_machine: dict[str, list[Change]] = {}
    for change in found.changes:
        by_machine.setdefault(change.machine, []).append(change)
    for machine, changes in by_machine.items():
        parts.heading(machine or "Everywhere")
        _changes(changes, chosen.verbose)
    for warning in found.warnings:
        output.write(parts.odd(f"warning: {warning}"))
    parts.notes(found.notes)
    if found.cost:
        listed = sorted(found.cost.items())
        price = " and ".join(money(amount, currency, found.approximate) for currency, amount in listed)
        output.write(f"All machines: {price}; traffic is not counted.")
    if found.empty:
        output.write("No changes: everything is as the project's files say.")
        return
    counts: dict[str, int] = {}
    for change in found.changes:
        counts[change.action] = counts.get(change.action, 0) + 1
    total = len(found.changes)
    kinds = ", ".join(f"{action} {count}" for action, count in counts.items())
    machines = parts.count(len(by_machine), "machine")
    output.write(f"{parts.count(total, 'change')} on {machines}: {kinds}.")


def _place(place: Place) -> dict[str, str]:
    words = {
        "create": "to be made",
        "start": "to be started",
        "remove": "to be deleted",
        "unwanted": "left alone",
    }
    return {
        "name": place.name,
        "state": words.get(place.state, place.state),
        "type": place.type,
        "address": place.address,
        "volume": f"{place.volume} GiB" if place.volume else "",
        "price": money(place.price, place.currency, place.approximate) if place.price else "",
    }


def _changes(changes: Sequence[Change], verbose: bool) -> None:
    """The rows of one machine; with `verbose`, below each file what differs in it."""
    joined = list(_joined(changes))
    rows = output.table([(c.component, c.action, c.kind, _named(c.name, c.detail)) for c in joined])
    for row, change in zip(rows, joined, strict=True):
        output.write(row)
        if not verbose or not change.diff:
            continue
        for line in change.diff.splitlines():
            colour = {"+": "green", "-": "red"}.get(line[:1])
            output.write(output.style(f"      {line}", sys.stdout, fg=colour))


def money(amount: float, currency: str, approximate: bool = False) -> str:
    """approximate: the vendor could not be asked for the price."""
    return f"{'~' if approximate else ''}{amount:.2f} {currency} a month"


def _joined(changes: Sequence[Change]) -> Iterable[Change]:
    """Packages of one component and action as one change: sixty lines of them hide what matters."""
    from deployer.core.plan import Change

    packages: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        if change.kind == "package":
            packages.setdefault((change.component, change.action), []).append(change.name)
    for change in changes:
        if change.kind != "package":
            yield change
            continue
        names = packages.pop((change.component, change.action), None)
        if names:
            yield Change(change.machine, change.component, "package", " ".join(names), change.action)


def _named(name: str, detail: str) -> str:
    return f"{name}  ({detail})" if detail else name


def answers(found: Sequence[Mapping[str, Any]], chosen: Settings) -> None:
    """What each machine answered; output of one machine alone is passed on as it is."""
    if parts.as_json(list(found), chosen):
        return
    for answer in found:
        if len(found) > 1:
            parts.heading(
                f"{answer['machine']}" + (f" (exit code {answer['code']})" if answer["code"] else "")
            )
        for line in str(answer["stdout"]).splitlines():
            output.write(line)
        for line in str(answer["stderr"]).splitlines():
            output.note(line)
        if len(found) == 1 and answer["code"]:
            output.note(f"{answer['machine']}: exit code {answer['code']}")


def inbox(messages: Sequence[Mapping[str, Any]], chosen: Settings) -> None:
    """Message after message, the newest last."""
    if parts.as_json(list(messages), chosen):
        return
    for message in messages:
        parts.heading(f"{str(message.get('kind', '')).upper()}  {message.get('at', '')}")
        for key in ("sender", "to", "subject"):
            if message.get(key):
                output.write(f"  {key + ':':<9}{message[key]}")
        output.write("")
        for line in str(message.get("text", "")).rstrip().splitlines():
            output.write(f"  {line}".rstrip())
    if not messages:
        output.note("No messages.")


def init(result: Mapping[str, Any], chosen: Settings) -> None:
    if parts.as_json(result, chosen):
        return
    for file in result.get("files") or ():
        output.write(f"made {file}")
    parts.notes(result.get("notes"))


def secrets(found: Sequence[Mapping[str, Any]], chosen: Settings) -> None:
    if parts.as_json(list(found), chosen):
        return
    parts.lines(parts.records(found, indent=""))
    if not found:
        output.note("The bundle holds no secrets yet; the first `deploy up` makes them.")


def replaced(result: Mapping[str, Any], chosen: Settings) -> None:
    """A secret that was set or rotated, and what follows from it."""
    if parts.as_json(result, chosen):
        return
    output.write(f"{result['name']} has a new value.")
    parts.notes(result.get("notes"))


def version(result: Mapping[str, Any], chosen: Settings) -> None:
    if parts.as_json(result, chosen):
        return
    parts.lines(output.table([(key, parts.cell(value)) for key, value in result.items()], indent=""))


# --- parts ---


def table(records: Sequence[Mapping[str, Any]]) -> None:
    """Records below their keys as headings."""
    parts.lines(parts.records(list(records)))
