"""`deploy retire`: the end of the way back. And giving up a move that has not taken place.

After it, no secret that the old machines held is good for anything: all that can be replaced by itself is; what a vendor
gave, or what the service is known by, is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.moving import ENDED, MOVED, PREPARING, SETTLING
from deployer.flow import handover, moves, readying
from deployer.flow.moves import Sides
from deployer.flow.request import Request
from deployer.flow.session import SSH

# Where an identity hangs on a secret, as the keys that sign for the service towards others, it stays.
_KNOWN_BY = ("mail_relay/dkim",)
_LASTING = ("ed25519_seed", "ca", "given")


def retire(request: Request, sink: Sink) -> dict[str, Any]:
    """Delete the old side's machines, replace what they knew, and bring that to the machines that serve.

    Asks first. Raises InputError when there is no way back to end, DeployError saying where it stopped; run again, it
    goes on.
    """
    from deployer.flow.down import down
    from deployer.flow.up import up

    move = moves.known(request)
    if move is None or move.phase != MOVED:
        under_way = move is not None and move.phase in (PREPARING, SETTLING)
        raise InputError(
            "retiring the old side",
            f"the move from {move.old} to {move.new} has not ended"
            if move and under_way
            else "there is no way back",
            "deploy migrate --resume ends it" if under_way else "nothing is to be done",
        )
    old, new = moves.inventory(move.old), moves.inventory(move.new)
    question = (
        f"end the way back from {move.new} to {move.old}: its machines are deleted (your own are stopped), and every "
        "secret that they held is replaced. Go on?"
    )
    if not request.confirm(question):
        raise InputError(
            "retiring", "stopped before anything was changed", "run it again and say yes, or use --yes"
        )
    with moves.opened(request, sink, old, new, move) as sides:
        _release(sides)
        kept = _replaceable(sides.new.secrets, sides.new.project)
        bound = _bound(sides.new.project)
    sink(Event("stage", f"removing {move.old}", status="start"))
    removed = down(replace(request, provider=old, confirm=lambda _: True), sink)
    rotated, left = _rotate(request, kept, bound)
    _end(request)
    sink(Event("stage", "bringing the new secrets to the machines", status="start"))
    body = up(replace(request, provider=new, confirm=lambda _: True), sink)
    body["retired"] = {
        "old": move.old,
        "deleted": removed["deleted"],
        "stopped": removed["stopped"],
        "kept_volumes": removed["kept"],
        "rotated": rotated,
        "not_rotated": left,
    }
    return body


def _release(sides: Sides) -> None:
    """The standby ends, when it still answers; then the live side lets it go."""
    try:
        readying.old_machines(sides)
        for name in sides.names("old"):
            sides.ask("old", name, "end")
    except DeployError as error:
        text = f"{sides.move.old} does not answer, and is removed as it is: {error.why}"
        sides.old.sink(Event("warning", text))
    machines = sides.new.running()
    sides.new.connected(sides.new.connect(machines, SSH), SSH)
    sides.machines["new"] = machines
    for name in sides.names("new"):
        sides.ask("new", name, "end")


def _replaceable(secrets: Mapping[str, str], project: Any) -> list[str]:
    """Names of what the old machines held that is made here and may be another tomorrow."""
    from deployer.flow import registry

    wanted = registry.secrets(project)
    stays = {*_KNOWN_BY, *_bound(project)}
    held = [one for one in wanted if one.kind not in _LASTING and one.name not in stays]
    return [one.name for one in held if one.name in secrets]


def _bound(project: Any) -> list[str]:
    """Names of what data or identities are bound to."""
    from deployer.flow import registry

    return sorted(one.name for one in registry.secrets(project) if one.lasting)


def _rotate(request: Request, names: list[str], bound: list[str]) -> tuple[list[str], list[str]]:
    """Replace each; what is left, in words."""
    from deployer.flow.secrets import existing, rotate

    for name in names:
        rotate(request, name)
    entries = existing(request).entries
    left = [
        f"{name}: others know the service by it; deploy secrets rotate {name} when you mean to"
        for name, entry in sorted(entries.items())
        if entry.kind == "ed25519_seed" or name in _KNOWN_BY
    ]
    left += [
        f"{name}: what the app keeps is bound to it; whoever has the old machine's disk and a copy of the data can read it"
        for name in bound
    ]
    left += [
        f"{name}: a vendor gave it; get a new one there, then deploy secrets edit {name}"
        for name, entry in sorted(entries.items())
        if entry.kind == "given" and not name.startswith(("backups/", "moves/"))
    ]
    left.append(
        "keys of repositories, smarthosts and carriers: get new ones from each vendor, and end the old ones there"
    )
    return names, left


def _end(request: Request) -> None:
    from deployer.core.component import Secret
    from deployer.flow.secrets import existing

    bundle = existing(request)
    move = moves.known(request)
    if move is not None:
        bundle.put(Secret(move.entry, "given"), replace(move, phase=ENDED).to_json())
        bundle.save()


def give_up(request: Request, sink: Sink) -> dict[str, Any]:
    """Give up a move that has not taken place: the old side serves on and keeps nothing of it; the new side's machines
    stay, and serve nothing. Raises DeployError after the permit: then there is nothing to give up."""
    move = moves.known(request)
    if move is None or move.phase != PREPARING:
        raise InputError(
            "giving up a move",
            "none is under way that has not taken place",
            "deploy migrate --back takes one back",
        )
    with moves.opened(request, sink, moves.inventory(move.old), moves.inventory(move.new), move) as sides:
        readying.old_machines(sides)
        _never_given(sides)
        handover.reopened(sides)
        for name in sides.names("old"):
            sides.ask("old", name, "end")
        try:
            machines = sides.new.running()
            sides.new.connected(sides.new.connect(machines, SSH), SSH)
            for name in sides.names("new"):
                sides.ask("new", name, "end")
        except DeployError as error:
            sides.new.sink(Event("warning", f"{move.new}: {error.why}"))
        moves.ended(sides)
    new = moves.inventory(move.new)
    return {
        "given_up": move.id,
        "live": move.old,
        "notes": [
            f"{move.old} serves as before",
            f"the machines of {move.new} stay and serve nothing: deploy down --provider {new} deletes them",
        ],
    }


def _never_given(sides: Sides) -> None:
    fence = sides.status("old").fence
    if fence.state == "permitted":
        raise DeployError(
            "giving up the move",
            f"{sides.move.old} has given its permit: {sides.move.new} is the live side",
            "deploy migrate --resume ends it, and deploy migrate --back leads back",
        )
