"""Drawing results on standard output: as text for a person, or as the last JSON line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deployer.cli import output
from deployer.cli.options import Settings

if TYPE_CHECKING:
    from deployer.core.plan import Change, Place, Plan


def _json(data: object, chosen: Settings) -> bool:
    """Write the result as JSON when that was asked for. Returns whether it was."""
    if chosen.json:
        output.write_json("result", {"data": data})
    return chosen.json


# So many changes are named after `up`; of more, --verbose tells.
FEW = 12


def _row(change: Mapping[str, Any]) -> list[str]:
    what = " ".join(str(change.get(key, "")) for key in ("action", "kind", "name"))
    detail = f"({change['detail']})" if change.get("detail") else ""
    return [str(change.get("machine", "")), str(change.get("component", "")), f"{what} {detail}".strip()]


def up(result: Mapping[str, Any], chosen: Settings) -> None:
    """Where the service is, what answered, what to know."""
    if _json(result, chosen):
        return
    _heading("Addresses")
    _lines(_pairs(result.get("urls")))
    _machines(result.get("machines"))
    _probes(result.get("probes"))
    made = result.get("changes") or ()
    if 0 < len(made) <= FEW:
        _heading("Changed")
        _lines(output.table([_row(change) for change in made]))
    _entered(result)
    _notes(result.get("notes"))
    changed = result.get("changed")
    count = len(changed) if isinstance(changed, list | tuple) else int(changed or 0)
    what = _count(count, "change") if count else "no change"
    _verdict(result, f"Up, {what}, in {output.clock(float(result.get('seconds') or 0))}.")


def _entered(result: Mapping[str, Any]) -> None:
    """Records that nobody but the operator can set, when something changed."""
    if result.get("dns_by_hand") and result.get("changed"):
        _heading("DNS records to enter at whoever serves the zone")
        rows = [
            [str(one[key]) for key in ("name", "type", "ttl", "value")] for one in result.get("dns") or ()
        ]
        _lines(output.table(rows))


def restored(result: Mapping[str, Any], chosen: Settings) -> None:
    """What `up` says, and what came back."""
    if _json(result, chosen):
        return
    record = result.get("restore") or {}
    up({**result, "changes": ()}, chosen)
    _heading("Restored")
    rows = [
        ["from", f"{record.get('repository')}, generation {record.get('from_generation')}"],
        ["database as of", str(record.get("recovered_to") or "unknown")],
        ["files as of", str(record.get("point") or "unknown")],
        ["now generation", str(record.get("generation"))],
        *([name, output.clock(float(took))] for name, took in (record.get("seconds") or {}).items()),
        ["in all", output.clock(float(record.get("total_seconds") or 0))],
    ]
    if "recovery_point_seconds" in record:
        rows.insert(3, ["lost at most", f"{record['recovery_point_seconds']:g} s before the restore began"])
    if record.get("mb_per_second"):
        rows.append(["speed", f"{record['mb_per_second']:g} MB/s"])
    _lines(output.table(rows))
    _lines([f"missing: {text}" for text in (record.get("lacks") or ())[:FEW]])


def drilled(result: Mapping[str, Any], chosen: Settings) -> None:
    """A line for each repository, then what was checked, or why it failed."""
    if _json(result, chosen):
        return
    rows = [
        [
            one["repository"],
            "proven" if one["ok"] else "FAILED",
            one.get("recovered_to") or "",
            output.clock(float(one.get("total_seconds") or 0)),
        ]
        for one in result["drills"]
    ]
    _heading("Drills")
    _lines(output.table(rows))
    for one in result["drills"]:
        said = str(one["why"]).splitlines() if one.get("why") else one.get("checks") or ()
        _lines([f"{one['repository']}: {text}" for text in said])


def status(result: Mapping[str, Any], chosen: Settings) -> None:
    """Every machine, probe and disk, then the verdict."""
    if _json(result, chosen):
        return
    _machines(result.get("machines"))
    _probes(result.get("probes"))
    _heading("Disks", result.get("disks"))
    _lines(_records([_disk(disk) for disk in result.get("disks") or ()]))
    _notes(result.get("notes"))
    problems = result.get("problems") or ()
    for problem in problems:
        output.write(_bad(f"problem: {problem}"))
    if result.get("ok"):
        _verdict(result, "All is well.")
    else:
        output.write(
            _bad(
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
    if _json(result, chosen):
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
        output.write(f"{_count(len(names), 'set')} of records taken out of DNS")
    _notes(result.get("notes"))
    if deleted or stopped or names or result.get("destroyed"):
        output.write("Down.")
    else:
        output.write("Nothing to do: no machine of this deployment exists.")
    output.write("The secrets bundle and the project's files are kept.")


def plan(found: Plan, chosen: Settings) -> None:
    """Every change, machine by machine, component by component."""
    if _json(found.to_json(), chosen):
        return
    if found.cost or any(place.state != "exists" for place in found.machines):
        _heading("Machines", found.machines)
        _lines(_records([_place(place) for place in found.machines]))
    by_machine: dict[str, list[Change]] = {}
    for change in found.changes:
        by_machine.setdefault(change.machine, []).append(change)
    for machine, changes in by_machine.items():
        _heading(machine or "Everywhere")
        _changes(changes, chosen.verbose)
    for warning in found.warnings:
        output.write(_odd(f"warning: {warning}"))
    _notes(found.notes)
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
    machines = _count(len(by_machine), "machine")
    output.write(f"{_count(total, 'change')} on {machines}: {kinds}.")


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
    if _json(list(found), chosen):
        return
    for answer in found:
        if len(found) > 1:
            _heading(f"{answer['machine']}" + (f" (exit code {answer['code']})" if answer["code"] else ""))
        for line in str(answer["stdout"]).splitlines():
            output.write(line)
        for line in str(answer["stderr"]).splitlines():
            output.note(line)
        if len(found) == 1 and answer["code"]:
            output.note(f"{answer['machine']}: exit code {answer['code']}")


def inbox(messages: Sequence[Mapping[str, Any]], chosen: Settings) -> None:
    """Message after message, the newest last."""
    if _json(list(messages), chosen):
        return
    for message in messages:
        _heading(f"{str(message.get('kind', '')).upper()}  {message.get('at', '')}")
        for key in ("sender", "to", "subject"):
            if message.get(key):
                output.write(f"  {key + ':':<9}{message[key]}")
        output.write("")
        for line in str(message.get("text", "")).rstrip().splitlines():
            output.write(f"  {line}".rstrip())
    if not messages:
        output.note("No messages.")


def init(result: Mapping[str, Any], chosen: Settings) -> None:
    if _json(result, chosen):
        return
    for file in result.get("files") or ():
        output.write(f"made {file}")
    _notes(result.get("notes"))


def secrets(found: Sequence[Mapping[str, Any]], chosen: Settings) -> None:
    if _json(list(found), chosen):
        return
    _lines(_records(found, indent=""))
    if not found:
        output.note("The bundle holds no secrets yet; the first `deploy up` makes them.")


def replaced(result: Mapping[str, Any], chosen: Settings) -> None:
    """A secret that was set or rotated, and what follows from it."""
    if _json(result, chosen):
        return
    output.write(f"{result['name']} has a new value.")
    _notes(result.get("notes"))


def version(result: Mapping[str, Any], chosen: Settings) -> None:
    if _json(result, chosen):
        return
    _lines(output.table([(key, _cell(value)) for key, value in result.items()], indent=""))


# --- parts ---


def table(records: Sequence[Mapping[str, Any]]) -> None:
    """Records below their keys as headings."""
    _lines(_records(list(records)))


def _heading(text: str, content: object = True) -> None:
    """A heading, when there is something to stand below it."""
    if content:
        output.write(output.style(text, sys.stdout, bold=True))


def _lines(lines: Iterable[str]) -> None:
    for line in lines:
        output.write(line)


def _pairs(found: object) -> list[str]:
    if isinstance(found, Mapping):
        return output.table([(str(key), _cell(value)) for key, value in found.items()])
    return [f"  {_cell(item)}" for item in found] if isinstance(found, list | tuple) else []


def _machines(found: object, heading: str = "Machines") -> None:
    _heading(heading, found)
    if isinstance(found, list | tuple) and all(isinstance(item, Mapping) for item in found):
        _lines(_records(found))
    else:
        _lines(_pairs(found))


def _probes(found: object) -> None:
    """Probes in a line when all are green; else the others are named, with why."""
    if not isinstance(found, list | tuple) or not found:
        return
    bad = [probe for probe in found if not probe.get("ok")]
    if not bad:
        output.write(output.style("Probes", sys.stdout, bold=True) + f"  all {len(found)} green")
        return
    output.write(
        output.style("Probes", sys.stdout, bold=True) + f"  {len(found) - len(bad)} of {len(found)} green"
    )
    for probe in bad:
        word = "degraded" if probe.get("degrades") else "red"
        place = f"{probe['machine']}: " if probe.get("machine") else ""
        name = "/".join(str(probe[key]) for key in ("component", "name") if probe.get(key))
        text = f"  {word:<8}  {place}{name}: {probe.get('detail') or 'no answer'}"
        output.write(_odd(text) if word == "degraded" else _bad(text))


def _notes(found: object) -> None:
    if isinstance(found, list | tuple):
        for text in found:
            output.write(f"note: {text}")


def _verdict(result: Mapping[str, Any], text: str) -> None:
    """The last line; a degraded deployment is named so, with its reasons where there are."""
    degraded = result.get("degraded")
    if not degraded:
        output.write(output.style(text, sys.stdout, fg="green"))
        return
    output.write(_odd(f"{text} Degraded: it serves, but something is missing:"))
    _lines(_odd(f"  {reason}") for reason in degraded)


def _records(found: object, indent: str = "  ") -> list[str]:
    """Records as a table with their keys as headings."""
    if not isinstance(found, list | tuple) or not found:
        return []
    keys = list(dict.fromkeys(key for record in found for key in record))
    # A column that says nothing takes no room.
    keys = [key for key in keys if any(record.get(key) not in (None, "", [], {}) for record in found)]
    rows = [[key.replace("_", " ") for key in keys]]
    rows += [[_cell(record.get(key)) for key in keys] for record in found]
    return output.table(rows, indent)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _bad(text: str) -> str:
    return output.style(text, sys.stdout, fg="red")


def _odd(text: str) -> str:
    return output.style(text, sys.stdout, fg="yellow")
