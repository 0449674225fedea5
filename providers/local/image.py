"""The base image: a Debian 13 that every local machine reads and none writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from deployer.core.errors import DeployError
from providers.local import mirror
from providers.local.host import lock, remove_tree, run
from providers.local.settings import Settings

# What a machine from a vendor has before we come, and no more.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "python3",
    "sudo",
    "iproute2",
    "ca-certificates",
    "udev",
    "curl",
)
APT = """\
// The packages go into a cache on the computer that runs this machine.
APT::Keep-Downloaded-Packages "true";
Binary::apt::APT::Keep-Downloaded-Packages "true";
"""
# Raise it when the steps of `build` change, so that older images are not used.
VERSION = 2
# Name of a folder with a build that did not end; what it had mounted may still be there.
UNFINISHED = "building-"
# A build takes about 40 s; slow lines get more.
BUILD_TIMEOUT = 1800


@dataclass(frozen=True)
class Recipe:
    """Everything that the image depends on."""

    # None: the one that mmdebstrap knows.
    mirror: mirror.Mirror | None
    proxies: tuple[str, ...]
    certificates: Mapping[str, str]
    packages: tuple[str, ...] = PACKAGES
    version: int = VERSION

    @cached_property
    def name(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"debian-13-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def recipe() -> Recipe:
    """For an image that gets its packages like this computer."""
    return Recipe(mirror.of_this_computer(), mirror.proxies(), mirror.certificates())


def path(settings: Settings, wanted: Recipe) -> Path:
    return settings.shared_dir / "base" / wanted.name


def build(settings: Settings, wanted: Recipe, in_use: frozenset[Path] = frozenset()) -> Path:
    """Build the image when it is missing, and remove those that are neither wanted nor in use.

    A killed build leaves a folder beside it, which the next one removes. Raises DeployError.
    """
    target = path(settings, wanted)
    with lock(target.parent / "lock", "building the base image", timeout=BUILD_TIMEOUT) as held:
        for other in target.parent.iterdir():
            unfinished = other.name.startswith(UNFINISHED)
            if other.is_dir() and other != target and (unfinished or not _used(other, in_use)):
                remove_tree(other)
        if target.is_dir():
            return target
        temporary = target.with_name(UNFINISHED + wanted.name)
        # The builder holds the lock too: where only we are killed, the next build waits for its end.
        try:
            run("building the base image", builder(wanted, temporary), timeout=BUILD_TIMEOUT, pass_fds=[held])
        except DeployError as error:
            error.next = (
                "see that this computer reaches the mirror in the lines above and that its debian-archive-keyring "
                f"knows Debian 13 ({mirror.SUITE}); then run again"
            )
            raise
        _finish(temporary, wanted)
        run("writing the base image to disk", ["sync", "--file-system", str(temporary)], timeout=300)
        temporary.rename(target)
    return target


def builder(wanted: Recipe, target: Path) -> list[str]:
    """The command that makes the image."""
    sources = wanted.mirror
    lines = (
        (
            f"deb {sources.main} {mirror.SUITE} main",
            f"deb {sources.main} {mirror.SUITE}-updates main",
            f"deb {sources.security} {mirror.SUITE}-security main",
        )
        if sources
        # Then it takes Debian's own archives, with updates and security.
        else ()
    )
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(wanted.packages)}",
        *(f"--aptopt={line}" for line in wanted.proxies),
        mirror.SUITE,
        str(target),
        *lines,
    ]


def _finish(root: Path, wanted: Recipe) -> None:
    """What distinguishes a machine must not be in the image; what it needs of this computer must be."""
    for pattern in ("etc/ssh/ssh_host_*", "etc/apt/apt.conf.d/99mmdebstrap"):
        for file in root.glob(pattern):
            file.unlink()
    (root / "etc/hostname").unlink(missing_ok=True)
    # Empty, not missing: systemd then makes one without taking this for a "first boot" that asks questions.
    (root / "etc/machine-id").write_text("", encoding="ascii")
    if wanted.mirror:
        # Else the list that mmdebstrap wrote stays.
        (root / "etc/apt/sources.list").unlink(missing_ok=True)
        listed = root / "etc/apt/sources.list.d/debian.sources"
        listed.write_text(wanted.mirror.sources(), encoding="utf-8")
    lines = [APT, *(f"{line}\n" for line in wanted.proxies)]
    (root / "etc/apt/apt.conf.d/90deploy-local").write_text("".join(lines), encoding="utf-8")
    for name, pem in wanted.certificates.items():
        certificate = root / "usr/local/share/ca-certificates" / name
        certificate.parent.mkdir(parents=True, exist_ok=True)
        certificate.write_text(pem, encoding="utf-8")
    run("adding this computer's certificates to the image", ["chroot", str(root), "update-ca-certificates"])
    run(
        "enabling the network of the image",
        ["systemctl", f"--root={root}", "enable", "systemd-networkd.service", "ssh.service"],
    )
    # Nobody logs in on its console.
    run("masking the console", ["systemctl", f"--root={root}", "mask", "console-getty.service"])
    if not (root / "usr/sbin/sshd").exists():
        raise DeployError("building the base image", "sshd is missing in it", f"remove {root} and run again")


def _used(folder: Path, in_use: frozenset[Path]) -> bool:
    """Whether a machine of ours is made of it, or one of another instance has it mounted."""
    return folder in in_use or str(folder) in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
