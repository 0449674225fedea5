"""Data of the components on the machine's data volume: each folder is a bind mount, which systemd makes.

The first boot mounts the volume itself (providers/cloudinit.py); ops/mounts.py starts these before any package is
installed, so that what packages write lies there from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from deployer.core.component import ComponentSpec, Context, File, Mount, Step, Unit

VOLUME = "/srv/data"
_UNITS = "/etc/systemd/system"


def escaped(path: str) -> str:
    """As systemd-escape(1) --path: "/" to "-", other signs to \\xNN."""
    made = ""
    for sign in path.strip("/"):
        plain = sign.isascii() and (sign.isalnum() or sign in ":_.")
        made += "-" if sign == "/" else sign if plain else "".join(f"\\x{byte:02x}" for byte in sign.encode())
    return made


def folders(specs: Iterable[ComponentSpec]) -> list[str]:
    """The folders that hold data, without those that lie in another of them."""
    wanted = sorted({data.folder for spec in specs for data in spec.data})
    return [path for path in wanted if not any(_within(path, other) for other in wanted)]


def _within(path: str, other: str) -> bool:
    return path != other and PurePosixPath(path).is_relative_to(other)


def mounts(ctx: Context, specs: Sequence[ComponentSpec]) -> tuple[Mount, ...]:
    """None on a machine without a data volume."""
    if not ctx.machine.volume:
        return ()
    return tuple(Mount(path, f"{VOLUME}{path}", f"{escaped(path)}.mount") for path in folders(specs))


def files(found: Sequence[Mount], specs: Sequence[ComponentSpec]) -> Iterator[File]:
    """The units of the mounts, and for every service that has data there, that it needs them."""
    for mount in found:
        values = {"where": mount.where, "what": mount.what, "volume": VOLUME}
        path = f"{_UNITS}/{mount.unit}"
        yield File(path, "base/data.mount.j2", values, early=True, on_change="none")
    for spec in specs:
        own = [mount.where for mount in found if any(_covers(mount, data.folder) for data in spec.data)]
        for unit in spec.units:
            if own and unit.wanted and unit.name.endswith(".service"):
                drop_in = f"{_UNITS}/{unit.name}.d/deploy-data.conf"
                yield File(drop_in, "base/data.conf.j2", {"folders": own}, on_change="none")


def _covers(mount: Mount, folder: str) -> bool:
    return PurePosixPath(folder).is_relative_to(mount.where)


def units(found: Sequence[Mount]) -> tuple[Unit, ...]:
    """Started by ops/mounts.py alone: a restart would take the folders away from services that run."""
    return tuple(Unit(mount.unit, managed_by_step=True) for mount in found)


# System users and groups (100 to 999: Debian's), whose numbers follow from the order of installation.
_LISTED = "getent {table} | awk -F: '$3 >= 100 && $3 < 1000' | sort"
_OWNERS = f"{VOLUME}/.deploy"


# A volume that was made larger at its vendor. A last group of blocks that is too small stays unused (resize2fs(8)),
# so some megabytes are no difference. What is no disk (a folder, in tests) or not ext4 is left alone.
SIZE_CHECK = f"""
device=$(findmnt -no SOURCE {VOLUME}) && [ -b "$device" ] || exit 0
held=$(dumpe2fs -h "$device" 2>/dev/null |
    awk -F: '/^Block count/ {{ n = $2 }} /^Block size/ {{ s = $2 }} END {{ printf "%.0f", n * s }}')
[ "$held" -gt 0 ] || exit 0
whole=$(blockdev --getsize64 "$device")
[ $((whole - held)) -lt $((128 << 20)) ] ||
    {{ echo "the file system has $((held >> 30)) GiB of $((whole >> 30))"; exit 1; }}
"""


def steps(found: Sequence[Mount]) -> tuple[Step, ...]:
    """Who owns the files on the volume is written there: on the next machine that has it, they get their numbers
    again, before packages give them others (engine/remote/owners.py). And its file system fills it."""
    if not found:
        return ()
    same = [f"cmp -s <({_LISTED.format(table=table)}) {_OWNERS}/{table}" for table in ("passwd", "group")]
    return (
        Step("owners of data", "owners_noted", check=" && ".join(same), stage="configure"),
        Step("size of the data volume", "volume_filled", check=SIZE_CHECK, stage="configure"),
    )
