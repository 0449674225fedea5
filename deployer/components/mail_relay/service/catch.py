#!/usr/bin/python3
"""Puts the message on standard input into a Maildir: what would leave stays on this machine (`catch: true`).

Called by Postfix's pipe(8), which has put Return-Path, X-Original-To and Delivered-To in front.

    catch.py MAILDIR
"""

from __future__ import annotations

import os
import sys
import time

# sysexits.h: Postfix keeps the mail and tries again.
EX_TEMPFAIL = 75


def main(folder: str) -> int:
    name = f"{time.time():.6f}.{os.getpid()}.catch"
    temporary, final = os.path.join(folder, "tmp", name), os.path.join(folder, "new", name)
    try:
        os.umask(0o077)
        for part in ("tmp", "new", "cur"):
            os.makedirs(os.path.join(folder, part), exist_ok=True)
        with open(temporary, "xb") as file:
            while chunk := sys.stdin.buffer.read(1 << 16):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, final)
    except OSError as error:
        print(f"cannot write to {folder}: {error.strerror}", file=sys.stderr)
        return EX_TEMPFAIL
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
