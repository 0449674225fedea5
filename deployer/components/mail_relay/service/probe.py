#!/usr/bin/python3
"""Sends a message to the discard address on its whole way: submission, signing, queue, transport.

Exit 0 when Postfix took it and it left the queue. The last line says what was seen.

    probe.py SENDER RECIPIENT
"""

from __future__ import annotations

import os
import re
import smtplib
import sys
import time
from email.message import EmailMessage

QUEUE = "/var/spool/postfix"


def waiting(queue_id: str) -> bool:
    """The message is still in one of the queues; Postfix hashes the deferred one by the first digit."""
    paths = [f"{queue}/{queue_id}" for queue in ("incoming", "active", "hold")] + [
        f"deferred/{queue_id[0]}/{queue_id}"
    ]
    return any(os.path.exists(os.path.join(QUEUE, path)) for path in paths)


def main(sender: str, recipient: str) -> int:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, "probe"
    message.set_content("A probe. It is discarded.")
    began = time.monotonic()
    try:
        with smtplib.SMTP("127.0.0.1", 587, timeout=1.8) as relay:
            relay.ehlo()
            relay.mail(sender)
            code, answer = relay.rcpt(recipient)
            if code == 250:
                code, answer = relay.data(message.as_bytes())
    except smtplib.SMTPResponseException as error:
        code, answer = error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""
    except OSError as error:
        print(f"port 587 does not answer: {error}")
        return 1
    text = answer.decode("ascii", "replace")
    taken = re.search(r"queued as (\w+)", text)
    if code != 250 or not taken:
        print(f"the relay answered {code} {text}")
        return 1
    while waiting(taken[1]):
        if time.monotonic() - began > 1.8:
            print(f"message {taken[1]} was taken, but is still in the queue")
            return 1
        time.sleep(0.02)
    print(f"taken, signed and discarded in {time.monotonic() - began:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
