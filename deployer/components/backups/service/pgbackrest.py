"""pgBackRest as the database's programs use it: a configuration for each repository, its calls, its words for failures.

Not a program. Everything here runs as root and calls pgBackRest as postgres.
"""

from __future__ import annotations

import contextlib
import datetime
import grp
import json
import os
import pwd
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SETTINGS = Path("/etc/deploy/backups/settings.json")
CONF = Path("/etc/deploy/backups/pgbackrest")
STATE = Path("/var/lib/deploy/backups")
CLUSTER = Path("/var/lib/postgresql/17/main")
# On the data volume: postgres may write there, and what waits there belongs to the data.
WORK = Path("/var/lib/postgresql/pgbackrest")
BIN = "/usr/lib/postgresql/17/bin"
VERSION = "17"
STANZA = "main"
# PostgreSQL counts a segment as 16 MiB unless initdb was told otherwise, which ours is not.
SEGMENT = 16 << 20
# At work at once, beside a database that serves.
PROCESSES = 2


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


# --- configurations ---


def configuration(
    one: Mapping[str, Any], work: Path, cluster: Path = CLUSTER, processes: int = PROCESSES
) -> str:
    """Text of pgbackrest.conf for one repository. work: folder for spool and locks that postgres may write.

    The bound on the queue is not set: pgBackRest would drop WAL from the archive to keep to it.
    """
    if one["kind"] == "s3":
        url = urlsplit(one["endpoint"])
        path = "/".join(part for part in (one["prefix"].strip("/"), one["database_key"]) if part)
        place = {
            "type": "s3",
            "path": f"/{path}",
            "s3-bucket": one["bucket"],
            "s3-endpoint": url.hostname or "",
            "s3-region": one["region"],
            "s3-key": one["key"],
            "s3-key-secret": one["secret"],
            "s3-uri-style": "path",
            "storage-verify-tls": "y",
        }
        if url.port:
            place["storage-port"] = str(url.port)
        if one["ca_file"]:
            place["storage-ca-file"] = one["ca_file"]
    else:
        place = {"type": "posix", "path": f"{one['path'].rstrip('/')}/{one['database_key']}"}
    place |= {
        "cipher-type": "aes-256-cbc",
        "cipher-pass": one["database_cipher"],
        # Many small files in one object: a request for each would cost more than the bytes.
        "bundle": "y",
        # `backup prune` expires, with a key that may delete; pgBackRest wants a number all the same.
        "retention-full": "9999999",
    }
    common = {
        "archive-async": "y",
        "archive-timeout": "20",
        "compress-type": "zst",
        "compress-level": "3",
        "db-timeout": "600",
        "expire-auto": "n",
        "io-timeout": "15",
        "lock-path": f"{work}/lock",
        "log-level-console": "warn",
        "log-level-file": "off",
        "log-path": f"{work}/log",
        "process-max": str(processes),
        "protocol-timeout": "630",
        "resume": "n",
        "spool-path": f"{work}/spool",
        "start-fast": "y",
    }
    lines = ["# Managed by deploy.", "[global]"]
    lines += [f"repo1-{key}={value}" for key, value in place.items()]
    lines += [f"{key}={value}" for key, value in common.items() if key != "resume"]
    lines += ["", "[global:backup]", "resume=n", "", f"[{STANZA}]", f"pg1-path={cluster}"]
    lines += ["pg1-socket-path=/run/postgresql", "pg1-user=postgres", ""]
    return "\n".join(lines)


def work_folder(wanted: Mapping[str, Any], name: str) -> Path:
    """A generation has its own: an older one's notes on what is archived must not count."""
    return WORK / f"{wanted['generation']:06d}" / name


def configurations(wanted: Mapping[str, Any]) -> dict[Path, str]:
    """The files below CONF and what they shall hold."""
    return {
        CONF / f"{one['name']}.conf": configuration(one, work_folder(wanted, one["name"]))
        for one in wanted["repositories"]
    }


def configured(wanted: Mapping[str, Any]) -> bool:
    files = configurations(wanted)
    try:
        same = all(path.read_text(encoding="utf-8") == text for path, text in files.items())
    except OSError:
        return False
    return same and set(CONF.glob("*.conf")) == set(files)


def configure(wanted: Mapping[str, Any]) -> None:
    """Write the configurations and make their folders; postgres may read the one and write in the other."""
    group = grp.getgrnam("postgres").gr_gid
    folder(CONF, 0o750, 0, group)
    files = configurations(wanted)
    for path, text in files.items():
        write(path, text, 0o640, 0, group)
    for path in set(CONF.glob("*.conf")) - set(files):
        path.unlink()
    for one in wanted["repositories"]:
        work_folders(work_folder(wanted, one["name"]))


def work_folders(work: Path) -> None:
    user = pwd.getpwnam("postgres")
    made = []
    while not work.exists() and work != WORK.parent:
        made.append(work)
        work = work.parent
    for path in reversed(made):
        folder(path, 0o750, user.pw_uid, user.pw_gid)


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
