"""Keys and certificates as text, without a library: what every unchanged run reads must cost no import."""

from __future__ import annotations

import base64
import binascii
import re
import struct

_MAGIC = b"openssh-key-v1\0"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def public_ssh(private: str, comment: str = "") -> str:
    """The authorized_keys line for an OpenSSH private key: "ssh-ed25519 AAAA... comment".

    The public half lies in the clear in the file (PROTOCOL.key of OpenSSH), so no passphrase is needed. Raises
    ValueError when the text is not a private key in OpenSSH's own format.
    """
    body = "".join(line for line in private.splitlines() if not line.startswith("-----"))
    try:
        blob = base64.b64decode(body, validate=True)
        if not blob.startswith(_MAGIC):
            raise ValueError("not a private key in OpenSSH's format")
        offset = len(_MAGIC)
        for _ in ("cipher", "key derivation", "its options"):
            _, offset = _string(blob, offset)
        # Then comes how many keys there are (4 bytes, always 1), and the public one.
        public, _ = _string(blob, offset + 4)
        kind, _ = _string(public, 0)
    except (binascii.Error, struct.error) as error:
        raise ValueError(f"damaged private key: {error}") from None
    return " ".join(part for part in (kind.decode(), base64.b64encode(public).decode(), comment) if part)


def _string(blob: bytes, offset: int) -> tuple[bytes, int]:
    """A string of the SSH wire format (RFC 4251, section 5) and the offset behind it."""
    (length,) = struct.unpack_from(">I", blob, offset)
    end = offset + 4 + length
    if end > len(blob):
        raise ValueError("damaged private key: it ends too early")
    return blob[offset + 4 : end], end


def split_pem(text: str) -> tuple[str, str]:
    """Private key and certificates of a secret of kind "ca" or "issuer", each as PEM text.

    Raises ValueError unless the text is a key followed by at least one certificate, so that a key is never taken
    for a certificate.
    """
    certificates = _CERTIFICATE.findall(text)
    key = _CERTIFICATE.sub("", text).strip()
    if not certificates or "PRIVATE KEY-----" not in key:
        raise ValueError("not a PEM key followed by its certificate")
    return f"{key}\n", "".join(f"{block}\n" for block in certificates)
