#!/usr/bin/python3
"""Asks a smarthost whether it would still take our mail: connect, TLS, log in, nothing more.

Exit 0 when it would. The last line says what was seen. The password is read from Postfix's own table.

    smarthost.py NEXT_HOP HOST PORT
"""

from __future__ import annotations

import smtplib
import ssl
import sys
import time

PASSWORDS = "/etc/postfix/smarthost_passwords"
# seconds for each answer
PATIENCE = 1.8


def login(next_hop: str, table: str = PASSWORDS) -> tuple[str, str] | None:
    """User and password for the next hop; None when it wants no log-in."""
    with open(table) as lines:
        for line in lines:
            key, _, value = line.rstrip("\n").partition(" ")
            if key == next_hop:
                user, _, password = value.partition(":")
                return user, password
    return None


def main(next_hop: str, host: str, port: int) -> int:
    account = login(next_hop)
    context = ssl.create_default_context()
    # As strict as Postfix and stunnel, not stricter: the answer shall be theirs.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    began = time.monotonic()
    try:
        if port == 465:
            vendor: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=PATIENCE, context=context)
        else:
            vendor = smtplib.SMTP(host, port, timeout=PATIENCE)
        with vendor:
            if port != 465 and account:
                vendor.starttls(context=context)
            if account:
                vendor.login(*account)
    except smtplib.SMTPResponseException as error:
        said = (
            error.smtp_error.decode("utf-8", "replace")
            if isinstance(error.smtp_error, bytes)
            else error.smtp_error
        )
        print(f"{host}:{port} would not take our mail: {error.smtp_code} {said}")
        return 1
    except (OSError, smtplib.SMTPException) as error:
        print(f"{host}:{port} would not take our mail: {error}")
        return 1
    print(f"{host}:{port} would take our mail ({time.monotonic() - began:.2f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
