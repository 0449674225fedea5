"""Backups: the database and the files of this machine to every repository, and the guard of the generation.

The parts stand in modules of their own: database.py (pgBackRest), files.py (restic), guard.py (who may serve).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from deployer.components.backups import database, files, guard
from deployer.components.backups.parts import Part
from deployer.core import generation, moving
from deployer.core.component import ComponentSpec, Context, Data, Directory, File, Secret
from deployer.core.model import Project, Repository

FOLDER = "/etc/deploy/backups"
SETTINGS = f"{FOLDER}/settings.json"
STATE = "/var/lib/deploy/backups"


def secrets(project: Project) -> tuple[Secret, ...]:
    """None that follow from the project alone: those of a generation are made when it is claimed."""
    return ()


def spec(ctx: Context, peers: Sequence[ComponentSpec]) -> ComponentSpec:
    """peers: what the other components want on this machine: whose data to hold, whose units to guard."""
    live = moving.acting(ctx.secrets, ctx.project.deployment)
    data = [item for peer in peers for item in peer.data]
    holding = [files.part(ctx, data), *([database.part(ctx)] if ctx.plays("database") else [])]
    # What is not live only restores: it has the programs, and nothing that runs by itself.
    parts = holding if live else [Part(one.packages, one.directories, one.files) for one in holding]
    if ctx.project.inventory.drill:
        parts = [*parts, Part(files=(guard.program("ground.py"),))]
    else:
        parts = [guard.part(ctx, peers, live), *parts]
    repositories = ctx.project.inventory.repositories
    return ComponentSpec(
        name="backups",
        packages=tuple(dict.fromkeys(name for part in parts for name in part.packages)),
        directories=(
            Directory("/etc/deploy"),
            Directory(FOLDER, 0o755),
            Directory("/usr/local/lib/deploy/backups"),
            Directory(STATE, 0o755),
            *(item for part in parts for item in part.directories),
        ),
        files=(
            File(
                SETTINGS,
                content=json.dumps(settings(ctx, data, live), indent=1, sort_keys=True) + "\n",
                mode=0o600,
                secret=True,
                on_change="none",
            ),
            *(
                File(ca_file(one), content=one.trusted_ca, on_change="none")
                for one in repositories
                if one.trusted_ca
            ),
            *(item for part in parts for item in part.files),
        ),
        units=tuple(item for part in parts for item in part.units),
        steps=tuple(item for part in parts for item in part.steps),
        probes=tuple(item for part in parts for item in part.probes),
        warnings=tuple(item for part in parts for item in part.warnings),
    )


def ca_file(repository: Repository) -> str:
    """Where a repository's own CA lies on the machine."""
    return f"{FOLDER}/{repository.name}.crt"


def settings(ctx: Context, data: Sequence[Data], live: generation.Generation | None) -> dict[str, object]:
    """What the programs on the machine read: see docs/adr/0014-backups.md."""
    stack = ctx.project.stack
    return {
        "stack": stack.name,
        "deployment": str(ctx.project.deployment),
        "generation": live.number if live else 0,
        "machine": ctx.machine.name,
        "database": ctx.plays("database"),
        "repositories": [
            repository(stack.name, one, live.number if live else 0, ctx.secrets)
            for one in ctx.project.inventory.repositories
        ],
        "data": [asdict(item) for item in data if item.kind != "postgres"],
        "policy": asdict(stack.backup),
    }


def repository(stack: str, one: Repository, number: int, secrets: Mapping[str, str]) -> dict[str, object]:
    """A repository as the programs on machines read it, for one generation. number 0: to look for claims only."""
    database_cipher, files_password = (
        secrets[secret.name] if number else "" for secret in generation.ciphers(number, one.name)
    )
    return {
        "name": one.name,
        "kind": one.kind,
        "endpoint": one.endpoint,
        "region": one.region,
        "bucket": one.bucket,
        "prefix": one.prefix,
        "path": one.path,
        "key": one.key,
        "secret": one.secret,
        "ca_file": ca_file(one) if one.trusted_ca else "",
        "database_key": generation.database_key(stack, number),
        "files_key": generation.files_key(stack, number),
        "claims_key": f"{stack}/generations/",
        "database_cipher": database_cipher,
        "files_password": files_password,
    }
