"""The configurations of pgBackRest, one for each repository: each stands alone. Not a program."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pgbackrest

CONF = Path("/etc/deploy/backups/pgbackrest")
# On the data volume: postgres may write there, and what waits there belongs to the data.
WORK = Path("/var/lib/postgresql/pgbackrest")
# At work at once, beside a database that serves.
PROCESSES = 2


def configuration(
    one: Mapping[str, Any], work: Path, cluster: Path = pgbackrest.CLUSTER, processes: int = PROCESSES
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
    lines += ["", "[global:backup]", "resume=n", "", f"[{pgbackrest.STANZA}]", f"pg1-path={cluster}"]
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
    pgbackrest.folder(CONF, 0o750, 0, group)
    files = configurations(wanted)
    for path, text in files.items():
        pgbackrest.write(path, text, 0o640, 0, group)
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
        pgbackrest.folder(path, 0o750, user.pw_uid, user.pw_gid)
