"""Connections that go to a given address, whatever DNS says, and end at a given time."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass
class Deadline:
    """Seconds for everything that one probe does."""

    seconds: float
    end: float = field(init=False)

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds that are left. Raises TimeoutError when none are."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


# Held while a context is made: of forty requests that begin together one makes it, and the others have it then.
_making = threading.Lock()


def context(ca_pem: str | None) -> ssl.SSLContext:
    """TLS as a client: the system's CAs, and those of `ca_pem` besides.

    The same object each time, not to be changed: to make it takes longer than a whole request.
    """
    with _making:
        return _context(ca_pem)


@lru_cache(maxsize=4)
def _context(ca_pem: str | None) -> ssl.SSLContext:
    made = ssl.create_default_context()
    if ca_pem:
        made.load_verify_locations(cadata=ca_pem)
    return made


def lenient() -> ssl.SSLContext:
    """TLS as a client that takes any certificate; the same object each time."""
    with _making:
        return _lenient()


@lru_cache(maxsize=1)
def _lenient() -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def connect(address: str, port: int, deadline: Deadline) -> socket.socket:
    """A TCP connection. Raises OSError."""
    return socket.create_connection((address, port), timeout=deadline.left())


def encrypt(
    plain: socket.socket, tls: ssl.SSLContext, name: str, deadline: Deadline
) -> tuple[ssl.SSLSocket, float]:
    """TLS over `plain`, for `name`; and the days for which the other side's certificate is still good.

    Raises ssl.SSLCertVerificationError for a certificate that is not to be trusted (unless `tls` allows any).
    """
    plain.settimeout(deadline.left())
    secure = tls.wrap_socket(plain, server_hostname=name)
    certificate = secure.getpeercert() or {}
    until = certificate.get("notAfter")
    days = (ssl.cert_time_to_seconds(until) - time.time()) / 86400 if isinstance(until, str) else 0.0
    return secure, days
