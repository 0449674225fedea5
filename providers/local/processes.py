"""Starting, finding and stopping the process of a machine.

The processes themselves are the truth: a machine runs when a systemd-nspawn has its disk. No process id is
kept, so a reused one is never mistaken for a machine, and one started by a killed `up` is found.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from deployer.core.errors import DeployError
from providers.local.host import run
from providers.local.settings import Settings

# systemd-nspawn ends with this when the machine wants to start anew (systemd-nspawn(1), "Exit status").
REBOOT = 133
# Seconds that an orderly shutdown may take (a service may use up to 10 for it).
STOP_TIMEOUT = 20
# A console is quiet after its boot; the bound is for a machine that complains for weeks.
CONSOLE_LIMIT = 1 << 20

# Where no systemd runs here, this shell stands for its unit: a control group and restarts.
SUPERVISOR = f"""\
umask 022
if [ -n "$1" ]; then mkdir -p "$1" && echo $$ > "$1/cgroup.procs"; fi
shift
until "$@"; do [ $? -eq {REBOOT} ] || exit; done
"""


def nspawn(name: str, folder: Path, settings: Settings, nesting: bool) -> list[str]:
    """The command that boots the machine whose folder this is."""
    command = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        f"--directory={folder / 'root'}",
        # It names this computer's end of the wire; another instance may have a machine of that name.
        f"--machine={name}.{settings.bridge}",
        f"--hostname={name}",
        f"--network-bridge={settings.bridge}",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        f"--bind={settings.shared_dir / 'cache' / 'uv'}:/var/cache/deploy/uv",
    ]
    if nesting:
        # What containers inside need: devices, capabilities, and a folder that is no overlay.
        command += [
            "--bind=/dev/fuse",
            "--bind=/dev/net/tun",
            "--capability=all",
            "--system-call-filter=add_key keyctl bpf",
            f"--bind={folder / 'containers'}:/var/lib/containers",
        ]
    return [*command, "--boot", "--console=pipe"]


def start(name: str, folder: Path, settings: Settings, nesting: bool) -> None:
    """Boot it in a session of its own, so that it outlives us and our terminal. Raises DeployError."""
    command = nspawn(name, folder, settings, nesting)
    unified = "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"
    console = folder / "console.log"
    if has_systemd():
        run("clearing a former unit", ["systemctl", "reset-failed", unit(name, settings)], check=False)
        properties = [
            "Delegate=yes",
            "KillMode=mixed",
            f"TimeoutStopSec={STOP_TIMEOUT}",
            f"SuccessExitStatus={REBOOT}",
            f"RestartForceExitStatus={REBOOT}",
            f"StandardOutput=truncate:{console}",
            f"StandardError=append:{console}",
        ]
        run(
            "starting the machine",
            ["systemd-run", "--quiet", "--collect", f"--unit={unit(name, settings)}", f"--setenv={unified}=1"]
            + [f"--property={item}" for item in properties]
            + command,
            machine=name,
        )
    else:
        group = control_group(name, settings)
        # A systemd-nspawn that was killed may have left its machine's processes behind, and with them its wire.
        _remove_group(group)
        with console.open("wb") as output:
            run(
                "starting the machine",
                ["setsid", "--fork", "sh", "-c", SUPERVISOR, "deploy-local", str(group or ""), *command],
                machine=name,
                env={unified: "1"},
                output=output,
            )
    _wait_for_boot(name, folder, console)


def _wait_for_boot(name: str, folder: Path, console: Path, timeout: float = 15) -> None:
    """Wait until the machine's own systemd runs, so that a machine that cannot start is known at once."""
    begin = time.monotonic()
    while time.monotonic() < begin + timeout:
        if leader(folder):
            return
        # The first moments belong to the shell and to systemd-run.
        if not find(folder) and time.monotonic() > begin + 2:
            break
        time.sleep(0.02)
    raise DeployError(
        "starting the machine",
        "its systemd did not come up",
        f"read {console}; `deploy up` tries again",
        machine=name,
        detail=console_tail(console),
    )


def console_tail(console: Path, lines: int = 10) -> str:
    if not console.exists():
        return ""
    return "\n".join(console.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def trim_console(folder: Path) -> None:
    """Empty a console log that has grown too large; its writer appends at the end, wherever that is."""
    console = folder / "console.log"
    if console.exists() and console.stat().st_size > CONSOLE_LIMIT:
        os.truncate(console, 0)


def find(folder: Path) -> dict[int, str]:
    """Process id -> name of every process of this computer that was started to run the machine's disk."""
    wanted = f"--directory={folder / 'root'}".encode()
    # Processes inside machines are visible here too, and may run machines of their own from the same path.
    here = os.readlink("/proc/self/ns/pid")
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                process = Path(entry.path)
                argv = (process / "cmdline").read_bytes().split(b"\0")
                if wanted in argv and os.readlink(process / "ns/pid") == here:
                    found[int(entry.name)] = (process / "comm").read_text(encoding="utf-8").strip()
            except OSError:
                # It ended meanwhile.
                continue
    return found


def runs(folder: Path) -> bool:
    return bool(find(folder))


def leader(folder: Path) -> int:
    """Process id, here, of the machine's own systemd; 0 when it does not run."""
    for process, name in find(folder).items():
        if name == "systemd-nspawn":
            for child in _read(process, f"task/{process}/children").split():
                if _read(int(child), "comm").strip() == "systemd":
                    return int(child)
    return 0


def _read(process: int, name: str) -> str:
    """A file of /proc; "" when the process has ended, be it between opening the file and reading it (ESRCH)."""
    try:
        return Path(f"/proc/{process}/{name}").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def stop(name: str, folder: Path, settings: Settings) -> None:
    """Shut the machine down in an orderly way, then by force. One that does not run is no error."""
    if has_systemd():
        run(
            "stopping the machine",
            ["systemctl", "stop", unit(name, settings)],
            timeout=90,
            check=False,
            machine=name,
        )
    else:
        for process, program in find(folder).items():
            # The shell would start it again. systemd-nspawn hands SIGTERM on as an orderly shutdown.
            _send(process, signal.SIGTERM if program == "systemd-nspawn" else signal.SIGKILL)
    if not _gone(folder, STOP_TIMEOUT):
        for process in (leader(folder), *find(folder)):
            _send(process, signal.SIGKILL)
        if not _gone(folder, 10):
            raise DeployError(
                "stopping the machine",
                f"its processes {sorted(find(folder))} do not end",
                "restart this computer",
                machine=name,
            )
    _remove_group(control_group(name, settings))


def _send(process: int, number: signal.Signals) -> None:
    if process > 0:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            return


def _gone(folder: Path, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while runs(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def has_systemd() -> bool:
    """Whether this computer's own PID 1 is systemd (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def unit(name: str, settings: Settings) -> str:
    return f"deploy-local-{settings.bridge}-{name}.service"


def control_group(name: str, settings: Settings) -> Path | None:
    """A control group of the machine's own, needed where no systemd gives it one.

    Without it all machines would share one, and stopping a service would kill its namesakes in the others.
    """
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 "):
            return Path(fields.split(" ")[4]) / "deploy-local" / f"{settings.bridge}-{name}"
    return None


def _remove_group(group: Path | None, timeout: float = 5) -> None:
    """End what is left in the machine's groups, and remove them, the innermost first."""
    if has_systemd() or group is None or not group.is_dir():
        return
    (group / "cgroup.kill").write_text("1", encoding="ascii")
    deadline = time.monotonic() + timeout
    while group.is_dir() and time.monotonic() < deadline:
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            _rmdir(folder)
        _rmdir(group)
        time.sleep(0.02)
    # Shared with other machines: goes when the last one has gone.
    _rmdir(group.parent)


def _rmdir(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        # A process in it has not quite ended, or it is another machine's; an empty group costs nothing.
        return
