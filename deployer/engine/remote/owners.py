# Give the users whose files lie on a kept data volume the numbers that they had on the former machine. Runs on the
# machine, as root, before any package is installed; the argument is the volume. Changes nothing where all is right.
from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys

# Numbers that nobody has: files pass through them, so that two users who have changed places are not mixed up.
AWAY = 1 << 24


def lines(path: str) -> list[list[str]]:
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n").split(":") for line in file if line.count(":") > 2]


def number(table: object, name: str) -> int | None:
    try:
        return int(table(name)[2])  # type: ignore[operator]
    except KeyError:
        return None


def free(table: object, wanted: int) -> bool:
    try:
        table(wanted)  # type: ignore[operator]
    except KeyError:
        return True
    return False


def make(users: list[list[str]], groups: list[list[str]]) -> None:
    """Who is missing, with his former number unless somebody else has it here."""
    names = {entry[2]: entry[0] for entry in groups}
    for name, _, gid, *_ in groups:
        if number(grp.getgrnam, name) is None:
            wish = ["-g", gid] if free(grp.getgrgid, int(gid)) else []
            subprocess.run(["groupadd", "-r", *wish, name], check=True)
    for name, _, uid, gid, _, home, shell in users:
        if number(pwd.getpwnam, name) is None:
            wish = ["-u", uid] if free(pwd.getpwuid, int(uid)) else []
            group = names.get(gid, "nogroup")
            subprocess.run(
                ["useradd", "-r", "-M", "-d", home, "-s", shell, "-g", group, *wish, name], check=True
            )


def changed(table: object, entries: list[list[str]]) -> dict[int, int]:
    """Former number -> present one, where they differ."""
    found = {int(entry[2]): number(table, entry[0]) for entry in entries}
    return {old: new for old, new in found.items() if new is not None and new != old}


def hand_over(volume: str, uids: dict[int, int], gids: dict[int, int]) -> None:
    device = os.lstat(volume).st_dev
    for folder, folders, files in os.walk(volume):
        folders[:] = [name for name in folders if os.lstat(os.path.join(folder, name)).st_dev == device]
        for path in (os.path.join(folder, name) for name in (".", *folders, *files)):
            info = os.lstat(path)
            uid, gid = uids.get(info.st_uid, info.st_uid), gids.get(info.st_gid, info.st_gid)
            if (uid, gid) != (info.st_uid, info.st_gid):
                mode = info.st_mode & 0o7777
                os.chown(path, uid, gid, follow_symlinks=False)
                if mode & 0o6000 and not os.path.islink(path):
                    os.chmod(path, mode)


def main(volume: str) -> None:
    kept, second = f"{volume}/.deploy", f"{volume}/.deploy/handing-over"
    users, groups = lines(f"{kept}/passwd"), lines(f"{kept}/group")
    make(users, groups)
    uids, gids = changed(pwd.getpwnam, users), changed(grp.getgrnam, groups)
    if not (uids or gids):
        return
    if not os.path.exists(second):
        hand_over(volume, *({old: new + AWAY for old, new in table.items()} for table in (uids, gids)))
        open(second, "w").close()
        os.sync()
    hand_over(volume, *({new + AWAY: new for new in table.values()} for table in (uids, gids)))
    for name, entries, table in (("passwd", users, uids), ("group", groups, gids)):
        for entry in entries:
            entry[2] = str(table.get(int(entry[2]), int(entry[2])))
        with open(f"{kept}/{name}.new", "w", encoding="utf-8") as file:
            file.write("".join(":".join(entry) + "\n" for entry in entries))
        os.replace(f"{kept}/{name}.new", f"{kept}/{name}")
    os.remove(second)


main(sys.argv[1])
