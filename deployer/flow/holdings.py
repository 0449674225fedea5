"""`deploy backup list|points`: what the repositories hold, how old it is, and when it was proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deployer.components.backups import actions
from deployer.core.errors import DeployError
from deployer.core.events import Sink
from deployer.core.model import Repository
from deployer.flow.backups import POINT, all_machines, opened, words
from deployer.flow.request import Request


def list_(request: Request, sink: Sink) -> dict[str, Any]:
    """repositories: what each holds, how old it is, and when it was last proven by a restore."""
    with opened(request, sink) as scene:
        failed: list[str] = []
        archives: Sequence[actions.Archive] = ()
        with ThreadPoolExecutor(1) as pool:
            asking = (
                pool.submit(
                    scene.ask, scene.database, "asking for the database's backups", actions.database_status()
                )
                if scene.database
                else None
            )
            snapshots = all_machines(
                scene,
                "asking for backups",
                lambda name: scene.ask(name, "asking for the files' backups", actions.files_status()),
                failed,
            )
            try:
                archives = actions.archives(asking.result()) if asking else ()
            except DeployError as error:
                scene.session.mask.error(error)
                failed.append(words("database", error))
        proofs = proven(request.root)
        return {
            "deployment": str(scene.session.project.deployment),
            "generation": scene.live.number,
            "repositories": [
                row(one, archives, snapshots, proofs.get(one.name)) for one in scene.repositories
            ],
            "failed": failed,
        }


def row(
    repository: Repository,
    archives: Sequence[actions.Archive],
    snapshots: Sequence[actions.Snapshots],
    proof: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What is known of one repository. Files are as old as those of the machine that is furthest behind."""
    archive = next((one for one in archives if one.name == repository.name), None)
    files = [one for one in snapshots if one.name == repository.name]
    errors = [archive.error] if archive and archive.error else []
    errors += [f"files of {one.machine}: {one.error}" for one in files if one.error]
    ages = [one.age for one in files if one.age is not None]
    complete = bool(files) and len(ages) == len(files)
    return {
        "name": repository.name,
        "vendor": vendor(repository),
        "archiving": archive.archiving if archive else None,
        "out_since": archive.out_since if archive else "",
        "out_why": archive.out_why if archive else "",
        "needs_full": archive.needs_full if archive else False,
        "last_full": archive.last_full if archive else "",
        "last_diff": archive.last_diff if archive else "",
        "size": (archive.size if archive else 0) + max((one.size for one in files), default=0),
        "newest_commit": archive.newest_commit if archive else "",
        "lag": archive.lag if archive else None,
        "files_point": min((one.last for one in files), default="") if complete else "",
        "files_age": max(ages) if complete else None,
        "points": max((one.points for one in files), default=0),
        "proven": dict(proof) if proof else None,
        "error": "; ".join(errors),
    }


def vendor(repository: Repository) -> str:
    """The company behind it: as the inventory says, else by its endpoint's domain, or the path."""
    from urllib.parse import urlsplit

    if repository.vendor or repository.kind == "path":
        return repository.vendor or repository.path
    host = urlsplit(repository.endpoint).hostname or repository.endpoint
    return ".".join(host.split(".")[-2:])


def proven(root: Path) -> dict[str, dict[str, Any]]:
    """Repository -> what the last receipt of a drill or a restore from it says: at, kind, ok, seconds,
    rate (MB/s), why (it failed)."""
    from deployer.state import receipts

    found: dict[str, dict[str, Any]] = {}
    for receipt in receipts.read_all(root):
        if receipt.kind not in ("drill", "restore"):
            continue
        # A restore's receipt is that of the `up` which ended it, with a section of its own.
        entry = receipt.body.get("restore") or receipt.body
        if name := str(entry.get("repository") or ""):
            found[name] = {
                "at": receipt.at.strftime(POINT),
                "kind": receipt.kind,
                "ok": bool(entry.get("ok", True)),
                "seconds": entry.get("total_seconds"),
                "rate": entry.get("mb_per_second"),
                "why": str(entry.get("why") or ""),
            }
    return found


def points(request: Request, sink: Sink, repository: str | None) -> dict[str, Any]:
    """The times that files of all machines can be restored to, by repository; between them the database alone can."""
    with opened(request, sink) as scene:
        found = []
        first = scene.database or next(iter(scene.machines))
        for one in scene.chosen(repository):
            # A folder may be another one on each machine.
            machines = list(scene.machines) if one.kind == "path" else [first]
            listed: dict[str, set[str]] = {}
            for machine in machines:
                body = scene.ask(machine, f"asking for points in {one.name}", actions.points(one.name))
                for point in actions.listed_points(body):
                    listed.setdefault(point.at, set()).update(point.machines or (machine,))
            found.append(
                {
                    "repository": one.name,
                    "points": [
                        {"at": at, "machines": sorted(names), "complete": names >= set(scene.machines)}
                        for at, names in sorted(listed.items())
                    ],
                }
            )
        return {"deployment": str(scene.session.project.deployment), "repositories": found}


def repository_names(root: Path, provider: str | None, inventory: Path | None) -> list[str]:
    """For completion on the command line: none where the project cannot be read."""
    from deployer.project import load

    try:
        found = load(root, provider, inventory, expand=False).inventory.repositories
    except DeployError:
        return []
    return [one.name for one in found]
