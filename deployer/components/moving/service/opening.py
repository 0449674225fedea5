"""This machine opens: the old side, for which all is put back, or the new one, which is live. Only this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import mail
import postgres
import serving
import systemd
from ground import Failure
from state import CLOSED, FENCED, FORWARDING, sync_folder, unmark

GUARDED = f"""\
# Written by deploy (component backups): serves only while the guard says that this deployment is the live one.
[Unit]
Requires={systemd.GUARD}
After={systemd.GUARD}
"""
_ALLOWED, _REFUSED = Path("/run/deploy-guard/allowed"), Path("/run/deploy-guard/refused")


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
    wrong += systemd.start(
        [*serving.units(config), *([config["proxy_unit"]] if config["proxy_unit"] else [])], 180
    )
    if config["proxy_unit"]:
        parts = [str(name).rpartition(":") for name in config["hold_upstreams"]]
        serving.listening([(host, int(port)) for host, _, port in parts], 30)
        if why := serving.proxy("off"):
            wrong.append(f"the proxy's switch ({why})")
    start_late(config)
    return wrong


def end_quiet(config: dict[str, Any]) -> None:
    serving.QUIET.unlink(missing_ok=True)
    found = [serving.RUNTIME / f"{name}.d" / "deploy-quiet.conf" for name in config["sms_first"]]
    there = [path for path in found if path.exists()]
    for path in there:
        path.unlink(missing_ok=True)
    if there:
        systemd.reload()


def start_late(config: dict[str, Any], but: tuple[str, ...] = ()) -> None:
    """Timers and the like, without `but`: what does not start now is told by the alarm."""
    timers = [name for name in config["timers"] if name not in but]
    systemd.start([*timers, *([serving.WATCH[0]] if systemd.exists(serving.WATCH[0]) else [])], 60)


def open_new(config: dict[str, Any]) -> None:
    """This machine is of the live side now: everything but the app is being started, the proxy early.

    Nothing is waited for but the guard; the app's units wait for what they come after, systemd sees to that.
    """
    # Of an earlier move, in which this was the old side: its ports are the app's again.
    unmark(FORWARDING)
    systemd.stop(["deploy-moving-forward.service"], 5)
    end_quiet(config)
    mail.structure(config)
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
    app = serving.units(config, "app")
    proxy = [config["proxy_unit"]] if config["proxy_unit"] else []
    others = [*[name for name in serving.units(config) if name not in app], *proxy]
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
    return systemd.start(
        [*serving.units(config), *([config["proxy_unit"]] if config["proxy_unit"] else [])], 120
    )
