"""What the operator asked for, before any file is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def agree(question: str) -> bool:
    return True


@dataclass(frozen=True)
class Request:
    """root: the project folder. provider: a name, meaning inventories/NAME.yaml; inventory_file: another file.
    app: instead of the stack's. identity: age identity file. trust_first: accept an unknown host key once.
    confirm: asked with a question before something is changed; False stops.
    allow_destroy: names of machines that `up` may delete when the inventory does not name them any more.
    destroy_data: the stack's name, to have `down` delete the volumes with its data.
    as_name: the deployment's name instead of the inventory's, for one beside another.
    details: `plan` fetches changed files and shows what differs in them."""

    root: Path
    provider: str | None = None
    inventory_file: Path | None = None
    app: str | None = None
    identity: Path | None = None
    trust_first: bool = False
    confirm: Callable[[str], bool] = agree
    allow_destroy: tuple[str, ...] = ()
    destroy_data: str = ""
    details: bool = False
    as_name: str = ""
    verbose: bool = False
    # Show the engine's own warnings.
    debug: bool = False
