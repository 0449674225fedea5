"""The host keys that we know before the first connection, as a file that SSH reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deployer.state.files import make_private, write_atomically


def line(address: str, port: int, public_key: str) -> str:
    """One line of known_hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT). A comment of the key is left out.

    Raises ValueError for what would make another line than one host with one key.
    """
    fields = public_key.split()
    if not address or any(char.isspace() or char in ",*?!|#@[]" for char in address):
        raise ValueError(f"no address: {address!r}")
    if "\n" in public_key.strip() or len(fields) < 2:
        raise ValueError(f"no public key for {address}: {public_key[:40]!r}")
    host = address if port == 22 else f"[{address}]:{port}"
    return f"{host} {fields[0]} {fields[1]}"


def write(state_dir: Path, hosts: Iterable[tuple[str, int, str]], name: str = "known_hosts") -> Path:
    """Write `state_dir`/NAME from (address, port, public key); give its path."""
    make_private(state_dir)
    path = state_dir / name
    text = "".join(entry + "\n" for entry in sorted({line(*host) for host in hosts}))
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
    return path
