"""Keys and certificates as text, without a library: what every unchanged run reads must cost no import."""

from __future__ import annotations

import base64
import re
import struct

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)
_MAGIC = b"openssh-key-v1\0"


def public_ssh(private: str) -> str:
    """The line "ssh-ed25519 AAAA..." of an OpenSSH private key; it stands in it in the clear (PROTOCOL.key)."""
    body = "".join(line for line in private.splitlines() if not line.startswith("-----"))
    blob = base64.b64decode(body)
    if not blob.startswith(_MAGIC):
        raise ValueError("not an OpenSSH private key")
    position = len(_MAGIC)
    for _ in range(3):  # cipher, key derivation, its options
        position += 4 + _length(blob, position)
    position += 4  # number of keys: one
    public = blob[position + 4 : position + 4 + _length(blob, position)]
    kind = public[4 : 4 + _length(public, 0)].decode("ascii")
    return f"{kind} {base64.b64encode(public).decode('ascii')}"


def split_pem(text: str) -> tuple[str, str]:
    """Private key and certificates of a secret of kind "ca" or "issuer", each as PEM text."""
    certificates = "".join(_CERTIFICATE.findall(text))
    return _CERTIFICATE.sub("", text), certificates


def _length(blob: bytes, position: int) -> int:
    (length,) = struct.unpack_from(">I", blob, position)
    return int(length)
