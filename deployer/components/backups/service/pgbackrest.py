"""pgBackRest as the database's programs use it: its calls, its words for failures, what it says of a repository.

Not a program. Everything here runs as root and calls pgBackRest as postgres. Its configurations: database_conf.py.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/deploy/backups/settings.json")
STATE = Path("/var/lib/deploy/backups")
CLUSTER = Path("/var/lib/postgresql/17/main")
BIN = "/usr/lib/postgresql/17/bin"
VERSION = "17"
STANZA = "main"
# PostgreSQL counts a segment as 16 MiB unless initdb was told otherwise, which ours is not.
SEGMENT = 16 << 20


class Failed(Exception):
    """What was being done, why it failed, what to do."""

    def __init__(self, what: str, why: str, next: str) -> None:
        super().__init__(f"{what}: {why}; {next}")
        self.error = {"what": what, "why": why, "next": next}


def settings() -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(SETTINGS.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise Failed("reading the backups' settings", f"{SETTINGS}: {error}", "run `deploy up`") from None


def repository(wanted: Mapping[str, Any], name: str) -> dict[str, Any]:
    for one in wanted["repositories"]:
        if one["name"] == name:
            return dict(one)
    names = ", ".join(one["name"] for one in wanted["repositories"]) or "none"
    raise Failed(f"looking for the repository {name}", f"this deployment has {names}", "name one of these")


# --- files ---


def folder(path: Path, mode: int, uid: int, gid: int) -> None:
    path.mkdir(exist_ok=True)
    os.chown(path, uid, gid)
    path.chmod(mode)


def write(path: Path, text: str, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        os.fchown(file.fileno(), uid, gid)
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


# --- calls ---


def as_postgres(
    argv: Sequence[str], *, timeout: float, stdin: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run as postgres, bounded. The whole group of processes ends with it. Exit code 124: the time was over."""
    command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *argv]
    plain = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/var/lib/postgresql"}
    process = subprocess.Popen(
        command,
        cwd="/",
        env={**plain, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            out, err = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            out, err = process.communicate()
        return subprocess.CompletedProcess(command, 124, out, f"{err}no end within {timeout:g} s\n")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def call(
    conf: Path, *arguments: str, timeout: float, words: str = "warn"
) -> subprocess.CompletedProcess[str]:
    """pgBackRest with one repository's configuration. Answers go to standard output, its words, from the level `words`
    on, to standard error."""
    argv = ["pgbackrest", f"--config={conf}", f"--stanza={STANZA}", "--log-level-console=off"]
    return as_postgres([*argv, f"--log-level-stderr={words}", *arguments], timeout=timeout)


def good(what: str, conf: Path, *words: str, timeout: float) -> str:
    """Like `call`; raises Failed, in words for an operator, when it did not work."""
    done = call(conf, *words, timeout=timeout)
    if done.returncode:
        raise failure(what, done)
    return done.stdout


_NOISE = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ +P\d+ +(ERROR|WARN|INFO): *")


def words_of(done: subprocess.CompletedProcess[str]) -> str:
    """What it wrote, without times and process numbers."""
    lines = [_NOISE.sub("", line).strip() for line in (done.stderr + "\n" + done.stdout).splitlines()]
    return " ".join(line for line in lines if line)[:800] or f"it ended with {done.returncode}"


# What a wrong password makes of an encrypted text: no header, no end, or nonsense.
_CIPHER = re.compile(
    r"CryptoError|cipher header|unable to (?:decrypt|flush)|found outside of section|UTF-?8", re.I
)


def failure(what: str, done: subprocess.CompletedProcess[str]) -> Failed:
    text = words_of(done)
    if _CIPHER.search(text):
        # What follows is what the wrong password made of the object.
        plain = re.sub(r": FormatError.*|[^ -~]", "", text)[:300]
        return Failed(
            what,
            f"the password does not fit what the repository holds, or an object is damaged: {plain}",
            "see that the secrets bundle is of this stack and generation; else take another repository",
        )
    if "missing stanza" in text:
        return Failed(
            what, f"there is no database of this generation: {text}", "see the repository's bucket and prefix"
        )
    if done.returncode == 124 or re.search(
        r"HostConnect|unable to connect|timeout|unable to get address|TLS|\[049\]|\[124\]|no end within", text
    ):
        return Failed(
            what, f"the repository does not answer: {text}", "see whether its vendor works, or take another"
        )
    if (
        "AccessDenied" in text
        or "SignatureDoesNotMatch" in text
        or "InvalidAccessKeyId" in text
        or "403" in text
    ):
        if re.search(r"DELETE |POST \S*\?delete", text):
            why = (
                "the key may not hide objects below */database/backup/, which pgBackRest does in every backup"
            )
            return Failed(what, why, "see docs/backups.md, Keys that cannot delete")
        return Failed(what, f"the repository refuses the key: {text}", "see the key in the inventory")
    if "FileMissingError" in text or "[055]" in text:
        return Failed(what, f"nothing of ours is there: {text}", "see the repository's bucket and prefix")
    return Failed(what, text, "see `journalctl -t pgbackrest` and the text above")


def info(conf: Path, timeout: float = 30) -> dict[str, Any]:
    """What `pgbackrest info` says of the stanza: {"backup": [...], "archive": [...], "db": [...]}.

    Raises Failed when the repository does not answer, cannot be decrypted, or has nothing.
    """
    what = "reading what the repository holds"
    done = call(conf, "info", "--output=json", "--io-timeout=5", timeout=timeout)
    if done.returncode:
        raise failure(what, done)
    try:
        # With a wrong password its words hold bytes of any kind, which JSON does not allow.
        entries = json.loads(done.stdout, strict=False)
        found: dict[str, Any] = next(one for one in entries if one["name"] == STANZA)
    except (ValueError, StopIteration, KeyError):
        raise Failed(what, f"unexpected answer: {done.stdout[:300]}", "see `pgbackrest info`") from None
    status = found["repo"][0]["status"]
    if status["code"] not in (0, 2):
        text = str(status["message"])
        done = subprocess.CompletedProcess([], 1, "", text)
        raise failure(what, done)
    return found


# --- times ---


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def iso(moment: datetime.datetime | float) -> str:
    if not isinstance(moment, datetime.datetime):
        moment = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> datetime.datetime:
    """ISO 8601; without a zone it is UTC."""
    found = datetime.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
