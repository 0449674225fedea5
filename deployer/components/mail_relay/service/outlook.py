"""How the world looks from a mail machine: whose port 25 can be reached, what blocklists say of its addresses.

Sent over SSH by `deploy doctor`, before anything of ours is installed; the request is the first argument, the
answer one JSON line. Sends no mail. Python >= 3.9, standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from typing import Any

# Seconds for a connection and its greeting.
CONNECT = 4


def greet(host: str, port: int) -> tuple[bool, str]:
    """Whether a mail server greets us, over IPv4, which every receiver has."""
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        return False, f"its name: {error.strerror or error}"
    try:
        with socket.create_connection((str(found[0][4][0]), port), timeout=CONNECT) as connection:
            line = connection.recv(512).decode("latin-1").strip()
            connection.sendall(b"QUIT\r\n")
    except TimeoutError:
        return False, "no answer"
    except OSError as error:
        return False, (error.strerror or str(error)).lower()
    # 554 is a refusal of this address, but it came through port 25.
    return line[:3] in ("220", "554"), line[:80] or "closed at once"


def look_up(name: str) -> list[str] | None:
    """The IPv4 addresses of a name, [] when there is none, None when nobody answered."""
    try:
        found = socket.getaddrinfo(name + ".", None, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as error:
        return [] if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", -5)) else None
    except OSError:
        return None
    return sorted({str(one[4][0]) for one in found})


def helo() -> str:
    """The name that Postfix greets with; "" where there is no Postfix."""
    program = shutil.which("postconf")
    if not program:
        return ""
    try:
        done = subprocess.run(
            [program, "-hx", "smtp_helo_name"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def main() -> None:
    wanted = json.loads(sys.argv[1])
    answer: dict[str, Any] = {"servers": {}, "names": {}, "helo": ""}

    def server(host: str) -> None:
        answer["servers"][host] = greet(host, 25)

    def name(query: str) -> None:
        answer["names"][query] = look_up(query)

    def own() -> None:
        answer["helo"] = helo()

    jobs = [threading.Thread(target=own, daemon=True)]
    jobs += [threading.Thread(target=server, args=(one,), daemon=True) for one in wanted["servers"]]
    jobs += [threading.Thread(target=name, args=(one,), daemon=True) for one in wanted["names"]]
    end = time.monotonic() + wanted["seconds"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(max(0.0, end - time.monotonic()))
    # What did not come is missing; its thread may hang in the resolver, so nothing is waited for.
    text = json.dumps(
        {key: dict(value) if isinstance(value, dict) else value for key, value in answer.items()}
    )
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
