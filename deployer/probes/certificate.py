"""How long the certificate is good that a public name shows."""

from __future__ import annotations

from deployer.probes.connection import Deadline, connect, context, encrypt


def days_left(address: str, port: int, name: str, ca_pem: str | None, seconds: float) -> float:
    """Days until the certificate ends that `address` shows for `name`.

    ca_pem: CAs that are trusted besides the system's. Raises OSError (ssl.SSLCertVerificationError for a certificate
    that is not to be trusted), TimeoutError.
    """
    deadline = Deadline(seconds)
    plain = connect(address, port, deadline)
    try:
        secure, days = encrypt(plain, context(ca_pem), name, deadline)
    except BaseException:
        plain.close()
        raise
    secure.close()
    return days
