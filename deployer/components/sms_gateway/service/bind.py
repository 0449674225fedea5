#!/usr/bin/python3
"""Asks carriers whether they would let this machine in: connect, TLS, bind as a transmitter, unbind (SMPP 3.4, 4.1 and 4.2).

Reads [{"name", "host", "port", "tls", "system_id", "password", "system_type"}] as JSON on standard input, and prints
[{"name", "ok", "text"}]. A carrier that refuses since the account is bound already has let us in.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import threading
from typing import Any

# Seconds for each answer.
PATIENCE = 8.0
BIND_TRANSMITTER, UNBIND = 0x00000002, 0x00000006
RESPONSE = 0x80000000
# command_status (SMPP 3.4, 5.1.3); what it says of an account.
ALREADY = 0x00000005
WORDS = {
    0x0000000D: "bind failed",
    0x0000000E: "the password is wrong",
    0x0000000F: "the system_id is wrong",
    0x00000058: "too many requests",
}


def ask(carrier: dict[str, Any]) -> dict[str, Any]:
    host, port = str(carrier["host"]), int(carrier["port"])
    try:
        with _connected(host, port, bool(carrier["tls"])) as line:
            status = _bind(line, carrier)
    except (OSError, ValueError) as error:
        return {"name": carrier["name"], "ok": False, "text": f"{host}:{port}: {error}"}
    ok = status in (0, ALREADY)
    text = "lets us in" if ok else f"refuses: {WORDS.get(status, 'command_status')} ({status:#010x})"
    return {"name": carrier["name"], "ok": ok, "text": f"{host}:{port} {text}"}


def _connected(host: str, port: int, tls: bool) -> socket.socket:
    line = socket.create_connection((host, port), PATIENCE)
    line.settimeout(PATIENCE)
    if not tls:
        return line
    context = ssl.create_default_context()
    # As strict as stunnel, not stricter.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        return context.wrap_socket(line, server_hostname=host)
    except BaseException:
        line.close()
        raise


def _bind(line: socket.socket, carrier: dict[str, Any]) -> int:
    """The command_status of the answer. Unbinds again."""
    words = [str(carrier[key]).encode() + b"\0" for key in ("system_id", "password", "system_type")]
    # interface_version 3.4, no type and plan of addresses, no range.
    line.sendall(pdu(BIND_TRANSMITTER, 1, b"".join(words) + b"\x34\0\0\0"))
    status = _answer(line, BIND_TRANSMITTER)
    if status == 0:
        line.sendall(pdu(UNBIND, 2, b""))
        _answer(line, UNBIND)
    return status


def pdu(command: int, number: int, body: bytes) -> bytes:
    """A packet: its length, command, status 0 and number, each of 4 bytes, then the body (SMPP 3.4, 3.2)."""
    return struct.pack(">IIII", 16 + len(body), command, 0, number) + body


def _answer(line: socket.socket, command: int) -> int:
    """The status of the answer to a command; what else comes in between is passed by."""
    for _ in range(10):
        length, kind, status, _ = struct.unpack(">IIII", _read(line, 16))
        if not 16 <= length <= 65536:
            raise ValueError("it does not speak SMPP")
        _read(line, length - 16)
        if kind == command | RESPONSE or kind == RESPONSE:
            return int(status)
    raise ValueError("it does not answer the bind")


def _read(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = line.recv(count - len(data))
        if not more:
            raise OSError("it closed the connection")
        data += more
    return data


def main() -> int:
    carriers = json.load(sys.stdin)
    found: dict[str, dict[str, Any]] = {}

    def one(carrier: dict[str, Any]) -> None:
        found[carrier["name"]] = ask(carrier)

    threads = [threading.Thread(target=one, args=(carrier,), daemon=True) for carrier in carriers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * PATIENCE)
    late = {"ok": False, "text": "no answer in time"}
    print(json.dumps([found.get(one["name"]) or {"name": one["name"], **late} for one in carriers]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
