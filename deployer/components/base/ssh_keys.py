"""Public halves of OpenSSH private keys, read from the private key's own text (PROTOCOL.key of OpenSSH)."""

from __future__ import annotations

import base64
import binascii
import struct

_MAGIC = b"openssh-key-v1\0"


def public_key(private: str, comment: str = "") -> str:
    """The authorized_keys line for an OpenSSH private key: "ssh-ed25519 AAAA... comment".

    The public half lies unencrypted in the file, so no passphrase is needed. Raises ValueError when the text
    is not a private key in OpenSSH's own format.
    """
    lines = private.strip().splitlines()
    if len(lines) < 3 or "BEGIN OPENSSH PRIVATE KEY" not in lines[0] or "END" not in lines[-1]:
        raise ValueError("not a private key in OpenSSH's format")
    try:
        blob = base64.b64decode("".join(lines[1:-1]), validate=True)
        if not blob.startswith(_MAGIC):
            raise ValueError("not a private key in OpenSSH's format")
        offset = len(_MAGIC)
        for _ in ("cipher", "key derivation", "its options"):
            _, offset = _string(blob, offset)
        (count,) = struct.unpack_from(">I", blob, offset)
        public, _ = _string(blob, offset + 4)
        kind, _ = _string(public, 0)
    except (binascii.Error, struct.error) as error:
        raise ValueError(f"damaged private key: {error}") from None
    if count != 1:
        raise ValueError(f"{count} keys in one file; one is expected")
    return " ".join(part for part in (kind.decode(), base64.b64encode(public).decode(), comment) if part)


def _string(blob: bytes, offset: int) -> tuple[bytes, int]:
    """A string of the SSH wire format (RFC 4251, section 5) and the offset behind it."""
    (length,) = struct.unpack_from(">I", blob, offset)
    end = offset + 4 + length
    if end > len(blob):
        raise ValueError("damaged private key: it ends too early")
    return blob[offset + 4 : end], end
