"""One SSH connection a machine, and plain commands over it."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
import zlib
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import gevent
import paramiko
from pyinfra.api import Config, Inventory, State
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.connectors.ssh import SSHConnector

# sshd allows ten sessions on one connection (MaxSessions); two are left for a person's own.
CHANNELS = 8

# Seconds in which the first boot may bring the keys of a machine.
FIRST_BOOT = 30

REMOTE = Path(__file__).parent / "remote"
# The program and its request both come on standard input, so neither is in an argument list. Without what is
# installed there (-I -S): the programs need the standard library only, and start sooner.
BOOT = (
    "python3 -ISc 'import sys,base64,zlib;"
    'exec(compile(zlib.decompress(base64.b64decode(sys.stdin.readline())),"deploy-remote","exec"))\''
)


class EngineError(Exception):
    """What a verb could not do. why: the reason; machine: where; kind: "unreachable", "hostkey", "auth" or ""."""

    def __init__(self, why: str, machine: str = "", kind: str = "", detail: str = "") -> None:
        super().__init__(why)
        self.why, self.machine, self.kind, self.detail = why, machine, kind, detail

    def to_json(self) -> dict[str, str]:
        return {"why": self.why, "machine": self.machine, "kind": self.kind, "detail": self.detail}


class Hosts:
    """The connected machines, by name."""

    def __init__(self, event: Callable[..., None]) -> None:
        self._event = event
        self.state: State | None = None
        self.hosts: dict[str, Host] = {}
        self._channels: dict[str, gevent.lock.BoundedSemaphore] = {}

    # --- connect ---

    def connect(self, request: dict[str, Any]) -> dict[str, Any]:
        """machines: [{name, address, port, user}], known_hosts: paths, and keys: OpenSSH private keys, each tried in
        turn, key_files: list of paths, agent: bool, timeout: seconds in all, new: bool, whether one was made just now.
        Returns {name: {} or {why, kind}}."""
        entries = []
        for machine in request["machines"]:
            settings = {
                "ssh_hostname": machine["address"],
                "ssh_port": machine["port"],
                "ssh_user": machine["user"],
                "ssh_known_hosts_file": request["known_hosts"][0],
                "ssh_strict_host_key_checking": "yes",
                # Nothing of the user's own ssh_config: the same everywhere.
                "ssh_config_file": "/dev/null",
            }
            entries.append((machine["name"], settings))
        inventory = Inventory((entries, {}))
        # FAIL_PERCENT: the first machine that fails stops the phase for all.
        self.state = State(inventory, Config(FAIL_PERCENT=0, CONNECT_TIMEOUT=10), check_for_changes=False)
        hosts = list(inventory)
        deadline = time.monotonic() + float(request["timeout"])
        jobs = [gevent.spawn(self._connect_one, host, deadline, request) for host in hosts]
        gevent.joinall(jobs)
        return {host.name: job.value for host, job in zip(hosts, jobs, strict=True)}

    @staticmethod
    def _credentials(request: dict[str, Any]) -> list[dict[str, Any]]:
        """What to log in with: our keys, then, where the request has them, the operator's own files and agent."""
        shared: dict[str, Any] = {"allow_agent": False, "look_for_keys": False, "compress": False}
        ways = [
            {**shared, "pkey": paramiko.Ed25519Key.from_private_key(StringIO(key))} for key in request["keys"]
        ]
        if request.get("agent") or request.get("key_files"):
            ways.append({**shared, "allow_agent": True, "key_filename": list(request.get("key_files", []))})
        return ways

    def _connect_one(self, host: Host, deadline: float, request: dict[str, Any]) -> dict[str, str]:
        """Try until the deadline: a machine that was just made needs a moment until sshd listens, and until what runs
        at its first boot has brought our keys."""
        assert self.state is not None
        keys_by = time.monotonic() + (FIRST_BOOT if request.get("new") else 0)
        ways, known = self._credentials(request), list(request["known_hosts"])
        connector = host.connector
        assert isinstance(connector, SSHConnector)
        while True:
            connector.data["ssh_paramiko_connect_kwargs"] = ways[0]
            connector.data["ssh_known_hosts_file"] = known[0]
            try:
                host.connect(show_errors=False, raise_exceptions=True)
            except ConnectError as error:
                text = str(error)
                kind = _kind(text)
                if kind == "auth" and len(ways) > 1:
                    ways = ways[1:]
                    continue
                if kind == "hostkey" and len(known) > 1:
                    known = known[1:]
                    continue
                refused = kind in ("hostkey", "auth")
                if time.monotonic() > (min(keys_by, deadline) if refused else deadline):
                    return {"why": _plain(text), "kind": kind}
                ways, known = self._credentials(request), list(request["known_hosts"])
                # sshd punishes who fails to log in too often (PerSourcePenalties).
                gevent.sleep(2 if refused else 0.2)
                continue
            self.state.activate_host(host)
            transport = self._transport(host)
            # paramiko leaves Nagle on, which costs 40 ms for each command.
            sock = transport.sock
            assert isinstance(sock, socket.socket)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.set_keepalive(15)
            self.hosts[host.name] = host
            self._channels[host.name] = gevent.lock.BoundedSemaphore(CHANNELS)
            return {}

    def host(self, name: str) -> Host:
        try:
            return self.hosts[name]
        except KeyError:
            raise EngineError("not connected", name, "unreachable") from None

    @staticmethod
    def _transport(host: Host) -> paramiko.Transport:
        connector = host.connector
        assert isinstance(connector, SSHConnector)
        transport = connector.client.get_transport() if connector.client else None
        if transport is None:
            raise EngineError("the connection is closed", host.name, "unreachable")
        return transport

    # --- commands ---

    def execute(self, name: str, command: str, stdin: bytes, timeout: float) -> tuple[int, str, str]:
        """Run a shell command. Returns exit code, standard output, standard error; raises EngineError on time-out."""
        transport = self._transport(self.host(name))
        with self._channels[name]:
            try:
                with gevent.Timeout(timeout):
                    channel = transport.open_session(timeout=timeout)
                    channel.exec_command(command)
                    readers = [
                        gevent.spawn(channel.makefile("rb").read),
                        gevent.spawn(channel.makefile_stderr("rb").read),
                    ]
                    if stdin:
                        channel.sendall(stdin)
                    channel.shutdown_write()
                    out, err = (reader.get() for reader in readers)
                    code = channel.recv_exit_status()
                    channel.close()
            except gevent.Timeout:
                raise EngineError(f"no end after {timeout:g} s", name, "timeout") from None
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise EngineError(
                    f"the connection broke: {error or type(error).__name__}", name, "unreachable"
                ) from None
        return code, out.decode(errors="replace"), err.decode(errors="replace")

    def remote(self, name: str, program: str, request: dict[str, Any], timeout: float) -> Any:
        """Run one of remote/*.py on the machine with `request` and return its JSON answer."""
        code, out, err = self.execute(name, BOOT, _wire(program, request), timeout)
        if code != 0:
            raise EngineError(f"{program} ended with {code}", name, detail=err[-2000:])
        return json.loads(out)

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """machine, command (shell), stdin, timeout (seconds)."""
        code, out, err = self.execute(
            request["machine"],
            request["command"],
            request.get("stdin", "").encode(),
            float(request["timeout"]),
        )
        return {"code": code, "stdout": out, "stderr": err}

    def observe(self, request: dict[str, Any]) -> dict[str, Any]:
        """requests: {machine: request of remote/observe.py}; all machines at once."""
        timeout = float(request["timeout"])
        jobs = {
            name: gevent.spawn(self._observe_one, name, wanted, timeout)
            for name, wanted in request["requests"].items()
        }
        gevent.joinall(list(jobs.values()))
        return {name: job.value for name, job in jobs.items()}

    def _observe_one(self, name: str, wanted: dict[str, Any], timeout: float) -> Any:
        try:
            return self.remote(name, "observe", wanted, timeout)
        except EngineError as error:
            return {"error": error.to_json()}


def _wire(program: str, request: dict[str, Any]) -> bytes:
    source = (REMOTE / f"{program}.py").read_bytes()
    return base64.b64encode(zlib.compress(source)) + b"\n" + json.dumps(request).encode() + b"\n"


def _kind(text: str) -> str:
    if "does not match" in text or "StrictPolicy" in text or "host key" in text.lower():
        return "hostkey"
    if "Authentication" in text or "No authentication methods" in text:
        return "auth"
    return "unreachable"


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("StrictPolicy: ", "")).strip()
