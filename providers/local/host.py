"""The operator's computer: running its programs, locks, mounts, and what must be installed on it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from deployer.core.errors import DeployError

# Debian package -> a file that shows that it is here (a program's name, or a path).
NEEDED = {
    "systemd-container": "systemd-nspawn",
    "mmdebstrap": "mmdebstrap",
    "nftables": "nft",
    "iproute2": "ip",
    "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
}
# An operator's PATH often lacks the administrator's programs.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])


def require_root() -> None:
    """Raises DeployError where local machines cannot be had."""
    if not sys.platform.startswith("linux"):
        raise DeployError(
            "using local machines",
            "they need Linux (systemd-nspawn)",
            "run this on a Debian machine, or choose another provider: --provider NAME",
        )
    if os.geteuid() != 0:
        raise DeployError(
            "using local machines",
            "mounts, bridges and systemd-nspawn need root",
            "run it as root: sudo bin/deploy ...",
        )


def missing_packages() -> list[str]:
    """Debian packages that are needed and not here."""
    return [
        package
        for package, sign in NEEDED.items()
        if not (os.path.exists(sign) if sign.startswith("/") else shutil.which(sign, path=SEARCH))
    ]


def install(packages: Sequence[str]) -> None:
    """apt-get install, without questions. Raises DeployError."""
    if not shutil.which("apt-get", path=SEARCH):
        raise DeployError(
            "installing what local machines need",
            "this computer has no apt-get",
            f"install these yourself, then run again: {', '.join(packages)}",
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    # Somebody else's apt may hold the lock for a while (unattended upgrades).
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    # One unreachable archive of many is no reason to stop.
    run("updating the package lists", ["apt-get", "-q", "update", *wait], timeout=300, env=quiet, check=False)
    run(
        f"installing {', '.join(packages)}",
        ["apt-get", "-q", "-y", "--no-install-recommends", *wait, "install", *packages],
        timeout=900,
        env=quiet,
    )


def run(
    what: str,
    argv: Sequence[str],
    *,
    timeout: float = 60,
    stdin: str = "",
    check: bool = True,
    machine: str | None = None,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> str:
    """Run a program, bounded by `timeout` seconds, and give its standard output.

    what:   clause for the error ("mounting the disk")
    output: where its output goes instead; then nothing is given back
    Raises DeployError when it fails (with check) or takes too long.
    """
    environment = {**os.environ, "PATH": SEARCH, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(
            argv,
            input=stdin.encode(),
            stdout=output or subprocess.PIPE,
            stderr=output or subprocess.PIPE,
            timeout=timeout,
            env=environment,
            pass_fds=pass_fds,
            check=False,
        )
    except FileNotFoundError as error:
        raise DeployError(
            what, f"{argv[0]} is not installed", "run `deploy up` again", machine=machine
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeployError(what, f"{argv[0]} took more than {timeout:.0f} s", machine=machine) from error
    if check and done.returncode:
        lines = (done.stderr or done.stdout or b"").decode(errors="replace").strip().splitlines()
        raise DeployError(
            what,
            f"{' '.join(argv[:3])} ended with {done.returncode}",
            machine=machine,
            detail="\n".join(lines[-15:]),
        )
    return (done.stdout or b"").decode(errors="replace")


@contextmanager
def lock(path: Path, what: str, timeout: float = 60) -> Iterator[int]:
    """Hold an exclusive flock on `path`; gives its descriptor. It falls with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DeployError(
                        what, f"another process has held {path} for {timeout:.0f} s", "wait for it, or end it"
                    ) from None
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def mounts_below(path: Path) -> list[str]:
    """Mount points at or below `path`, the deepest first."""
    base = str(path)
    points = [
        # Octal escapes stand for blanks, tabs, newlines and backslashes (proc_pid_mountinfo(5)).
        line.split(" ")[4].encode().decode("unicode_escape")
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    ]
    return sorted((p for p in points if p == base or p.startswith(base + "/")), key=len, reverse=True)


def unmount_below(path: Path, machine: str | None = None) -> None:
    """Unmount everything at or below `path`; detach what stays busy for 5 s."""
    for point in mounts_below(path):
        for _ in range(25):
            run(f"unmounting {point}", ["umount", point], check=False)
            if point not in mounts_below(path):
                break
            time.sleep(0.2)
        else:
            run(f"detaching {point}, which stays busy", ["umount", "--lazy", point], machine=machine)


def remove_tree(path: Path, machine: str | None = None) -> None:
    """Remove a folder that may be missing. Never goes into another file system."""
    if path.exists():
        unmount_below(path, machine)
        run(
            f"removing {path}",
            ["rm", "-rf", "--one-file-system", "--", str(path)],
            timeout=300,
            machine=machine,
        )


def write_atomically(path: Path, content: str, mode: int = 0o600) -> None:
    """Write a file so that a reader, or the next run after a power cut, finds the old or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
