# Delete what the policy does not keep from repositories: old full backups with what builds on them, old snapshots of
# files. Runs where the key that may delete can be: on the operator's computer, on a throw-away machine, or, for a
# folder, on the machine that has it. Needs pgbackrest and restic; standard library only; leaves nothing behind.
# Request (one JSON line on standard input): repository as in settings.json, with trusted_ca (PEM) and the key that may
# delete; keep_full; keep_files (days); parts: of "database", "files".
# Answer (last line): {"database": {...}, "files": {...}} or {"error": {what, why, next}}, and then exit code 1.
from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any
from urllib.parse import urlsplit

# Seconds for one program: deleting at an object store is many small requests.
BOUND = 6 * 3600
# How long restic waits for those that make snapshots just now, every few minutes.
LOCK = "20m"


class Failure(Exception):
    def __init__(self, what: str, why: str, next: str) -> None:
        super().__init__(what)
        self.body = {"what": what, "why": why, "next": next}


def run(
    what: str,
    argv: list[str],
    environment: dict[str, str] | None = None,
    codes: tuple[int, ...] = (0,),
    owner: os.stat_result | None = None,
) -> str:
    """owner: whose files these are; it runs as that user."""
    who: dict[str, Any] = {}
    if owner and os.geteuid() == 0 and owner.st_uid:
        who = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=BOUND,
            cwd="/",
            **who,
        )
    except FileNotFoundError:
        raise Failure(what, f"the program {argv[0]} is missing", f"install {argv[0]}") from None
    except subprocess.TimeoutExpired:
        raise Failure(what, f"no end after {BOUND // 3600} h", "run it again: it goes on") from None
    if done.returncode not in codes:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        wrong = [line for line in lines if "ERROR" in line or "Fatal" in line] or lines
        why = " / ".join(plain(line) for line in wrong[-3:])[:600] or f"it ended with {done.returncode}"
        raise Failure(what, why, "see whether the key may delete, and the repository answers; run it again")
    return done.stdout


def plain(line: str) -> str:
    """A line of an error; restic wraps some in JSON."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line.strip()


def private(folder: str, name: str, text: str) -> str:
    path = os.path.join(folder, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def joined(*parts: str) -> str:
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


def ca(folder: str, repository: dict[str, Any]) -> str:
    """The file with the repository's own CA, or ""."""
    if repository.get("trusted_ca"):
        path = os.path.join(folder, "ca.crt")
        return path if os.path.exists(path) else private(folder, "ca.crt", repository["trusted_ca"])
    return str(repository.get("ca_file") or "")


# --- the database ---


def pgbackrest_settings(folder: str, repository: dict[str, Any], keep_full: int) -> str:
    lines = {
        "repo1-cipher-type": "aes-256-cbc",
        "repo1-cipher-pass": repository["database_cipher"],
        "repo1-retention-full-type": "count",
        "repo1-retention-full": str(keep_full),
        "log-level-file": "off",
        "log-level-console": "info",
        "log-path": folder,
        "lock-path": os.path.join(folder, "lock"),
        "spool-path": os.path.join(folder, "spool"),
    }
    if repository["kind"] == "s3":
        address = urlsplit(repository["endpoint"])
        lines |= {
            "repo1-type": "s3",
            "repo1-path": "/" + joined(repository["prefix"], repository["database_key"]),
            "repo1-s3-bucket": repository["bucket"],
            "repo1-s3-endpoint": address.netloc,
            "repo1-s3-region": repository["region"],
            "repo1-s3-key": repository["key"],
            "repo1-s3-key-secret": repository["secret"],
            "repo1-s3-uri-style": "path",
        }
        if address.port:
            lines |= {"repo1-s3-endpoint": str(address.hostname), "repo1-storage-port": str(address.port)}
        if path := ca(folder, repository):
            lines["repo1-storage-ca-file"] = path
    else:
        lines["repo1-path"] = "/" + joined(repository["path"], repository["database_key"])
    text = "[global]\n" + "".join(f"{key}={value}\n" for key, value in lines.items()) + "\n[main]\n"
    # It must be named, and is not looked at.
    return private(folder, "pgbackrest.conf", text + "pg1-path=/nonexistent\n")


def info(settings: str, owner: os.stat_result | None) -> dict[str, Any]:
    out = run(
        "reading which backups there are",
        ["pgbackrest", f"--config={settings}", "--stanza=main", "--output=json", "info"],
        owner=owner,
    )
    # Messages in it may hold line ends as they are.
    found = json.loads(out or "[]", strict=False)
    return found[0] if found else {}


def labels(stanza: dict[str, Any]) -> list[str]:
    return [str(one["label"]) for one in stanza.get("backup", ())]


def database(folder: str, request: dict[str, Any]) -> dict[str, Any]:
    settings = pgbackrest_settings(folder, request["repository"], int(request["keep_full"]))
    owner = None
    if request["repository"]["kind"] == "path":
        place = "/" + joined(request["repository"]["path"], request["repository"]["database_key"])
        if not os.path.isdir(place):
            return {"deleted": [], "kept": []}
        # What pgBackRest writes there anew must stay its user's, or no backup is made any more.
        owner = os.stat(place)
        for path in (folder, settings):
            os.chown(path, owner.st_uid, owner.st_gid)
    before = info(settings, owner)
    if not labels(before):
        # 0: good; 1: no stanza; 2: no backups.
        status = (before.get("repo") or [{}])[0].get("status") or before.get("status") or {"code": 1}
        if int(status["code"]) in (0, 1, 2):
            return {"deleted": [], "kept": []}
        why = " ".join(str(status["message"]).split())[:600]
        next = "see whether the repository answers with this key, and the secrets bundle is the newest: deploy doctor"
        raise Failure("reading which backups there are", why, next)
    run(
        "deleting old backups of the database",
        ["pgbackrest", f"--config={settings}", "--stanza=main", "expire"],
        owner=owner,
    )
    after = labels(info(settings, owner))
    return {"deleted": [label for label in labels(before) if label not in after], "kept": after}


# --- the files ---


def files(folder: str, request: dict[str, Any]) -> dict[str, Any]:
    repository = request["repository"]
    if repository["kind"] == "s3":
        place = joined(repository["bucket"], repository["prefix"], repository["files_key"])
        where = f"s3:{repository['endpoint'].rstrip('/')}/{place}"
    else:
        where = "/" + joined(repository["path"], repository["files_key"])
    password = private(folder, "restic.password", repository["files_password"])
    environment = {
        "RESTIC_REPOSITORY": where,
        "RESTIC_PASSWORD_FILE": password,
        "RESTIC_CACHE_DIR": os.path.join(folder, "cache"),
        "AWS_ACCESS_KEY_ID": repository["key"],
        "AWS_SECRET_ACCESS_KEY": repository["secret"],
        "AWS_DEFAULT_REGION": repository["region"],
    }
    common = ["restic", "--retry-lock", LOCK]
    if path := ca(folder, repository):
        common += ["--cacert", path]
    # 10: there is no repository yet.
    listed = run("reading which snapshots there are", [*common, "snapshots", "--json"], environment, (0, 10))
    if not listed.strip().startswith("["):
        return {"deleted": 0, "kept": 0}
    snapshots = json.loads(listed) or []
    gone = old(snapshots, int(request["keep_files"]) * 86400)
    for at in range(0, len(gone), 200):
        run(
            "forgetting old snapshots of files",
            [*common, "forget", "--quiet", *gone[at : at + 200]],
            environment,
        )
    # Also when nothing is old: a run that was broken off may have left what nobody names.
    run("deleting what no snapshot needs", [*common, "prune", "--quiet"], environment)
    return {"deleted": len(gone), "kept": len(snapshots) - len(gone)}


def old(snapshots: list[dict[str, Any]], seconds: float) -> list[str]:
    """Ids of the snapshots to forget. Each machine's count from its own newest one: what a machine left that is gone
    stays. Of the app's releases those that were in use at a time that can be restored to stay."""
    hosts: dict[str, list[tuple[float, str, bool]]] = {}
    for one in snapshots:
        point = any(tag.startswith("point=") for tag in one.get("tags") or [])
        hosts.setdefault(one["hostname"], []).append((moment(one["time"]), one["id"], point))
    gone = []
    for listed in hosts.values():
        points = [at for at, _, point in listed if point]
        if not points:
            continue
        first = max(points) - seconds
        releases = [at for at, _, point in listed if not point and at <= first]
        in_use = max(releases, default=first)
        gone += [id for at, id, point in listed if at < (first if point else in_use)]
    return gone


def moment(text: str) -> float:
    """Seconds of a time as restic writes it, with nanoseconds."""
    head, _, tail = text.partition(".")
    zone = tail.lstrip("0123456789") if tail else ""
    return datetime.datetime.fromisoformat(
        head.replace("Z", "+00:00") + zone.replace("Z", "+00:00")
    ).timestamp()


def main() -> int:
    request = json.loads(sys.stdin.readline())
    folder = tempfile.mkdtemp(prefix="deploy-prune-")
    try:
        # Another user may pass through to his own folder in it.
        os.chmod(folder, 0o711)
        work = {"database": database, "files": files}
        answer: dict[str, Any] = {}
        for part in request["parts"]:
            try:
                own = os.path.join(folder, part)
                os.mkdir(own, 0o700)
                answer[part] = work[part](own, request)
            except Failure as error:
                answer.setdefault("error", error.body)
        print(json.dumps(answer))
        return 1 if "error" in answer else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
