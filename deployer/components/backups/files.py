"""Backups of files: restic, every few minutes, to all repositories, each by a timer of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from deployer.components.app.layout import Layout
from deployer.components.backups.guard import PROGRAMS, program
from deployer.components.backups.parts import Part
from deployer.core.component import Context, Data, Directory, File, Unit

SETTINGS = "/etc/deploy/backups/files.json"
CACHE = "/var/cache/deploy-backups"
MODULES = (
    "app_back.py",
    "files.py",
    "holding.py",
    "places.py",
    "queues.py",
    "repository.py",
    "restoring.py",
    "restoring_work.py",
    "snapshots.py",
    "staging.py",
)
_SYSTEMD = "/etc/systemd/system"


def part(ctx: Context, data: Sequence[Data]) -> Part:
    """For a machine of the live deployment."""
    policy, repositories = ctx.project.stack.backup, ctx.project.inventory.repositories
    folders = writable(data)
    return Part(
        packages=("restic", "python3", "ca-certificates"),
        directories=(Directory(CACHE, 0o700),),
        files=(
            *programs(),
            File(SETTINGS, content=settings(ctx), on_change="none"),
            *(
                File(
                    f"{_SYSTEMD}/{unit(one.name)}.service",
                    "backups/deploy-files.service.j2",
                    {
                        "name": one.name,
                        "programs": PROGRAMS,
                        "folders": [*folders, one.path] if one.path else folders,
                    },
                    on_change="none",
                )
                for one in repositories
            ),
            *(
                File(
                    f"{_SYSTEMD}/{unit(one.name)}.timer",
                    "backups/deploy-files.timer.j2",
                    {"name": one.name, "calendar": calendar(policy.files), "minutes": policy.files},
                )
                for one in repositories
            ),
        ),
        units=(
            *(Unit(f"{unit(one.name)}.service", resident=False) for one in repositories),
            *(Unit(f"{unit(one.name)}.timer") for one in repositories),
        ),
    )


def programs() -> tuple[File, ...]:
    """What must be on a machine to make, and to restore, backups of files; with ground.py, which guard.py brings."""
    return tuple(program(name) for name in MODULES)


def unit(repository: str) -> str:
    return f"deploy-files-{repository}"


def calendar(minutes: int) -> str:
    """The same times on all machines: a recovery point is named after one."""
    return f"*-*-* *:0/{minutes}:00 UTC" if minutes < 60 else f"*-*-* 0/{minutes // 60}:00:00 UTC"


def writable(data: Sequence[Data]) -> list[str]:
    """Folders that a consistent copy of SQLite needs to write to: its lock lies beside the file."""
    files = {str(PurePosixPath(item.where).parent) for item in data if item.kind == "sqlite"}
    return sorted(files | {item.where for item in data if item.kind == "sqlite_folder"})


def settings(ctx: Context) -> str:
    """first: one machine alone sets a repository up. release: the app as it was built."""
    layout = Layout(ctx.project.app, ctx.project.stack.domain)
    app = ctx.plays("app")
    release = {"where": f"{layout.home}/releases/{layout.release()}"} if app else {}
    body = {
        "first": ctx.machine.name == min(ctx.machines),
        "release": release,
        "references": references(ctx, layout),
    }
    return json.dumps(body, indent=1, sort_keys=True) + "\n"


def references(ctx: Context, layout: Layout) -> list[dict[str, str]]:
    """What the database names: asked where it runs, compared where the files are."""
    app = ctx.project.app
    return [
        {
            "name": entry.name,
            "where": f"{layout.data}/{entry.path}",
            "database": app.databases[0],
            "query": entry.references,
        }
        for entry in app.data
        if entry.references and app.databases
    ]
