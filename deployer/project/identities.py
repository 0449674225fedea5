"""Who opens the secrets bundle: age identities and SSH keys on this computer, and who they are to others."""

from __future__ import annotations

import base64
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.core.errors import DeployError, InputError

VARIABLE = "DEPLOY_IDENTITY"


@dataclass(frozen=True)
class Identity:
    """A private key that opens bundles. recipient: its public half."""

    path: Path
    recipient: str
    key: Any = field(repr=False)


def personal_path() -> Path:
    """Where this computer's own identity lies when nobody names another."""
    return Path.home() / ".config" / "deploy" / "identity.txt"


def find(
    named: Path | None, environment: Mapping[str, str] | None = None
) -> tuple[list[Identity], list[str]]:
    """The identities to try, and why others were left out, in words.

    named (--identity) goes before $DEPLOY_IDENTITY; without either those of ~/.config/deploy and ~/.ssh that
    exist. Raises InputError when a named one cannot be used.
    """
    variable = (os.environ if environment is None else environment).get(VARIABLE, "")
    chosen = named or (Path(variable).expanduser() if variable else None)
    if chosen is not None:
        return read(chosen), []
    found: list[Identity] = []
    left_out = []
    for path in (personal_path(), Path.home() / ".ssh" / "id_ed25519"):
        if not path.is_file():
            continue
        try:
            found += read(path)
        except InputError as error:
            left_out.append(f"{path}: {error.why}")
    return found, left_out


def read(path: Path) -> list[Identity]:
    """The identities in a file: age's (one a line), or an SSH private key without passphrase."""
    import pyrage  # type: ignore[import-untyped]

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a text file"
        raise _unusable(path, reason) from None
    if "age-encryption.org/v1" in text or "BEGIN AGE ENCRYPTED FILE" in text:
        raise _unusable(path, "it is protected by a passphrase, which is not supported")
    if "PRIVATE KEY-----" in text:
        try:
            key = pyrage.ssh.Identity.from_buffer(text.encode())
        except pyrage.IdentityError as error:
            locked = "decrypted first" in str(error)
            why = (
                "it is protected by a passphrase, which is not supported"
                if locked
                else "age cannot use this SSH key"
            )
            raise _unusable(path, why) from None
        return [Identity(path, _ssh_recipient(path, text), key)]
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        try:
            key = pyrage.x25519.Identity.from_str(word)
        except pyrage.IdentityError:
            raise _unusable(path, f"line {number} is no age identity (AGE-SECRET-KEY-1...)") from None
        found.append(Identity(path, str(key.to_public()), key))
    if not found:
        raise _unusable(path, "it holds no identity")
    return found


def make(path: Path, comment: str) -> Identity:
    """The age identity at `path`, made (mode 0600) when it is missing. Raises DeployError."""
    if path.is_file():
        return read(path)[0]
    try:
        return _make(path, comment)
    except OSError as error:
        raise DeployError(
            f"making the identity {path}", str(error.strerror), "see to the folder and the disk"
        ) from error


def _make(path: Path, comment: str) -> Identity:
    import pyrage

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = pyrage.x25519.Identity.generate()
    text = f"# {comment}\n# public key: {key.to_public()}\n{key}\n"
    # Written beside and linked, so that a killed run never leaves half an identity.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return read(path)[0]
    finally:
        draft.unlink()
    return Identity(path, str(key.to_public()), key)


def personal() -> Identity:
    """This computer's own identity, made on first use."""
    return make(personal_path(), f"deploy: identity of {socket.gethostname()}; keep it secret")


def recipient(text: str) -> Any:
    """What age encrypts to, from age1... or an SSH public key that the schema has checked."""
    import pyrage

    kind = pyrage.x25519 if text.startswith("age1") else pyrage.ssh
    return kind.Recipient.from_str(text)


def fingerprint(text: str) -> str:
    """A recipient without its comment: two texts with one fingerprint are the same key."""
    return " ".join(text.split()[:2])


def _ssh_recipient(path: Path, text: str) -> str:
    """The public half of an SSH private key: it stands in the clear in OpenSSH's format (PROTOCOL.key)."""
    beside = path.with_name(path.name + ".pub")
    if "BEGIN OPENSSH PRIVATE KEY" not in text:
        return fingerprint(beside.read_text(encoding="utf-8")) if beside.is_file() else ""
    blob = _body(text)
    position = len(b"openssh-key-v1\0")
    for _ in range(3):
        (length,) = struct.unpack_from(">I", blob, position)
        position += 4 + length
    (length,) = struct.unpack_from(">I", blob, position + 4)
    public = blob[position + 8 : position + 8 + length]
    (length,) = struct.unpack_from(">I", public)
    return f"{public[4 : 4 + length].decode()} {base64.b64encode(public).decode()}"


def _body(text: str) -> bytes:
    return base64.b64decode("".join(line for line in text.splitlines() if not line.startswith("-----")))


def _unusable(path: Path, why: str) -> InputError:
    return InputError(
        f"reading the identity {path}",
        why,
        "name another with --identity FILE or DEPLOY_IDENTITY; of a protected one, write a decrypted copy to a "
        "memory file system (age -d identity.age > /dev/shm/identity) and name that",
    )
