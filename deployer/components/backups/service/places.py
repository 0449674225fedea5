"""Folders and files beside their places, and the swap: by rename, or piece by piece where the place is a mount."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


def is_mount(path: Path) -> bool:
    """Bind mounts too, which `os.path.ismount` does not see."""
    name = os.path.realpath(path).replace("\\", "\\134").replace(" ", "\\040")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
        return any(line.split(" ")[4] == name for line in lines)


def beside(where: Path, name: str) -> Path:
    """Where the new data grow: in the same file system, for the rename."""
    if where.is_dir() and is_mount(where):
        return where / f".restored-{name}"
    return where.with_name(f".restored-{name}.{where.name}")


def swap_file(where: Path, new: Path, name: str) -> None:
    """new becomes where; the old one, with what belongs to it, is kept."""
    if not new.exists():
        return
    for end in ("-wal", "-shm", "-journal"):
        old = Path(f"{where}{end}")
        if old.exists():
            os.rename(old, f"{where}.before-{name}{end}")
    if where.exists() and not Path(f"{where}.before-{name}").exists():
        os.link(where, f"{where}.before-{name}")
    os.replace(new, where)


def swap_folder(where: Path, new: Path, name: str, save: Callable[[], None], state: dict[str, Any]) -> None:
    """new becomes where; the old one is kept when it held anything. state, save: remember what is done."""
    if not new.exists():
        return
    if new.parent == where:
        _swap_contents(where, new, name, save, state)
        return
    old = where.with_name(f"{where.name}.before-{name}")
    if where.exists():
        if any(where.iterdir()) and not old.exists():
            try:
                os.rename(where, old)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # A folder of an overlay's lower layer cannot be renamed (a container's image); its files can.
                _swap_contents(where, new, name, save, state)
                return
        else:
            with contextlib.suppress(OSError):
                where.rmdir()
    os.rename(new, where)


def _swap_contents(
    where: Path, new: Path, name: str, save: Callable[[], None], state: dict[str, Any]
) -> None:
    """A mount cannot be renamed: its contents go aside one by one, then the new ones come in."""
    inside = new.parent == where
    old = where / f".before-{name}" if inside else where.with_name(f"{where.name}.before-{name}")
    if not state.get("aside"):
        for entry in sorted(where.iterdir()):
            if not entry.name.startswith((".restored-", ".before-")) and entry.name != "lost+found":
                old.mkdir(mode=0o700, exist_ok=True)
                # Across layers too, as mv(1) does it.
                shutil.move(entry, old / entry.name)
        state["aside"] = True
        save()
    info = new.stat()
    for entry in sorted(new.iterdir()):
        os.rename(entry, where / entry.name)
    os.chown(where, info.st_uid, info.st_gid)
    os.chmod(where, info.st_mode & 0o7777)
    new.rmdir()


def apply_owner(path: Path, entry: dict[str, Any], mode: bool) -> None:
    """As it was: the user by name, whatever number that name has here."""
    uid, gid = uid_here(entry["users"], entry["user"]), gid_here(entry["groups"], entry["group"])
    os.chown(path, uid, gid)
    if mode:
        path.chmod(entry["mode"])


def translate(folder: Path, entry: dict[str, Any]) -> None:
    """Numbers of users are the old machine's: give each file to who bears the name here."""
    users = {int(uid): uid_here(entry["users"], int(uid)) for uid in entry["users"]}
    groups = {int(gid): gid_here(entry["groups"], int(gid)) for gid in entry["groups"]}
    if all(old == new for table in (users, groups) for old, new in table.items()):
        return
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            info = os.lstat(path)
            uid, gid = users.get(info.st_uid, info.st_uid), groups.get(info.st_gid, info.st_gid)
            if (uid, gid) != (info.st_uid, info.st_gid):
                os.chown(path, uid, gid, follow_symlinks=False)
                if not os.path.islink(path):
                    os.chmod(path, info.st_mode & 0o7777)


def uid_here(users: dict[str, str], uid: int) -> int:
    return _uid(users.get(str(uid), ""), uid)


def gid_here(groups: dict[str, str], gid: int) -> int:
    return _gid(groups.get(str(gid), ""), gid)


@cache
def _uid(name: str, otherwise: int) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return otherwise


@cache
def _gid(name: str, otherwise: int) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return otherwise
