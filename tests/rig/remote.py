"""A shell on a machine, for tests: what an operator would type."""

from __future__ import annotations

import base64
import io
import shlex
import time

import paramiko


class Remote:
    """Connects at the first command, with the host key that is known beforehand; waits for a machine that boots."""

    def __init__(self, address: str, key: str, host_key_public: str, *, patience: float = 60) -> None:
        self.address, self.key, self._patience = address, key, patience
        self._key = paramiko.Ed25519Key.from_private_key(io.StringIO(key))
        kind, blob = host_key_public.split()[:2]
        self._host = (kind, paramiko.Ed25519Key(data=base64.b64decode(blob)))
        self._client: paramiko.SSHClient | None = None

    def connect(self) -> paramiko.SSHClient:
        transport = self._client.get_transport() if self._client else None
        if self._client and transport and transport.is_active():
            return self._client
        deadline = time.monotonic() + self._patience
        while True:
            client = paramiko.SSHClient()
            client.get_host_keys().add(self.address, *self._host)
            try:
                client.connect(
                    self.address,
                    username="root",
                    pkey=self._key,
                    allow_agent=False,
                    look_for_keys=False,
                    timeout=5,
                )
                self._client = client
                return client
            except (OSError, paramiko.SSHException):
                client.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def attempt(self, command: str, *, stdin: str = "", timeout: float = 60) -> tuple[int, str]:
        """Exit code and all output."""
        session = self.connect().get_transport()
        assert session
        channel = session.open_session(timeout=10)
        channel.settimeout(timeout)
        channel.set_combine_stderr(True)
        channel.exec_command(command)
        if stdin:
            channel.sendall(stdin.encode())
        channel.shutdown_write()
        output = channel.makefile("rb").read().decode(errors="replace")
        return channel.recv_exit_status(), output

    def run(self, command: str, *, stdin: str = "", timeout: float = 60) -> str:
        code, output = self.attempt(command, stdin=stdin, timeout=timeout)
        assert code == 0, f"{command!r} on {self.address} ended with {code}:\n{output[-3000:]}"
        return output

    def write(self, path: str, text: str) -> None:
        self.run(f"mkdir -p $(dirname {shlex.quote(path)}) && cat > {shlex.quote(path)}", stdin=text)

    def close(self) -> None:
        if self._client:
            self._client.close()
