"""Changed files as unified diffs, for `plan`. Secret files are never fetched nor shown."""

from __future__ import annotations

import base64
import difflib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from deployer.core.errors import DeployError
from deployer.core.plan import Change
from deployer.flow.provision import PLACEHOLDER
from deployer.flow.wanted import Rendered, Wanted

if TYPE_CHECKING:
    from deployer.flow.session import Session

SECRET = "(secret)"
UNKNOWN = "(known after create)"
# bytes of a file that are looked at, and lines of a diff that are shown
MOST, LINES = 64 << 10, 400
# Seconds for reading all changed files of a machine.
BOUND = 30

# Run on the machine: paths come on standard input, contents go out in base64; a larger file is null.
_READ = f"""
import base64, json, os, stat, sys
found = {{}}
for path in json.load(sys.stdin):
    try:
        info = os.lstat(path)
        if stat.S_ISREG(info.st_mode) and info.st_size <= {MOST}:
            with open(path, "rb") as file:
                found[path] = base64.b64encode(file.read({MOST})).decode()
        else:
            found[path] = None
    except OSError:
        found[path] = None
json.dump(found, sys.stdout)
"""


def hidden(item: Rendered) -> bool:
    """A secret, or a file that not everybody on the machine may read."""
    return item.file.secret or not item.file.mode & 0o004


def with_diffs(session: Session, wanted: Mapping[str, Wanted], changes: Sequence[Change]) -> list[Change]:
    """The changes, those of files with their diff. Machines that have changed files are read, all at once."""
    ask: dict[str, list[str]] = {}
    for change in changes:
        item = _item(wanted, change)
        if item and change.action == "change" and not hidden(item) and _content(change):
            ask.setdefault(change.machine, []).append(change.name)
    with ThreadPoolExecutor(max(len(ask), 1)) as pool:
        found = dict(zip(ask, pool.map(lambda name: _read(session, name, ask[name]), ask), strict=True))
    return [
        _with_diff(change, wanted, found.get(change.machine, {}), session.mask.text) for change in changes
    ]


def _content(change: Change) -> bool:
    return "content" in change.detail


def _item(wanted: Mapping[str, Wanted], change: Change) -> Rendered | None:
    if change.kind != "file" or change.machine not in wanted:
        return None
    return wanted[change.machine].files.get(change.name)


def _read(session: Session, machine: str, paths: list[str]) -> dict[str, bytes | None]:
    """Path -> content; None for what is no file or too large. A machine that cannot tell has no diffs."""
    try:
        code, out, _ = session.engine.run(
            machine, f"python3 -c {shlex.quote(_READ)}", stdin=json.dumps(paths), timeout=BOUND
        )
        answer = json.loads(out) if code == 0 else {}
    except (DeployError, ValueError):
        return {}
    return {
        path: base64.b64decode(text) if text else (b"" if text == "" else None)
        for path, text in answer.items()
    }


def _with_diff(
    change: Change,
    wanted: Mapping[str, Wanted],
    found: Mapping[str, bytes | None],
    mask: Callable[[str], str],
) -> Change:
    item = _item(wanted, change)
    if item is None or change.action == "remove":
        return change
    if change.action == "change" and not _content(change):
        return change
    if hidden(item):
        return replace(change, diff=SECRET)
    before = b"" if change.action == "create" else found.get(change.name)
    return replace(change, diff=mask(unified(change.name, before, item.data)))


def unified(path: str, before: bytes | None, after: bytes) -> str:
    """The diff, bounded; addresses of machines that do not exist yet are said to be known later.

    before: None when it could not be read.
    """
    if before is None or len(after) > MOST or b"\0" in before or b"\0" in after:
        return f"(not shown: no text, or more than {MOST >> 10} KiB)"
    old, new = (_lines(part) for part in (before, after))
    lines = list(difflib.unified_diff(old, new, path, path, lineterm=""))
    more = len(lines) - LINES
    if more > 0:
        lines = [*lines[:LINES], f"(and {more} lines more)"]
    return "\n".join(lines)


def _lines(data: bytes) -> list[str]:
    text = data.decode(errors="replace")
    return _later(text).splitlines()


def _later(text: str) -> str:
    parts = text.split(PLACEHOLDER)
    made = parts[0]
    for part in parts[1:]:
        # 192.0.2.10 is another address.
        made += (PLACEHOLDER if part[:1].isdigit() else UNKNOWN) + part
    return made
