# Write files and directories on this machine. Runs on it, as root, from standard input.
# Request (one JSON line): directories [[path, mode, owner, group]], files [[path, mode, owner, group, base64]],
# remove [path], managed {path: component} or null, stale [component]. Each file appears whole or not at all; killed
# anywhere, the next run finds what is missing by comparing again.
from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import sys

STATE = "/var/lib/deploy"


def place(path: str, mode: int, owner: str, group: str, data: bytes) -> None:
    new = path + ".deploy-new"
    try:
        os.unlink(new)
    except OSError:
        pass
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fchown(file.fileno(), pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    os.replace(new, path)


def main() -> None:
    wanted = json.loads(sys.stdin.readline())
    for component in wanted["stale"]:
        try:
            os.unlink(f"{STATE}/applied/{component}")
        except FileNotFoundError:
            pass
    for path, mode, owner, group in wanted["directories"]:
        os.makedirs(path, mode=0o755, exist_ok=True)
        os.chown(path, pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
        os.chmod(path, mode)
    for path, mode, owner, group, data in wanted["files"]:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        try:
            place(path, mode, owner, group, base64.b64decode(data))
        except KeyError as error:
            sys.exit("cannot write {}: {}".format(path, str(error).strip("'\"")))
        except OSError as error:
            sys.exit(f"cannot write {path}: {error.strerror or error}")
    for path in wanted["remove"]:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
    if wanted["managed"] is not None:
        os.makedirs(STATE, mode=0o755, exist_ok=True)
        place(STATE + "/managed.json", 0o600, "root", "root", json.dumps(wanted["managed"]).encode())
    print("{}")


main()
