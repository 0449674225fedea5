"""Make or renew .venv from a lock file; the launchers run it when .venv is missing or the lock has changed.

Standard library only. Safe to kill at any moment and to run twice at once:
- one at a time holds .venv/.lock; pip inherits it, so a pip whose parent was killed still keeps others out;
- `.venv/.unfinished` stands from the first change to the last, and whoever finds it starts from nothing;
- the copy of the lock file, which the launchers compare, is written last.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UNFINISHED = VENV / ".unfinished"
RUNTIME, DEV = "requirements.lock", "requirements-dev.lock"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(what: str, why: str, following: str) -> None:
    say(f"{what}: {why}\nnext: {following}")
    sys.exit(1)


def need_venv_module() -> None:
    """Debian keeps a part of the venv module in a package of its own."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401

        return
    except ImportError:
        pass
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if shutil.which("apt-get") is None:
        fail(
            "making .venv",
            f"the modules venv and ensurepip of {sys.executable} are missing",
            "install them with the system's package manager (often python3-venv), then run this again",
        )
    if os.geteuid() != 0:
        fail(
            "making .venv",
            f"the package {package} is missing",
            f"sudo apt-get install {package}, then run this again",
        )
    say(f"Installing the system package {package}, which making a virtual environment needs.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package]
    if run(install, environment)[0] != 0:
        # A fresh machine has no list of packages yet.
        run(["apt-get", "update", "--quiet"], environment)
        code, output = run(install, environment)
        if code != 0:
            say(output)
            fail("making .venv", f"apt-get could not install {package} (above)", f"apt-get install {package}")


def run(command: Sequence[str], environment: dict[str, str] | None = None, keep: int = -1) -> tuple[int, str]:
    """Run a command. Returns exit code and the end of its output. keep: a descriptor that it inherits."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=[keep] if keep >= 0 else [],
    )
    return done.returncode, "\n".join(done.stdout.decode(errors="replace").splitlines()[-40:])


def usable() -> bool:
    """The environment is whole, and the Python that it was made with is still there."""
    if UNFINISHED.exists() or not PYTHON.exists():
        return False
    return run([str(PYTHON), "-I", "-c", "import pip"])[0] == 0


def start_anew(held: int) -> None:
    need_venv_module()
    for path in VENV.iterdir():
        if path.name in (".lock", ".unfinished"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    code, output = run([sys.executable, "-I", "-m", "venv", str(VENV)], keep=held)
    if code != 0:
        say(output)
        fail("making .venv", f"{sys.executable} -m venv failed (above)", "mend that, then run this again")


def install(lock: str, held: int) -> None:
    content = (ROOT / lock).read_bytes()
    runtime = (ROOT / RUNTIME).read_bytes()
    fresh = not usable()
    count = sum(b"==" in line for line in content.splitlines())
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    say(
        f"Setting up {VENV} ({version}, {count} packages): once, about a minute."
        if fresh
        else f"{lock} has changed: renewing {VENV} ({count} packages)."
    )
    began = time.monotonic()
    UNFINISHED.touch()
    for name in (RUNTIME, DEV):
        (VENV / name).unlink(missing_ok=True)
    if fresh:
        start_anew(held)
    pip = [str(PYTHON), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    # The lock is complete, so nothing has to be resolved.
    code, output = run([*pip, "--no-deps", "--require-hashes", "-r", str(ROOT / lock)], keep=held)
    if code != 0:
        say(output)
        fail(
            f"installing the packages of {lock}",
            f"pip ended with {code} (above)",
            "see that pip reaches a package index (its own settings are used), then run this again",
        )
    # The checkout itself, by a relative path, so that the folder may be moved.
    site = next((VENV / "lib").glob("python3.*/site-packages"))
    (site / "deploy-checkout.pth").write_text("../../../..\n")
    write(RUNTIME, runtime)
    if lock == DEV:  # holds all of the other at the same versions
        write(DEV, content)
    UNFINISHED.unlink()
    say(f"Done in {time.monotonic() - began:.0f} s.")


def write(name: str, content: bytes) -> None:
    temporary = VENV / f".{name}.new"
    temporary.write_bytes(content)
    temporary.replace(VENV / name)


def installed(lock: str) -> bool:
    stamp = VENV / lock
    return usable() and stamp.exists() and stamp.read_bytes() == (ROOT / lock).read_bytes()


def main() -> None:
    lock = sys.argv[1]
    try:
        VENV.mkdir(exist_ok=True)
        held = os.open(VENV / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        fail(
            f"making {VENV}",
            str(error),
            "run it as the owner of the checkout, or clone it where you can write",
        )
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("Another run is setting up .venv; waiting for it.")
        fcntl.flock(held, fcntl.LOCK_EX)
    if not installed(lock):
        install(lock, held)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("\nStopped. The next run starts setting up .venv anew.")
        sys.exit(130)
