"""What serves on this machine: quiet, held, closed, forwarding, open. Only this machine; fence.py says when."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import postgres
import systemd
from ground import Failure
from state import CLOSED, FENCED, FORWARDING, RUN, mark, sync_folder, unmark

HOLD = Path("/usr/local/lib/deploy/proxy/hold")
# Seconds that requests under way get to end, while some do; long polls would never. People wait meanwhile.
DRAIN = 3
# The carriers' programs stay down while their gateway, which wants them up, goes on.
QUIET = RUN / "quiet"
_RUNTIME = Path("/run/systemd/system")
# It would stop everything when it sees the claim that the other side is about to make.
WATCH = ["deploy-guard-watch.timer", "deploy-guard-watch.service"]
GUARDED = f"""\
# Written by deploy (component backups): serves only while the guard says that this deployment is the live one.
[Unit]
Requires={systemd.GUARD}
After={systemd.GUARD}
"""
_ALLOWED, _REFUSED = Path("/run/deploy-guard/allowed"), Path("/run/deploy-guard/refused")


def units(config: dict[str, Any], component: str = "") -> list[str]:
    """In the order of starting; without the database and the proxy, which have rules of their own."""
    own = (config["database_unit"], config["proxy_unit"])
    return [
        name
        for entry in config["units"]
        if component in ("", entry["component"])
        for name in entry["units"]
        if name not in own
    ]


def _proxy(*words: str, bound: float = 20) -> str:
    """ "" when the proxy's switch did it, or there is none; else its words."""
    if not HOLD.exists():
        return ""
    try:
        done = subprocess.run([HOLD, *words], capture_output=True, text=True, timeout=bound)
    except subprocess.TimeoutExpired:
        return f"no end after {bound:.0f} s"
    return "" if done.returncode == 0 else done.stderr.strip() or f"it ended with {done.returncode}"


# --- towards the pause ---


def quiet(config: dict[str, Any]) -> None:
    """What may be down before anything is held: the carriers' programs, timers, backups, the guard's watch."""
    first = list(config["sms_first"])
    for name in first:
        folder = _RUNTIME / f"{name}.d"
        folder.mkdir(parents=True, exist_ok=True)
        text = f"# Written by deploy (component moving).\n[Unit]\nConditionPathExists=!{QUIET}\n"
        (folder / "deploy-quiet.conf").write_text(text, encoding="utf-8")
    if first:
        systemd.reload()
        RUN.mkdir(mode=0o700, exist_ok=True)
        QUIET.touch()
    systemd.stop([*first, *config["timers"], *WATCH])


def hold(config: dict[str, Any], seconds: float) -> None:
    """New requests wait at the proxy; by itself it opens after so many seconds."""
    if config["proxy_unit"] and (why := _proxy("on", f"{seconds:.0f}")):
        raise Failure("holding requests", f"the proxy's switch says: {why}", "see `systemctl status caddy`")


def drain(config: dict[str, Any], bound: float) -> None:
    """Requests under way end; what they need runs still."""
    if config["proxy_unit"] and config["hold_upstreams"]:
        _proxy("wait", str(min(DRAIN, max(int(bound), 1))), *config["hold_upstreams"], bound=DRAIN + 10)


def close(config: dict[str, Any], bound: float) -> None:
    """App, gateway, mail and cache end, all at once, and save what they have. From here on nothing starts."""
    mark(CLOSED)
    systemd.stop(units(config)[::-1], min(bound, systemd.STOP))


def stop_database(config: dict[str, Any], bound: float) -> str:
    """It can start as a standby only, and has ended cleanly: where. Raises Failure."""
    mark(FENCED)
    unit = str(config["database_unit"])
    what = "stopping the database"
    try:
        systemd.call("stop", "--", unit, timeout=max(bound, 1))
    except subprocess.TimeoutExpired:
        # Never killed here: what is not ended cleanly is not handed over.
        raise Failure(what, f"it does not end within {bound:.0f} s", f"see `journalctl -u {unit}`") from None
    found = postgres.control()
    if found["state"] != "shut down" or systemd.running([unit]):
        raise Failure(
            what, f"it is not shut down cleanly but {found['state']}", f"see `journalctl -u {unit}`"
        )
    return str(found["checkpoint"])


def must_be_shut(config: dict[str, Any]) -> None:
    """Looked at once more before the permit is given. Raises Failure."""
    what = "giving the permit to promote"
    missing = [str(path) for path in (CLOSED, FENCED) if not path.exists()]
    left = systemd.running([*units(config), str(config["database_unit"])])
    if missing or left:
        why = f"missing: {', '.join(missing)}" if missing else f"still runs: {', '.join(left)}"
        raise Failure(what, why, "somebody started it by hand: begin the switchover anew")


# --- after the permit ---


def let_go(config: dict[str, Any]) -> None:
    """The guard will say that another side is live. Proxy and database go on all the same: one forwards, one follows."""
    if config["forwards"]:
        # Early: it takes a while to connect. What is held stays held until `forward`.
        mark(FORWARDING)
        systemd.call("start", "--no-block", "deploy-moving-forward.service")
    gone = False
    for unit in (config["proxy_unit"], config["database_unit"]):
        path = systemd.SYSTEMD / f"{unit}.d" / "deploy-guard.conf"
        if unit and path.exists():
            path.unlink()
            gone = True
    if gone:
        systemd.reload()
    if config["proxy_unit"]:
        # After a boot the guard has kept it down.
        systemd.call("start", "--no-block", str(config["proxy_unit"]))
    systemd.start(WATCH[:1], 20)


def forward(config: dict[str, Any]) -> None:
    """The tunnel listens in place of what served; then the proxy lets go what it holds."""
    if config["forwards"]:
        mark(FORWARDING)
        systemd.must_start("forwarding to the new side", ["deploy-moving-forward.service"], 20)
        ports = [(str(one.get("listen") or "127.0.0.1"), int(one["port"])) for one in config["forwards"]]
        if left := listening(ports, 20):
            why = f"the tunnel does not listen on {', '.join(f'{host}:{port}' for host, port in left)}"
            raise Failure("forwarding to the new side", why, "see `journalctl -u deploy-moving-forward`")
    if config["proxy_unit"] and (why := _proxy("off")):
        raise Failure("letting go what is held", f"the proxy's switch says: {why}", f"run {HOLD} off")


def listening(ports: list[tuple[str, int]], bound: float) -> list[tuple[str, int]]:
    """Those of this machine's addresses that nobody answers on after so many seconds."""
    end = time.monotonic() + bound
    left = list(ports)
    while left:
        still = []
        for address in left:
            try:
                socket.create_connection(address, 1).close()
            except OSError:
                still.append(address)
        left = still
        if not left or time.monotonic() > end:
            break
        time.sleep(0.02)
    return left


# --- opening ---


def reopen(config: dict[str, Any]) -> list[str]:
    """Everything that served serves again. Returns what does not; each part is tried, whatever became of the others."""
    wrong: list[str] = []
    unmark(FORWARDING)
    systemd.call("stop", "deploy-moving-forward.service")
    if config["database_unit"]:
        unmark(FENCED)
        postgres.wait_for_none()
        # After a boot the guard asks the repositories first.
        wrong += systemd.start([config["database_unit"]], 180)
    unmark(CLOSED)
    end_quiet(config)
    wrong += systemd.start([*units(config), *([config["proxy_unit"]] if config["proxy_unit"] else [])], 180)
    if config["proxy_unit"]:
        parts = [str(name).rpartition(":") for name in config["hold_upstreams"]]
        listening([(host, int(port)) for host, _, port in parts], 30)
        if why := _proxy("off"):
            wrong.append(f"the proxy's switch ({why})")
    start_late(config)
    return wrong


def end_quiet(config: dict[str, Any]) -> None:
    QUIET.unlink(missing_ok=True)
    found = [_RUNTIME / f"{name}.d" / "deploy-quiet.conf" for name in config["sms_first"]]
    there = [path for path in found if path.exists()]
    for path in there:
        path.unlink(missing_ok=True)
    if there:
        systemd.reload()


def start_late(config: dict[str, Any], but: tuple[str, ...] = ()) -> None:
    """Timers and the like, without `but`: what does not start now is told by the alarm."""
    timers = [name for name in config["timers"] if name not in but]
    systemd.start([*timers, *([WATCH[0]] if systemd.exists(WATCH[0]) else [])], 60)


def open_new(config: dict[str, Any]) -> None:
    """This machine is of the live side now: everything but the app is being started, the proxy early.

    Nothing is waited for but the guard; the app's units wait for what they come after, systemd sees to that.
    """
    # Of an earlier move, in which this was the old side: its ports are the app's again.
    unmark(FORWARDING)
    systemd.stop(["deploy-moving-forward.service"], 5)
    end_quiet(config)
    unmark(CLOSED)
    if systemd.exists(systemd.GUARD):
        # The permit is the proof, and the claim is made: no vendor that is slow to answer is waited for.
        _ALLOWED.parent.mkdir(exist_ok=True)
        _ALLOWED.write_text("the permit to promote was given\n", encoding="utf-8")
        # Otherwise the guard starts all that is enabled, the app before its migrations too.
        _REFUSED.unlink(missing_ok=True)
        try:
            systemd.call("reset-failed", systemd.GUARD)
            done = systemd.call("restart", systemd.GUARD, timeout=130)
            if done.returncode:
                raise Failure(
                    "starting the guard", done.stderr.strip(), f"see `journalctl -u {systemd.GUARD}`"
                )
        finally:
            _ALLOWED.unlink(missing_ok=True)
    app = units(config, "app")
    proxy = [config["proxy_unit"]] if config["proxy_unit"] else []
    others = [*[name for name in units(config) if name not in app], *proxy]
    if others:
        systemd.call("reset-failed", "--", *others)
        systemd.call("start", "--no-block", "--", *others)


def start_app(config: dict[str, Any], bound: float = 1800) -> None:
    """Migrations that have not run, then its processes; returns when it answers."""
    if not config["app"]:
        return
    switch = ["/usr/local/lib/deploy/app-switch", str(config["app"])]
    what = f"starting {config['app']}"
    try:
        done = subprocess.run(switch, capture_output=True, text=True, timeout=bound, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Failure(
            what, f"no end after {bound:.0f} s", f"see `journalctl -u deploy-switch-{config['app']}`"
        ) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        why = said[0] if said else f"app-switch ended with {done.returncode}"
        raise Failure(what, why, f"see `journalctl -u deploy-switch-{config['app']}`")


def backed_up() -> None:
    """The new generation's archives are made before a timer asks for a backup; where that fails, the alarm tells."""
    program = Path("/usr/local/lib/deploy/backups/database.py")
    if program.exists():
        try:
            subprocess.run(["python3", program, "prepare"], capture_output=True, timeout=150, check=False)
        except subprocess.TimeoutExpired:
            return


def settle(config: dict[str, Any]) -> list[str]:
    """Once requests are served: the guard holds proxy and database again, and the timers run. Returns what does not."""
    if systemd.exists(systemd.GUARD):
        for unit in (config["proxy_unit"], config["database_unit"]):
            if unit:
                path = systemd.SYSTEMD / f"{unit}.d" / "deploy-guard.conf"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(GUARDED, encoding="utf-8")
                os.chmod(path, 0o644)
                sync_folder(path.parent)
        systemd.reload()
    if config["database_unit"]:
        backed_up()
    # Its first full backups run; `deploy up`, which ends a move, starts the timer for those to come.
    start_late(config, but=("deploy-backups-database.timer",))
    return systemd.start([*units(config), *([config["proxy_unit"]] if config["proxy_unit"] else [])], 120)
