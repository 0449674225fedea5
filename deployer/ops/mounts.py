"""Folders of a machine that lie on its data volume."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from pathlib import Path

from pyinfra.api import StringCommand, operation

from deployer.ops.script import script

VOLUME = "/srv/data"
# The volume's own name, on the volume and on the machine: a machine that has put data on one volume must never go on
# with another, or with the empty folder below it.
_MARK, _KNOWN = f"{VOLUME}/.deploy/volume", "/var/lib/deploy/volume"

# Users whose files may lie on the volume, as passwd(5) and group(5); base writes them (the step "owners of data").
OWNERS = f"{VOLUME}/.deploy"
_PROGRAM = Path(__file__).resolve().parent.parent / "engine" / "remote" / "owners.py"

# files: whether a folder holds anything; folders, sockets and pipes are nothing, packages make them.
_BEGIN = f"""
refuse() {{ echo "$*" >&2; exit 1; }}
files() {{ [ -d "$1" ] && [ -n "$(find "$1" -xdev \\( -type f -o -type l \\) -print -quit)" ]; }}
# One that was detached and attached again is not mounted by itself.
mountpoint -q {VOLUME} || mount {VOLUME} 2>/dev/null ||
    refuse "the data volume is not mounted at {VOLUME}: see to it at the vendor, and to" \\
    "journalctl -u cloud-init; nothing was changed"
if [ -e {_KNOWN} ]; then
    cmp -s {_KNOWN} {_MARK} || refuse "what is mounted at {VOLUME} is not the volume that this machine's data lie on;" \\
        "nothing was changed"
else
    mkdir -p {VOLUME}/.deploy /var/lib/deploy
    [ ! -s {_MARK} ] || [ ! -s {OWNERS}/passwd ] || python3 -c "$owners" {VOLUME}
    [ -s {_MARK} ] || {{ cat /proc/sys/kernel/random/uuid > {_MARK}.new; sync {_MARK}.new; mv {_MARK}.new {_MARK}; }}
    cp {_MARK} {_KNOWN}.new; sync {_KNOWN}.new; mv {_KNOWN}.new {_KNOWN}
fi
settle() {{ # WHERE WHAT
    if mountpoint -q "$1"; then
        [ "$1" -ef "$2" ] || refuse "something else is mounted at $1; nothing was changed"
        return 0
    fi
    if files "$1"; then
        files "$2" && refuse "both $1 and $2 hold data, and nobody but you knows which is right; nothing was changed"
        refuse "$1 holds data on the system disk, and nothing is moved by itself. Move it: stop the services that" \\
            "use it, cp -a $1/. $2/ (make the folder first), mv $1 $1.old, and run this again"
    fi
    mkdir -p "$2"
    if [ -d "$1" ] && ! files "$2"; then
        # With the owners that packages gave them.
        (cd "$1" && find . -xdev -type d -print0) | tar -C "$1" --null --no-recursion -T - -cf - | tar -C "$2" -xpf -
    fi
    mkdir -p "$1"
}}
"""


@operation()
def active(mounts: Sequence[Sequence[str]]) -> Generator[StringCommand, None, None]:
    """mounts: [where, what, unit]; `unit` mounts the folder `what` of the volume at `where`.

    Never moves or deletes: where both or only the wrong one of the folders holds files it fails, saying what to do.
    All are looked at before the first one is mounted.
    """
    quoted = [[shlex.quote(part) for part in entry] for entry in mounts]
    lines = [f"owners={shlex.quote(_PROGRAM.read_text(encoding='utf-8'))}", _BEGIN]
    lines += [f"settle {where} {what}" for where, what, _ in quoted]
    units = " ".join(unit for _, _, unit in quoted)
    lines += ["systemctl daemon-reload", f"systemctl enable --quiet {units}", f"systemctl start {units}"]
    yield script("\n".join(lines))
