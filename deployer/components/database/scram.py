"""SCRAM-SHA-256 verifiers, so that PostgreSQL never sees a password (RFC 5802, RFC 7677)."""

from __future__ import annotations

import base64
import hashlib
import hmac

ITERATIONS = 4096


def verifier(role: str, password: str) -> str:
    """What pg_authid.rolpassword holds for the password: SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER.

    The salt follows from role and password, so that the same password gives the same verifier and an unchanged
    deployment has nothing to do. Passwords are ours (ASCII, random), so SASLprep has nothing to prepare.
    """
    if not password.isascii() or not password.isprintable() or not password:
        raise ValueError(f"the database password of {role} must be printable ASCII")
    salt = hmac.digest(password.encode(), b"deploy database " + role.encode(), "sha256")[:16]
    return make(password, salt, ITERATIONS)


def make(password: str, salt: bytes, iterations: int) -> str:
    """The verifier for a given salt (RFC 5802, section 3)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"
