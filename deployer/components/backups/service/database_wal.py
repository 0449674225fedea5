"""The WAL in a repository: which segments there are, and the time of the last commit in some of them.

Not a program.
"""

from __future__ import annotations

import contextlib
import json
import pwd
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pgbackrest


def listing(conf: Path, timeout: float = 300) -> dict[str, str]:
    """The WAL segments in the repository: name -> path, whose last part has the SHA-1 of the content."""
    out = pgbackrest.good(
        "listing the repository's WAL", conf, "repo-ls", "--recurse", "--output=json", f"archive/{pgbackrest.STANZA}",
        timeout=timeout,
    )  # fmt: skip
    found = {}
    for path in json.loads(out):
        match = re.search(r"/([0-9A-F]{24})-[0-9a-f]{40}(?:\.\w+)?$", path)
        if match:
            found[match[1]] = f"archive/{pgbackrest.STANZA}/{path}"
    return found


def next_segment(name: str) -> str:
    """The name of the segment after this one, on its timeline. 0x100 segments of 16 MiB make a log."""
    number = (int(name[8:16], 16) << 8) + int(name[16:], 16) + 1
    return f"{name[:8]}{number >> 8:08X}{number & 0xFF:08X}"


def segments_to(last: str, first: str, count: int = 4) -> list[str]:
    """The last few segments up to `last`, none before `first`, in order."""
    number = (int(last[8:16], 16) << 8) + int(last[16:], 16)
    names = [
        f"{last[:8]}{one >> 8:08X}{one & 0xFF:08X}" for one in range(max(0, number - count + 1), number + 1)
    ]
    return [name for name in names if name >= first]


_COMMIT = re.compile(r"desc: COMMIT (?:PREPARED )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")


# The object itself, without the cluster that archive-get wants to see.
_FETCH = 'set -o pipefail; pgbackrest --config="$1" --stanza="$2" repo-get "$3" | zstd -dq >"$4"'


def last_commit(conf: Path, segment: str, folder: Path, timeout: float, path: str = "") -> str:
    """The time of the last commit in a segment that is fetched from the repository, ISO 8601; "" when it has none.
    path: of the object, where there is no cluster of the archive's."""
    what, file = f"reading the WAL segment {segment} back", folder / segment
    if path:
        done = pgbackrest.as_postgres(
            ["bash", "-c", _FETCH, "bash", str(conf), pgbackrest.STANZA, path, str(file)], timeout=timeout
        )
        if done.returncode:
            raise pgbackrest.failure(what, done)
    else:
        pgbackrest.good(what, conf, "archive-get", "--no-archive-async", segment, str(file), timeout=timeout)
    try:
        # It ends with an error where the last record goes on in the next segment: that one was not committed here.
        done = pgbackrest.as_postgres(
            [f"{pgbackrest.BIN}/pg_waldump", "--rmgr=Transaction", str(file)], timeout=timeout
        )
    finally:
        file.unlink(missing_ok=True)
    times = _COMMIT.findall(done.stdout)
    return f"{times[-1].replace(' ', 'T')}Z" if times else ""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory that postgres may write, for one segment at a time."""
    user = pwd.getpwnam("postgres")
    path = Path(tempfile.mkdtemp(prefix="deploy-wal-", dir="/run"))
    pgbackrest.folder(path, 0o700, user.pw_uid, user.pw_gid)
    try:
        yield path
    finally:
        for one in path.iterdir():
            one.unlink()
        path.rmdir()


def newest_commit(
    conf: Path, segments: Sequence[str], timeout: float = 30, paths: Mapping[str, str] | None = None
) -> str:
    """The time of the last commit in these segments, read from the repository. paths: as `listing` gives them."""
    with scratch() as where:
        for segment in reversed(segments):
            found = last_commit(conf, segment, where, timeout, (paths or {}).get(segment, ""))
            if found:
                return found
    return ""
