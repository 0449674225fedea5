"""The claims in the repositories, and what a repository shows of its backups without any key of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from deployer.core import generation
from deployer.core.errors import DeployError
from deployer.core.generation import Generation
from deployer.core.model import Project, Repository

# In the state folder: which repositories have the claim of which generation. A cache.
FILE = "claims.json"
# A segment of WAL as pgBackRest names it.
_SEGMENT = re.compile(r"/([0-9A-F]{24})-")


@dataclass(frozen=True)
class Seen:
    """The claims in one repository. highest: None where it has none; error: why it could not be asked."""

    repository: Repository
    highest: Generation | None = None
    error: DeployError | None = None


class TakenError(DeployError):
    """Another deployment has claimed the same number."""


def look(project: Project, repositories: Sequence[Repository]) -> list[Seen]:
    """The highest claim in each repository; all are asked at the same time."""
    with ThreadPoolExecutor(max(1, len(repositories))) as pool:
        return list(pool.map(lambda one: _see(project.stack.name, one), repositories))


def _see(stack: str, repository: Repository) -> Seen:
    from deployer.storage import open_store

    try:
        store = open_store(repository)
        number = generation.claimed(store.list(f"{stack}/generations/"))
        if not number:
            return Seen(repository)
        text = store.get(generation.claim_key(stack, number))
    except DeployError as error:
        return Seen(repository, error=error)
    try:
        return Seen(repository, Generation.from_json(text))
    except ValueError:
        # Its name alone says that somebody claimed it.
        return Seen(repository, Generation(number, "unknown (the claim is damaged)"))


def write(stack: str, live: Generation, repositories: Sequence[Repository]) -> list[DeployError | None]:
    """Claim the generation in each repository: None where the claim is there now, or why it is not.

    Raises TakenError where another deployment has the number.
    """
    with ThreadPoolExecutor(max(1, len(repositories))) as pool:
        answers = list(pool.map(lambda one: _write(stack, one, live), repositories))
    for answer in answers:
        if isinstance(answer, TakenError):
            raise answer
    return answers


def _write(stack: str, repository: Repository, live: Generation) -> DeployError | None:
    from deployer.storage import ExistsError, open_store

    try:
        store = open_store(repository)
        try:
            store.put(generation.claim_key(stack, live.number), live.to_json().encode(), only_new=True)
        except ExistsError as error:
            there = _see(stack, repository).highest
            if there is None or (there.number, there.deployment) != (live.number, live.deployment):
                return TakenError(
                    error.what,
                    f"generation {live.number} was claimed there by {there.deployment if there else 'another'}",
                    "somebody else has just brought this stack up or restored it: get their secrets.age (version "
                    "control), and see which deployment shall be live",
                )
    except DeployError as error:
        return error
    return None


def newest_wal(project: Project, number: int, repository: Repository) -> str:
    """The name of the newest WAL segment of a generation in a repository, which sorts by time within a generation; ""
    where there is no backup that it belongs to. Raises DeployError."""
    from deployer.storage import open_store

    store, top = open_store(repository), generation.database_key(project.stack.name, number)
    if not any(key.endswith("/backup.info") for key in store.list(f"{top}/backup/")):
        return ""
    found = (match[1] for key in store.list(f"{top}/archive/") if (match := _SEGMENT.search(key)))
    # Without the timeline, which the first 8 digits are.
    return max(found, key=lambda name: name[8:], default="")


# --- what the state folder remembers ---


def place(repository: Repository) -> str:
    one = repository
    return one.path or f"{one.endpoint}/{one.bucket}/{one.prefix}"


def remembered(project: Project, number: int) -> dict[str, str]:
    """Repository -> place of those that have the claim of this generation."""
    try:
        body = json.loads((project.state_dir / FILE).read_text(encoding="utf-8"))
        return dict(body["repositories"]) if body["generation"] == number else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def remember(project: Project, number: int, repositories: Mapping[str, str]) -> None:
    from deployer.state.files import make_private, write_atomically

    make_private(project.state_dir)
    body = {"generation": number, "repositories": dict(repositories)}
    write_atomically(project.state_dir / FILE, json.dumps(body, indent=1) + "\n")
