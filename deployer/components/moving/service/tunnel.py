"""`move.py tunnel database|forward`: ports of the other side on this machine's loopback, until the unit is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import remote
from ground import Failure

_OPTIONS = ("-N", "-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes")


def run(config: dict[str, Any], which: str) -> int:
    """Becomes ssh, or waits for several of them. systemd starts it again whenever it ends."""
    if which == "database":
        own = config["replication"]
        pairs = {str(own["peer"]): [f"127.0.0.1:{own['port']}:127.0.0.1:5432"]}
    else:
        pairs = {}
        for one in config["forwards"]:
            listen, port = one.get("listen") or "127.0.0.1", one["port"]
            pairs.setdefault(str(one["peer"]), []).append(f"{listen}:{port}:127.0.0.1:{port}")
    if not pairs:
        raise Failure("making a tunnel", f"the settings name no port for {which}", "a mistake of ours")
    lines = [
        remote.words(remote.peer(config, name), *_OPTIONS, *(word for port in ports for word in ("-L", port)))
        for name, ports in pairs.items()
    ]
    if len(lines) == 1:
        os.execvp(lines[0][0], lines[0])
    children = [subprocess.Popen(line, stdin=subprocess.DEVNULL) for line in lines]
    # systemd ends them all with this process (its control group).
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.wait()
    for child in children:
        child.terminate()
    return 1
