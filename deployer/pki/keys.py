"""Passwords and keys: one function a kind of core.component.Secret."""

from __future__ import annotations

import base64
import secrets
import string

_LETTERS = string.ascii_letters + string.digits


def password() -> str:
    """32 letters and digits (190 bits): nothing that a URL, a shell or an INI file must quote."""
    return "".join(secrets.choice(_LETTERS) for _ in range(32))


def hex_digits() -> str:
    """64 hexadecimal digits (256 bits)."""
    return secrets.token_hex(32)


def ed25519_seed() -> str:
    """32 random bytes in base64 without padding."""
    return base64.b64encode(secrets.token_bytes(32)).decode("ascii").rstrip("=")


def vapid() -> str:
    """A P-256 key for web push (RFC 8292): the private number and the public point, as a web push service takes them."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = generate_private_key(SECP256R1())
    private = key.private_numbers().private_value.to_bytes(32, "big")
    public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return " ".join(base64.urlsafe_b64encode(one).decode("ascii").rstrip("=") for one in (private, public))


def rsa() -> str:
    """An RSA key of 2048 bits, PKCS8 PEM; what RFC 8301 wants of DKIM keys that every receiver can check."""
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def ssh() -> str:
    """An ed25519 private key as OpenSSH writes it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode("ascii")
