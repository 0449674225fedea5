"""Checks of the places that backups go to. The judging functions are pure; `repositories` asks."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

from deployer.components.backups.actions import Leftovers
from deployer.core.errors import CredentialError, DeployError
from deployer.core.finding import Finding
from deployer.core.model import Repository
from deployer.flow.doctor.scene import Scene
from deployer.flow.holdings import vendor

_REACH, _DELETE = "backups.repository", "backups.delete"


def vendors(listed: Sequence[Repository], machines: str = "", *, public: bool = True) -> Finding:
    """How many companies hold the backups. machines: whose machines the stack runs on. public: it is for the world."""
    id, what = "backups.vendors", "backup vendors"
    if not listed and not public:
        return Finding(
            id, "skipped", what, found="no repositories are named, and nothing here is for the world"
        )
    if not listed:
        text = "no repositories are named: there are no backups"
        return Finding(id, "warn", what, found=text, next="name two of unrelated companies: docs/backups.md")
    counts = Counter(vendor(one) for one in listed)
    names = ", ".join(sorted(counts))
    if len(counts) < 2:
        text = f"all backups lie with one vendor ({names}): what ends it ends them"
        return Finding(id, "warn", what, found=text, next="add a repository of an unrelated company")
    same = [name for name in counts if machines and machines in name.lower()]
    if len(counts) == 2 and same:
        text = f"{names}: one of the two is also where the machines are, so one is left when it goes"
        return Finding(id, "ok", what, found=text)
    return Finding(id, "ok", what, found=f"{len(counts)}: {names}")


def prunable(one: Repository) -> Finding:
    """Whether anybody can delete old backups."""
    id, what = "backups.prune", "prune key"
    if one.kind == "path":
        text = "a folder on the machines, which prune it themselves"
        return Finding(id, "ok", what, one.name, text)
    if not one.prune_key:
        text = "not set, so backups can only grow"
        next = "make a key that may delete, and set prune_key and prune_secret: docs/backups.md"
        return Finding(id, "warn", what, one.name, text, next)
    if one.prune_key == one.key:
        text = "the same key as the machines'"
        return Finding(id, "warn", what, one.name, text, "give the machines a key that cannot delete")
    return Finding(id, "ok", what, one.name, "set, apart from the machines' key")


def deleting(one: Repository, error: DeployError | None) -> Finding:
    """What came of deleting an object with the machines' key. error: how it was refused."""
    what = "machines' key"
    if error is None:
        text = (
            "it can delete: who breaks into a machine can delete the backups there, unless the bucket keeps versions "
            "or locks objects, which is not visible from here"
        )
        return Finding(_DELETE, "warn", what, one.name, text, "make a key that only adds: docs/backups.md")
    if isinstance(error, CredentialError):
        return Finding(_DELETE, "ok", what, one.name, "it can add and read, and not delete")
    return Finding(_DELETE, "warn", what, one.name, f"not known: {error.why}", error.next)


def leftovers(machine: str, found: Leftovers) -> list[Finding]:
    """What restores left there. It is named and never deleted by us: it may be the last copy of something."""
    id, what = "backups.leftovers", "left by restores"
    listed = []
    for paths, text, next in (
        (found.before, "kept as it was before a restore", "when nobody needs it any more"),
        (found.fetched, "fetched by a restore that was given up", "it is of no use"),
    ):
        if not paths:
            continue
        named = ", ".join(f"{path} ({_size(size)})" for path, size in paths.items())
        more = " (at least: there was no time to count all of it)" if found.partial else ""
        remove = shlex.join(["deploy", "exec", "--machine", machine, "--", "rm", "-rf", *paths])
        listed.append(Finding(id, "warn", what, machine, f"{text}: {named}{more}", f"{next}: {remove}"))
    return listed or [Finding(id, "ok", what, machine, "nothing")]


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"


def reachable(one: Repository, claims: int, error: DeployError | None) -> Finding:
    """claims: how many generations it knows."""
    what = "repository"
    if error:
        return Finding(_REACH, "fail", what, one.name, error.why, error.next)
    text = (
        f"answers with its key; it knows {claims} generation(s)" if claims else "answers with its key; empty"
    )
    return Finding(_REACH, "ok", what, one.name, text)


def repository(scene: Scene, one: Repository) -> list[Finding]:
    """Ask one. Writes an object of a few bytes there, and tries to delete it with the machines' key."""
    from pathlib import Path

    from deployer.storage import open_store

    if one.kind == "path" and not Path(one.path).is_dir():
        text = "a folder that only the machines have; they look at it themselves"
        return [Finding(_REACH, "skipped", "repository", one.name, text), prunable(one)]
    stack = scene.project.stack.name
    store = open_store(one)
    try:
        claims = len(store.list(f"{stack}/generations/"))
        # Always the same one: where it cannot be deleted it stays.
        key = f"{stack}/doctor/can-this-be-deleted"
        store.put(key, b"Written by deploy doctor, which tries to delete it with the machines' key.\n")
    except DeployError as error:
        return [reachable(one, 0, error), prunable(one)]
    found = [reachable(one, claims, None), prunable(one)]
    if one.kind == "path":
        return found
    try:
        store.delete(key)
    except DeployError as error:
        return [*found, deleting(one, error)]
    return [*found, deleting(one, None)]
