"""Commands about the queue, for flows to send by `run`, and the meaning of their answers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

from deployer.core.errors import DeployError


@dataclass(frozen=True)
class QueueStatus:
    """Messages in each queue. oldest: arrival of the oldest one (seconds since 1970, 0 when empty).

    reasons: why messages wait, with how many recipients each, most frequent first.
    """

    active: int = 0
    deferred: int = 0
    held: int = 0
    oldest: int = 0
    reasons: tuple[tuple[str, int], ...] = field(default=())


def queue_status() -> tuple[str, ...]:
    """One JSON object a line for each message; see `parse_queue`."""
    return ("postqueue", "-j")


def parse_queue(output: str, machine: str = "") -> QueueStatus:
    """Reads what `queue_status` printed. Raises DeployError when it is something else."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    oldest = 0
    try:
        for line in output.splitlines():
            message = json.loads(line)
            counts[message["queue_name"]] += 1
            oldest = min(oldest or message["arrival_time"], message["arrival_time"])
            for recipient in message["recipients"]:
                if reason := recipient.get("delay_reason"):
                    reasons[reason] += 1
    except (ValueError, KeyError, TypeError) as error:
        raise DeployError(
            "reading the mail queue",
            f"unexpected answer ({error!r})",
            "see `postqueue -p` there",
            machine=machine or None,
            detail=output[-500:],
        ) from None
    return QueueStatus(
        active=counts["active"] + counts["incoming"] + counts["maildrop"],
        deferred=counts["deferred"],
        held=counts["hold"],
        oldest=oldest,
        reasons=tuple(reasons.most_common()),
    )


def queue_flush() -> tuple[str, ...]:
    """Try everything that waits now, such as after a smarthost was replaced."""
    return ("postqueue", "-f")


def queue_hold() -> tuple[str, ...]:
    """Keep all that is in the queue until it is released. What comes later goes out; stop Postfix for that."""
    return ("postsuper", "-h", "ALL")


def queue_release() -> tuple[str, ...]:
    """Let everything go that is held."""
    return ("postsuper", "-H", "ALL")
