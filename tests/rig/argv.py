"""Records the arguments of every program that this computer starts, those inside its machines too.

    python -m tests.rig.argv FILE

Containers' processes are processes of this kernel, which tells of each exec (connector, CN_PROC); the arguments
are then read from /proc. What lives for less than a moment may be missed, and is counted.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# linux/connector.h, linux/cn_proc.h
NETLINK_CONNECTOR, CN_IDX_PROC, LISTEN, EXEC = 11, 1, 1, 2
CHECKOUT = Path(__file__).resolve().parents[2]


def record(output: BinaryIO) -> None:
    """One line an exec: arguments between zero bytes. Ends with SIGTERM."""
    os.nice(-15)
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
    events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    events.bind((os.getpid(), CN_IDX_PROC))
    wish = struct.pack("=IIIIHHI", CN_IDX_PROC, 1, 0, 0, 4, 0, LISTEN)
    events.send(struct.pack("=IHHII", 16 + len(wish), 3, 0, 0, os.getpid()) + wish)
    print("ready", flush=True)
    while True:
        try:
            event = events.recv(4096)
        except OSError:
            # More came than was read; the next ones are there.
            continue
        if struct.unpack_from("=I", event, 36)[0] != EXEC:
            continue
        process = struct.unpack_from("=I", event, 56)[0]
        try:
            # A descriptor of its own, so nothing is lost in a buffer when we are stopped.
            with open(f"/proc/{process}/cmdline", "rb", buffering=0) as file:
                line = file.read(1 << 17)
        except OSError:
            line = b""
        os.write(output.fileno(), (line.replace(b"\n", b" ") or b"(gone)") + b"\n")


class Recorder:
    """`with Recorder(file) as recorder: ...`, then `recorder.lines()`."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> Recorder:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.rig.argv", str(self.file)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout and self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        assert self._process.stdout
        self._process.stdout.close()

    def lines(self) -> Iterator[str]:
        for line in self.file.read_bytes().splitlines():
            yield line.decode(errors="replace").replace("\0", " ").strip()


if __name__ == "__main__":
    with open(sys.argv[1], "ab", buffering=0) as target:
        record(target)  # type: ignore[arg-type]
