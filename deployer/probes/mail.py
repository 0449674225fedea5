"""SMTP, as another mail server meets us: up to the recipient, without a message."""

from __future__ import annotations

import smtplib
import ssl

from deployer.core.component import Probe
from deployer.probes import Red, explain
from deployer.probes.connection import Deadline, connect, context, encrypt, lenient


class _Client(smtplib.SMTP):
    """Python's SMTP client, on a connection of ours."""

    def __init__(self, deadline: Deadline) -> None:
        # A name of our own, or the library asks DNS for one.
        super().__init__(local_hostname="deploy-probe.invalid", timeout=deadline.left())
        self.deadline = deadline

    def putcmd(self, cmd: str, args: str = "") -> None:
        if self.sock:
            self.sock.settimeout(self.deadline.left())
        super().putcmd(cmd, args)


def smtp(probe: Probe, ca_pem: str | None) -> str:
    """Ask args["address"] to take a bounce for args["recipient"]: EHLO, STARTTLS, MAIL FROM:<>, RCPT, RSET, QUIT.

    args port (default 25); hostname: what the certificate should name. Like other mail servers we go on with a
    certificate that nobody vouches for, and say so. Raises Red, OSError, TimeoutError, smtplib.SMTPException.
    """
    address, port = str(probe.args["address"]), int(str(probe.args.get("port", 25)))
    hostname, recipient = str(probe.args["hostname"]), str(probe.args["recipient"])
    deadline = Deadline(probe.timeout)
    try:
        return _talk(address, port, hostname, recipient, context(ca_pem), deadline)
    except ssl.SSLCertVerificationError as error:
        trust = f"; {explain(error)}"
    return _talk(address, port, hostname, recipient, lenient(), deadline) + trust


def _talk(
    address: str, port: int, hostname: str, recipient: str, tls: ssl.SSLContext, deadline: Deadline
) -> str:
    client = _Client(deadline)
    try:
        client.sock = connect(address, port, deadline)
        client.sock.settimeout(deadline.left())
        _expect(client.getreply(), 220, "the greeting")
        # The name of a mail server's EHLO must resolve for some; an address literal is right for us (RFC 5321, 4.1.3).
        own = str(client.sock.getsockname()[0])
        ehlo = f"[IPv6:{own}]" if ":" in own else f"[{own}]"
        _expect(client.ehlo(ehlo), 250, "EHLO")
        if not client.has_extn("starttls"):
            raise Red("it does not offer STARTTLS")
        _expect(client.docmd("STARTTLS"), 220, "STARTTLS")
        client.sock, _ = encrypt(client.sock, tls, hostname, deadline)
        client.file = None
        _expect(client.ehlo(ehlo), 250, "EHLO after STARTTLS")
        _expect(client.docmd("MAIL FROM:<>"), 250, "MAIL FROM")
        _expect(client.docmd(f"RCPT TO:<{recipient}>"), 250, f"RCPT TO {recipient}")
        client.docmd("RSET")
        client.docmd("QUIT")
        return f"takes mail for {recipient}, with TLS"
    finally:
        client.close()


def _expect(reply: tuple[int, bytes], code: int, what: str) -> None:
    if reply[0] != code:
        text = reply[1].decode("utf-8", "replace").replace("\n", " ")
        raise Red(f"{what} was answered with {reply[0]} {text[:200]}")
