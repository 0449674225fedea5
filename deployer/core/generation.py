"""Exactly one deployment of a stack is live: the one that holds the highest generation.

A generation is a number that every restore and every migration raises. Each has folders and keys of its own in every
repository, so a restored copy never writes where its origin writes. Who is live stands in the secrets bundle, which
all operators share; a claim in every repository tells it to machines and to operators with an old bundle.

Below a repository's prefix lie, for a stack:

    STACK/generations/000001.json    the claim: generation, deployment, at, by
    STACK/000001/database/           of pgBackRest
    STACK/000001/files/              of restic
    STACK/000001/catalogue/ID/       what else a restore needs
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployer.core.component import Secret

_CLAIM = re.compile(r"backups/generation/(\d{6})")
_CLAIM_OBJECT = re.compile(r"(?:.*/)?generations/(\d{6})\.json")


@dataclass(frozen=True)
class Generation:
    """number: from 1. deployment: who holds it, "stack@inventory". at: when it was claimed, ISO 8601, UTC."""

    number: int
    deployment: str
    at: str = ""
    by: str = ""

    @property
    def label(self) -> str:
        """Its number as it stands in names, so that they sort."""
        return f"{self.number:06d}"

    @property
    def entry(self) -> str:
        """Name of the entry in the secrets bundle."""
        return f"backups/generation/{self.label}"

    @property
    def released(self) -> str:
        """Name of the entry that `down` makes: its deployment was taken down, and another may follow."""
        return f"backups/released/{self.label}"

    def to_json(self) -> str:
        body = {"generation": self.number, "deployment": self.deployment, "at": self.at, "by": self.by}
        return json.dumps(body, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Generation:
        """Raises ValueError for what is no claim."""
        try:
            body = json.loads(text)
            return cls(int(body["generation"]), str(body["deployment"]), str(body["at"]), str(body["by"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no claim of a generation: {error!r}") from None


def known(secrets: Mapping[str, str]) -> list[Generation]:
    """All generations that the bundle knows, the oldest first."""
    return [Generation.from_json(secrets[name]) for name in sorted(secrets) if _CLAIM.fullmatch(name)]


def current(secrets: Mapping[str, str]) -> Generation | None:
    """The newest generation that the bundle knows, whoever holds it; None before the first."""
    found = known(secrets)
    return found[-1] if found else None


def held(secrets: Mapping[str, str], deployment: str) -> Generation | None:
    """The newest generation when this deployment holds it; None when it is not live."""
    newest = current(secrets)
    return newest if newest and newest.deployment == deployment else None


def ciphers(number: int, repository: str) -> tuple[Secret, Secret]:
    """The passwords of a generation's data in a repository: of the database's part, and of the files' part."""
    folder = f"backups/{number:06d}/{repository}"
    return Secret(f"{folder}/database"), Secret(f"{folder}/files")


# --- keys in a repository, below its prefix ---


def claim_key(stack: str, number: int) -> str:
    return f"{stack}/generations/{number:06d}.json"


def claimed(keys: Iterable[str]) -> int:
    """The highest generation among the keys of a repository; 0 for none."""
    found = (match for key in keys if (match := _CLAIM_OBJECT.fullmatch(key)))
    return max((int(match[1]) for match in found), default=0)


def database_key(stack: str, number: int) -> str:
    return f"{stack}/{number:06d}/database"


def files_key(stack: str, number: int) -> str:
    return f"{stack}/{number:06d}/files"


def catalogue_key(stack: str, number: int) -> str:
    return f"{stack}/{number:06d}/catalogue"
