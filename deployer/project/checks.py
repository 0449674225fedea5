"""What no single value shows: names that clash, roles that nobody plays, options no provider knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployer.core.errors import InputError
from deployer.core.machine import ROLES
from deployer.core.model import MachineEntry
from deployer.project.document import Document
from deployer.project.mistakes import Mistakes, Place, did_you_mean

_MACHINE_KEYS = ("name", "roles")


def vendor(
    document: Document,
    provider: str,
    options: Mapping[str, object],
    known: Callable[[str], tuple[Sequence[str], Sequence[str]]] | None,
    mistakes: Mistakes,
) -> Sequence[str] | None:
    """Check the provider's name and the options in its section.

    Gives the keys that it knows in a machine's entry; None when nothing is known of it.
    """
    if known is None or not provider:
        return None
    try:
        in_section, in_machine = known(provider)
    except InputError as error:
        mistakes.add(document.mark(("provider",)), ("provider",), f"{error.why}; {error.next}".strip("; "))
        return None
    for key in options:
        if key not in in_section:
            place: Place = (provider, key)
            mistakes.add(document.mark(place), place, "unknown key" + did_you_mean(key, in_section))
    return in_machine


def machine_options(
    document: Document, known: Sequence[str] | None, mistakes: Mistakes
) -> list[Mapping[str, object]]:
    """What each machine's entry says in the provider's own words; checked against `known` if given."""
    entries = document.data.get("machines")
    found: list[Mapping[str, object]] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict):
            found.append({})
            continue
        place: Place = ("machines", index)
        found.append({k: v for k, v in document.settle(place).items() if k not in _MACHINE_KEYS})
        names = None if known is None else (*_MACHINE_KEYS, *known)
        for key in found[-1]:
            if names is not None and key not in names:
                here = (*place, key)
                mistakes.add(document.mark(here), here, "unknown key" + did_you_mean(key, names))
    return found


def machines(entries: Iterable[MachineEntry], document: Document, mistakes: Mistakes) -> None:
    """Names differ, every role has one player, no two machines share an address. Where every machine has `base` alone
    the stack is not to run yet, and no role needs a player."""
    names: dict[str, int] = {}
    addresses: dict[object, int] = {}
    players: dict[str, list[int]] = {role: [] for role in ROLES}
    for index, entry in enumerate(entries):
        place: Place = ("machines", index, "name")
        if entry.name in names:
            other = names[entry.name]
            mistakes.add(
                document.mark(place),
                place,
                f'"{entry.name}" is the name of machines[{other}] too; names must differ',
            )
        names.setdefault(entry.name, index)
        address = entry.options.get("address")
        door = (address, entry.options.get("port", 22))
        if address and door in addresses:
            place = ("machines", index, "address")
            mistakes.add(
                document.mark(place), place, f'"{address}" is the address of machines[{addresses[door]}] too'
            )
        addresses.setdefault(door, index)
        for role in entry.roles:
            players[role].append(index)
    playing = any(players.values())
    for role, found in players.items():
        if not found and playing:
            mistakes.add(
                document.mark(("machines",)),
                "machines",
                f'nobody plays the role "{role}"; give it to a machine (roles: [{role}])',
            )
        elif len(found) > 1:
            place = ("machines", found[1], "roles")
            mistakes.add(
                document.mark(place),
                place,
                f'the role "{role}" is played by machines[{found[0]}] already; '
                "several machines for one role are not supported yet",
            )


def unique(items: Iterable[Any], key: str, section: str, document: Document, mistakes: Mistakes) -> None:
    """No two entries of the list `section` have the same `key`."""
    seen: dict[object, int] = {}
    for index, item in enumerate(items):
        value = getattr(item, key)
        if value in seen:
            place: Place = (section, index, key)
            mistakes.add(
                document.mark(place), place, f'"{value}" is the {key} of {section}[{seen[value]}] too'
            )
        seen.setdefault(value, index)


def known_keys(
    given: Iterable[str], known: Iterable[str], section: str, document: Document, mistakes: Mistakes
) -> None:
    """Every key of the section is one of `known`."""
    names = list(known)
    for key in given:
        if key not in names:
            why = "unknown key" + (did_you_mean(key, names) or f"; {section} has none")
            mistakes.add(document.mark((section, key)), (section, key), why)


def pem(name: str, place: Place, document: Document, root: Path, mistakes: Mistakes) -> str:
    """The text of a PEM file that `place` names, as seen from the project's folder; "" when none is named."""
    if not name:
        return ""
    try:
        text = (root / name).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        text = ""
    if "-----BEGIN CERTIFICATE-----" not in text:
        why = f'"{name}" is not a file with a PEM certificate (seen from the project\'s folder)'
        mistakes.add(document.mark(place), place, why)
    return text
