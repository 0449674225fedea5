"""What serves on this machine becomes quiet, held, closed, and forwards. Only this machine; fence.py says when.

The way back, and a new side that opens: opening.py.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import postgres
import systemd
from ground import Failure
from state import CLOSED, FENCED, FORWARDING, RUN, mark

HOLD = Path("/usr/local/lib/deploy/proxy/hold")
# There while it holds.
HELD = Path("/run/caddy/held.sock")
# Seconds that requests under way get to end, while some do; long polls would never. People wait meanwhile.
DRAIN = 3
# The carriers' programs stay down while their gateway, which wants them up, goes on.
QUIET = RUN / "quiet"
RUNTIME = Path("/run/systemd/system")
# It would stop everything when it sees the claim that the other side is about to make.
WATCH = ["deploy-guard-watch.timer", "deploy-guard-watch.service"]


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


def proxy(*words: str, bound: float = 20) -> str:
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
        folder = RUNTIME / f"{name}.d"
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
    if config["proxy_unit"] and (why := proxy("on", f"{seconds:.0f}")):
        raise Failure("holding requests", f"the proxy's switch says: {why}", "see `systemctl status caddy`")


def drain(config: dict[str, Any], bound: float) -> None:
    """Requests under way end; what they need runs still."""
    if config["proxy_unit"] and config["hold_upstreams"]:
        proxy("wait", str(min(DRAIN, max(int(bound), 1))), *config["hold_upstreams"], bound=DRAIN + 10)


def hold_too(config: dict[str, Any], seconds: float) -> None:
    """The new side of a move back: what still comes here by former names goes on to the other side's app, past its proxy.

    It is held here, for the app that starts here: some of its processes answer before all of them do.
    """
    if FORWARDING.exists() and config["proxy_unit"] and systemd.active(str(config["proxy_unit"])):
        hold(config, seconds)
        drain(config, DRAIN)


def let_in(config: dict[str, Any]) -> None:
    """What was held by `hold_too` goes on."""
    if config["proxy_unit"] and HELD.exists() and (why := proxy("off")):
        raise Failure("letting go what is held", f"the proxy's switch says: {why}", f"run {HOLD} off")


def close(config: dict[str, Any], bound: float) -> None:
    """App, gateway, mail and cache end, all at once, and save what they have. From here on nothing starts."""
    mark(CLOSED)
    systemd.stop(units(config)[::-1], min(bound, systemd.STOP))


def begin_to_stop_database(config: dict[str, Any]) -> str:
    """It ends, and then starts as a standby only. Its unit."""
    mark(FENCED)
    unit = str(config["database_unit"])
    systemd.call("stop", "--no-block", "--", unit, timeout=20)
    return unit


def stop_database(config: dict[str, Any], bound: float) -> str:
    """It can start as a standby only, and writes no more: where its log ends. Raises Failure.

    Its last checkpoint ends the log. Only the archiver goes on, with the last segment, and a repository that does not
    answer keeps that up for half a minute: nobody waits for it.
    """
    unit = begin_to_stop_database(config)
    end = time.monotonic() + max(bound, 1)
    while (found := postgres.control())["state"] != "shut down":
        ended = not systemd.running([unit])
        if ended and (found := postgres.control())["state"] != "shut down":
            why = f"it is not shut down cleanly but {found['state']}"
        elif time.monotonic() > end:
            # Never killed here: what is not ended cleanly is not handed over.
            why = f"it does not end within {bound:.0f} s"
        else:
            time.sleep(0.03)
            continue
        raise Failure("stopping the database", why, f"see `journalctl -u {unit}`")
    return str(found["checkpoint"])


def must_be_shut(config: dict[str, Any]) -> None:
    """Looked at once more before the permit is given. Raises Failure."""
    what = "giving the permit to promote"
    missing = [str(path) for path in (CLOSED, FENCED) if not path.exists()]
    left = systemd.running(units(config))
    database = str(config["database_unit"])
    state = systemd.states([database])[database]
    if state not in ("inactive", "failed", "deactivating") or postgres.control()["state"] != "shut down":
        left.append(database)
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
    # People wait until then, and reading the units anew takes a while.
    _opened(30)
    gone = False
    for unit in (config["proxy_unit"], config["database_unit"]):
        path = systemd.SYSTEMD / f"{unit}.d" / "deploy-guard.conf"
        if unit and path.exists():
            path.unlink()
            gone = True
    if gone:
        systemd.reload()
    if config["proxy_unit"]:
        if not HELD.exists():
            proxy("off")
        # After a boot the guard has kept it down.
        systemd.call("start", "--no-block", str(config["proxy_unit"]))
    systemd.start(WATCH[:1], 20)


def _opened(bound: float) -> None:
    """The proxy holds no more, or so many seconds have passed."""
    end = time.monotonic() + bound
    while HELD.exists() and time.monotonic() < end:
        time.sleep(0.1)


def forward(config: dict[str, Any]) -> None:
    """The tunnel listens in place of what served; then the proxy lets go what it holds."""
    if config["forwards"]:
        mark(FORWARDING)
        systemd.must_start("forwarding to the new side", ["deploy-moving-forward.service"], 20)
        ports = [(str(one.get("listen") or "127.0.0.1"), int(one["port"])) for one in config["forwards"]]
        if left := listening(ports, 20):
            why = f"the tunnel does not listen on {', '.join(f'{host}:{port}' for host, port in left)}"
            raise Failure("forwarding to the new side", why, "see `journalctl -u deploy-moving-forward`")
    # Not "off": its timer is stopped by `let_go`, which reads the units anew meanwhile, and nobody waits for that.
    if config["proxy_unit"] and (why := proxy("open")):
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
