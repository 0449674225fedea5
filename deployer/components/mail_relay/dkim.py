"""The public half of the DKIM key, as DNS wants it (RFC 6376, 3.6.1).

The key is PKCS8 PEM from the bundle. Components see the standard library only, so the few lines of DER that
are needed stand here: read the modulus and exponent, write a SubjectPublicKeyInfo.
"""

from __future__ import annotations

import base64
import re

# SEQUENCE { OBJECT IDENTIFIER rsaEncryption, NULL }
_RSA = bytes.fromhex("300d06092a864886f70d0101010500")

_SEQUENCE, _INTEGER, _BIT_STRING, _OCTET_STRING = 0x30, 0x02, 0x03, 0x04


def public_record(private_pem: str) -> str:
    """Value of the TXT record at SELECTOR._domainkey.DOMAIN. Raises ValueError when it is no RSA key in PKCS8."""
    found = re.search(r"-----BEGIN PRIVATE KEY-----(.+?)-----END PRIVATE KEY-----", private_pem, re.DOTALL)
    if not found:
        raise ValueError("the DKIM key is not a PKCS8 PEM private key")
    outer = _children(_content(base64.b64decode(found[1]), _SEQUENCE))
    if len(outer) < 3 or _element(_SEQUENCE, outer[1][1]) != _RSA:
        raise ValueError("the DKIM key is not an RSA key")
    inner = _children(_content(outer[2][1], _SEQUENCE))
    modulus, exponent = inner[1][1], inner[2][1]
    numbers = _element(_SEQUENCE, _element(_INTEGER, modulus) + _element(_INTEGER, exponent))
    info = _element(_SEQUENCE, _RSA + _element(_BIT_STRING, b"\0" + numbers))
    return f"v=DKIM1; k=rsa; p={base64.b64encode(info).decode()}"


def _content(data: bytes, tag: int) -> bytes:
    children = _children(data)
    if len(children) != 1 or children[0][0] != tag:
        raise ValueError("the DKIM key is damaged")
    return children[0][1]


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """The elements one after another: (tag, content)."""
    found = []
    while data:
        if len(data) < 2:
            raise ValueError("the DKIM key is cut short")
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            start = 2 + (length & 0x7F)
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            raise ValueError("the DKIM key is cut short")
        found.append((tag, data[start : start + length]))
        data = data[start + length :]
    return found


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
