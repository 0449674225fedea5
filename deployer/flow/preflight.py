"""What could stop a move later, asked before anything is held: room, versions, locales, and whether the vendors of mail and
SMS take the new machines in.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deployer.components.database.actions import psql_command
from deployer.components.sms_gateway import layout as sms
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event
from deployer.flow import provision
from deployer.flow.look import View
from deployer.flow.moves import Sides

# Room on the new side: what it must have of what is copied, and what it should have.
LEAST, SHOULD = 1.3, 3.0
# Seconds for each question; counting the bytes of many files takes its time.
ASK, COUNT = 60, 300
_BINARIES = "/usr/lib/postgresql/17/bin"
_FACTS = """SELECT json_build_object(
    'version', current_setting('server_version_num')::int,
    'bytes', (SELECT sum(pg_database_size(oid)) FROM pg_database),
    'foreign', (SELECT coalesce(json_agg(datname), '[]'::json) FROM pg_database
        WHERE datlocprovider <> 'b' AND datname NOT IN ('template0', 'template1', 'postgres')),
    'tablespaces', (SELECT count(*) FROM pg_tablespace WHERE spcname NOT LIKE 'pg\\_%'));
"""


@dataclass(frozen=True)
class Room:
    """machine: of the new side; free: bytes where the data go; wanted: bytes that go there."""

    machine: str
    free: int
    wanted: int


def refuse_without_repositories(sides: Sides) -> None:
    """Raise InputError where nobody could see who is live."""
    for session in (sides.old, sides.new):
        inventory = session.project.inventory
        if not inventory.repositories:
            raise InputError(
                f"moving {sides.old.project.deployment}",
                f"inventories/{inventory.name}.yaml names no repositories: they tell machines who is live",
                "name the same ones in both inventories (docs/backups.md)",
            )


def compare(sides: Sides, view: View) -> list[str]:
    """What was seen to be good, in words. view: of the new side. Raises DeployError for what would stop the move."""
    said = [_database(sides), *_rooms(sides)]
    return said + _vendors(sides, view)


def _database(sides: Sides) -> str:
    """The copy of a data folder runs with the same major version, and sorts as before with PostgreSQL's own locale."""
    old, new = sides.lead("old"), sides.lead("new")
    facts = json.loads(_run(sides, "old", old, shlex.join(psql_command()), stdin=_FACTS))
    there = _run(sides, "new", new, f"{_BINARIES}/postgres --version").split()
    major = next((int(word.split(".")[0]) for word in there if word[:1].isdigit()), 0)
    what = "comparing the databases"
    if facts["version"] // 10000 != major:
        raise DeployError(
            what,
            f"the old side has PostgreSQL {facts['version'] // 10000}, the new one {major}",
            "deploy up brings the old side to this version of the toolkit first",
            machine=old,
        )
    if facts["tablespaces"]:
        raise DeployError(
            what,
            "it has tablespaces of its own, whose folders the new side has not",
            "move their tables back into pg_default, and drop them",
            machine=old,
        )
    if facts["foreign"]:
        libraries = [
            _run(sides, side, sides.lead(side), "ldd --version | head -n 1").strip()
            for side in ("old", "new")
        ]
        if libraries[0] != libraries[1]:
            raise DeployError(
                what,
                f"{', '.join(facts['foreign'])} sort by the system's C library, which is another one there "
                f"({libraries[0]}; {libraries[1]}): their indexes would be wrong without a sign",
                "dump and load them into a database of the builtin locale (docs/adr/0004-locale-of-databases.md)",
                machine=old,
            )
    return f"PostgreSQL {major} on both sides, with a locale that moves"


def _rooms(sides: Sides) -> list[str]:
    found = []
    for room in _measured(sides):
        if room.free < LEAST * room.wanted:
            raise DeployError(
                "looking for room",
                f"{room.wanted >> 20} MiB go there, and {room.free >> 20} MiB are free",
                "a bigger disk or volume: sizes in stack.yaml, or the machine's type in the inventory",
                machine=room.machine,
            )
        if room.free < SHOULD * room.wanted:
            text = (
                f"{room.free >> 20} MiB are free for {room.wanted >> 20} MiB of data: less than three times as much, which "
                "a restore beside them would need"
            )
            sides.new.sink(Event("warning", text, machine=room.machine))
        found.append(f"room on {room.machine}: {room.free >> 20} MiB for {room.wanted >> 20} MiB")
    return found


def _measured(sides: Sides) -> list[Room]:
    """Of each new machine: what its counterparts hold, in the worst case all on one disk."""
    wanted: dict[str, int] = dict.fromkeys(sides.names("new"), 0)
    places = {place.label: place.name for place in sides.move.places}
    for name in sides.names("new"):
        text = _run(sides, "new", name, "cat /etc/deploy/moving/settings.json")
        by_peer: dict[str, list[str]] = {}
        for copy in json.loads(text)["copies"]:
            by_peer.setdefault(places[copy["peer"]], []).append(copy["where"])
        for peer, paths in by_peer.items():
            # One that is not there yet counts nothing.
            count = f"du -scxB1 -- {shlex.join(paths)} 2>/dev/null | tail -n 1 | cut -f 1"
            wanted[name] += int(_run(sides, "old", peer, count, timeout=COUNT).strip() or 0)
    lead = sides.lead("new")
    facts = json.loads(_run(sides, "old", sides.lead("old"), shlex.join(psql_command()), stdin=_FACTS))
    wanted[lead] += int(facts["bytes"])
    rooms = []
    for name, size in wanted.items():
        folder = "/var/lib/postgresql" if name == lead else "/var/lib"
        free = _run(sides, "new", name, f"df --output=avail -B1 {folder} | tail -n 1")
        rooms.append(Room(name, int(free.strip()), size))
    return rooms


# --- vendors of mail and SMS, from the new addresses ---


def _vendors(sides: Sides, view: View) -> list[str]:
    """Raises DeployError where all smarthosts, or all carriers, refuse the new machines; one of several is a warning."""
    found = []
    for kind, answers in (("smarthost", _smarthosts(sides, view)), ("carrier", _carriers(sides))):
        bad = {name: text for name, (ok, text) in answers.items() if not ok}
        if answers and len(bad) == len(answers):
            raise DeployError(
                f"asking each {kind} from the new machines",
                f"none of them takes us in: {'; '.join(f'{name}: {text}' for name, text in bad.items())}",
                "have the new address let in there, or name another one in the inventory",
            )
        for name, text in bad.items():
            sides.new.sink(Event("warning", f"{kind} {name} does not take the new machine in: {text}"))
        found += [f"{kind} {name}: {text}" for name, (ok, text) in answers.items() if ok]
    inventory = sides.new.project.inventory
    if not inventory.smarthosts and not inventory.catch:
        place = sides.move.player("new", "mail")
        text = (
            f"mail will leave directly from {place.address if place else 'the new machine'}, which has no history: a "
            "smarthost for the first weeks keeps it out of spam folders (docs/mail.md)"
        )
        sides.new.sink(Event("warning", text))
    return found


def _smarthosts(sides: Sides, view: View) -> dict[str, tuple[bool, str]]:
    """By name: whether it takes our log-in, and what it said."""
    answers = {}
    for machine, specs in view.specs.items():
        for spec in specs:
            for probe in spec.probes:
                if probe.name.startswith("mail: smarthost "):
                    code, out, err = sides.new.engine.run(
                        machine, "bash -s", stdin=str(probe.args["script"]), timeout=ASK
                    )
                    said = (out.strip() or err.strip() or "no answer").splitlines()[-1]
                    answers[probe.name.removeprefix("mail: smarthost ")] = (code == 0, said)
    return answers


def _carriers(sides: Sides) -> dict[str, tuple[bool, str]]:
    inventory = sides.new.project.inventory
    if inventory.catch or not inventory.carriers:
        return {}
    keys = ("name", "host", "port", "tls", "system_id", "password", "system_type")
    wanted = [{key: asdict(carrier)[key] for key in keys} for carrier in inventory.carriers]
    machine = provision.roles(sides.new.project)["sms"][0]
    text = _run(sides, "new", machine, f"python3 {sms.PROGRAMS}/bind.py", stdin=json.dumps(wanted))
    answers: Sequence[Mapping[str, Any]] = json.loads(text)
    return {str(one["name"]): (bool(one["ok"]), str(one["text"])) for one in answers}


def _run(
    sides: Sides, side: str, machine: str, command: str, *, stdin: str = "", timeout: float = ASK
) -> str:
    code, out, err = sides.session(side).engine.run(machine, command, stdin=stdin, timeout=timeout)
    if code:
        raise DeployError(
            "looking at what a move needs",
            (err.strip() or out.strip() or f"`{command.split()[0]}` ended with {code}").splitlines()[-1],
            "mend what it names, then run the same command again",
            machine=machine,
        )
    return str(out)
