#!/usr/bin/python3
"""Milter that signs the app's mail with DKIM (RFC 6376), or holds it: nothing leaves unsigned.

Runs on the mail machine with Debian's python3-milter and python3-dkim. Postfix asks it about submitted mail
only, never about mail from outside. What is not from our domain is refused (the app would fail DMARC with it
anyway); any fault is answered 4xx, so the mail waits where it is.

    dkim_signer.py --domain DOMAIN --selector SELECTOR --key FILE --socket PATH
"""

from __future__ import annotations

import argparse
import os
import threading
from email.utils import parseaddr

import dkim

# Signed once more than they occur, so that nobody can add a second one ("oversigning"). Headers of the list
# family are among them: receivers honour one-click unsubscribe (RFC 8058) only when they are signed.
SIGNED = (
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "subject",
    "date",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
)

Header = tuple[str, bytes]


class ForeignSender(Exception):
    """The message is not from our domain (or does not say who it is from); the reason is for the app's log."""


def author_domain(headers: list[Header]) -> str:
    """Domain of the only From header. Raises ForeignSender when there is not exactly one address."""
    found = [value for name, value in headers if name.lower() == "from"]
    if len(found) != 1:
        raise ForeignSender(f"a message needs one From header, this one has {len(found)}")
    _, address = parseaddr(found[0].decode("utf-8", "replace").replace("\n", " "))
    _, at, domain = address.rpartition("@")
    if not at:
        raise ForeignSender("the From header holds no address")
    return domain.lower()


def sign(headers: list[Header], body: bytes, domain: str, selector: str, key: bytes) -> str:
    """Value of the DKIM-Signature header. Raises ForeignSender, or dkim.DKIMException."""
    author = author_domain(headers)
    if author != domain and not author.endswith("." + domain):
        raise ForeignSender(f"the From address must be in {domain}")
    text = b"".join(name.encode() + b": " + _crlf(value) + b"\r\n" for name, value in headers)
    present = [name.lower() for name, _ in headers]
    names = [name.encode() for name in SIGNED for _ in range(present.count(name) + 1)]
    signature: bytes = dkim.sign(
        text + b"\r\n" + body,
        selector.encode(),
        domain.encode(),
        key,
        canonicalize=(b"relaxed", b"relaxed"),
        include_headers=names,
    )
    _, _, value = signature.decode().partition(": ")
    return value.strip().replace("\r\n", "\n")


def _crlf(value: bytes) -> bytes:
    """Folded header lines as they travel; a milter sees them with bare line feeds."""
    return value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def serve(domain: str, selector: str, key: bytes, socket: str) -> None:
    """Answer Postfix until the process is stopped."""
    import Milter

    # Canonicalising takes a few times the message's size: one at a time bounds the memory.
    turn = threading.Lock()

    class Signer(Milter.Base):
        def __init__(self) -> None:
            self.headers: list[Header] = []
            self.body_parts: list[bytes] = []

        def envfrom(self, sender: str, *parameters: str) -> int:
            self.headers, self.body_parts = [], []
            return int(Milter.CONTINUE)

        @Milter.decode("bytes")
        def header(self, name: str, value: bytes) -> int:
            self.headers.append((name, value))
            return int(Milter.CONTINUE)

        def body(self, chunk: bytes) -> int:
            self.body_parts.append(chunk)
            return int(Milter.CONTINUE)

        def eom(self) -> int:
            queue_id = self.getsymval("i")
            try:
                with turn:
                    value = sign(self.headers, b"".join(self.body_parts), domain, selector, key)
                self.addheader("DKIM-Signature", value, 0)
            except ForeignSender as reason:
                print(f"{queue_id}: refused: {reason}", flush=True)
                self.setreply("550", "5.7.1", str(reason))
                return int(Milter.REJECT)
            except Exception as fault:
                # Whatever it was, unsigned mail must not leave; the type says enough, the text may quote the mail.
                print(f"{queue_id}: not signed, held: {type(fault).__name__}", flush=True)
                self.setreply("451", "4.7.5", "the mail could not be signed, try again later")
                return int(Milter.TEMPFAIL)
            finally:
                self.headers, self.body_parts = [], []
            return int(Milter.CONTINUE)

    Milter.factory = Signer
    Milter.set_flags(Milter.ADDHDRS)
    os.umask(0o007)
    Milter.runmilter("dkim-signer", f"unix:{socket}", 60)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("domain", "selector", "key", "socket"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    with open(options.key, "rb") as file:
        key = file.read()
    # A key that cannot sign shall stop the unit, where everybody sees it, and not each mail.
    sign([("From", f"test@{options.domain}".encode())], b"", options.domain, options.selector, key)
    serve(options.domain, options.selector, key, options.socket)


if __name__ == "__main__":
    main()
