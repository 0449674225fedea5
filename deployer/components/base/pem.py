"""Splitting what the bundle keeps together: a PEM key followed by its certificates."""

from __future__ import annotations

import re

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_BEGIN = "-----BEGIN CERTIFICATE-----"


def certificates_of(pem: str) -> str:
    """The certificates of a PEM text and nothing else. Raises ValueError when there is none."""
    found = _CERTIFICATE.findall(pem)
    if not found:
        raise ValueError("no certificate in this PEM text")
    return "".join(f"{block}\n" for block in found)


def key_of(pem: str) -> str:
    """The key that stands before the first certificate. Raises ValueError when there is none."""
    key = pem.partition(_BEGIN)[0].strip()
    if "PRIVATE KEY-----" not in key:
        raise ValueError("no key before the certificate in this PEM text")
    return f"{key}\n"
