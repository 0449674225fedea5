"""`deploy receipts`: the records of what was done, listed, in words, and as a page. Asks no machine.

A receipt is read as it is: one of an older toolkit, or one that somebody changed, may lack any part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.core.errors import DeployError, InputError
from deployer.flow.story import Story, tell

if TYPE_CHECKING:
    from deployer.state.receipts import Receipt

# Names that an error lists.
SOME = 5


def list_(root: Path) -> dict[str, Any]:
    """receipts: each with id, at, verb, deployment, seconds, state ("good", "degraded", "bad"), matters (texts) and
    figures, the newest last. unreadable: files in receipts/ that are none."""
    from deployer.state import receipts

    found = receipts.read_all(root)
    known = {receipt.path for receipt in found}
    others = sorted(path.name for path in (root / "receipts").glob("*.json") if path not in known)
    return {"receipts": [row(story(receipt)) for receipt in found], "unreadable": others}


def row(told: Story) -> dict[str, Any]:
    return {
        "id": told.id,
        "at": told.at.isoformat(timespec="seconds"),
        "verb": told.verb,
        "deployment": told.deployment,
        "seconds": told.seconds,
        "state": told.state,
        "matters": list(told.matters),
        "figures": dict(told.figures),
    }


def show(root: Path, name: str) -> tuple[Story, Mapping[str, Any]]:
    """One receipt in words, and as it was written. name: see `find`."""
    receipt = find(root, name)
    return story(receipt), receipt.body


def page(root: Path, name: str, to: Path | None) -> tuple[Path, str]:
    """Write one receipt as a page of HTML, to receipts/ID.html or `to`; where, and its text.

    to: "-" writes nothing. Raises DeployError when it cannot be written. What was there is replaced.
    """
    from deployer.flow.receipts_page import render
    from deployer.state.files import write_atomically

    receipt = find(root, name)
    text = render(story(receipt), root)
    path = to or receipt.path.with_suffix(".html")
    if str(path) == "-":
        return path, text
    doing, way = f"writing {path}", "name another file: -o FILE"
    if path.is_dir():
        raise InputError(doing, "it is a folder", way)
    try:
        write_atomically(path, text, 0o644)
    except OSError as error:
        raise DeployError(doing, error.strerror or str(error), way) from None
    return path, text


def find(root: Path, name: str) -> Receipt:
    """The receipt of that id (its file's name without .json), of a part that only one has ("2026-11-24 12:00" is one
    too), or the "last".

    Raises InputError when there is none, or when several are meant.
    """
    from deployer.state import receipts

    found = receipts.read_all(root)
    if not found:
        raise InputError(
            "looking for a receipt", f"there is none in {root / 'receipts'}", "the first deploy up writes one"
        )
    if name == "last":
        return found[-1]
    wanted = Path(name).name.removesuffix(".json")
    chosen = [one for one in found if one.path.stem == wanted]
    # As the list writes its time, too.
    time = wanted.replace("-", "").replace(":", "").replace(" ", "T")
    for part in (wanted, time):
        chosen = chosen or [one for one in found if part and part in one.path.stem]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        why = f'"{name}" may be {len(chosen)} of them: {_some(chosen)}'
    else:
        why = f'there is no "{name}"; the newest are {_some(found)}'
    raise InputError("looking for a receipt", why, "deploy receipts lists them; last is the newest")


def _some(found: list[Receipt]) -> str:
    return ", ".join(one.path.stem for one in found[-SOME:])


def ids(root: Path) -> Iterable[str]:
    """For completion on the command line."""
    from deployer.state import receipts

    return ["last", *(receipt.path.stem for receipt in reversed(receipts.read_all(root)))]


def story(receipt: Receipt) -> Story:
    return tell(receipt.path.stem, receipt.kind, receipt.deployment, receipt.at, receipt.body)
