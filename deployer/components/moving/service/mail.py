"""Postfix's queue, whose files another machine wrote."""

from __future__ import annotations

import subprocess
from typing import Any

from ground import Failure, last
from sending import POSTFIX


def queues(config: dict[str, Any]) -> None:
    """Postfix makes the folders of its queue when it first starts, and here it may never have: before people wait for it."""
    if not any(item["where"] == POSTFIX for item in config["copies"]):
        return
    what, next = "making the folders of Postfix's queue", "see `postfix check`"
    words = ["postfix", "post-install", "create-missing"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(what, str(error), next) from None
    if done.returncode:
        raise Failure(what, last(done.stderr), next)


def structure(config: dict[str, Any]) -> None:
    """Postfix names a message after its file's number on this disk. Before it starts here."""
    if not any(item["where"] == POSTFIX for item in config["copies"]):
        return
    for _ in range(3):
        try:
            done = subprocess.run(["postsuper", "-s"], capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure("naming the copied mail", str(error), "see `postsuper -s`") from None
        if done.returncode:
            raise Failure("naming the copied mail", last(done.stderr), "see `postsuper -s`")
        # "run postsuper again": names were taken by other messages.
        if "again" not in done.stderr + done.stdout:
            return
