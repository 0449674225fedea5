"""Commands about the queue and how their answers are read."""

from __future__ import annotations

import json

import pytest

from deployer.components.mail_relay import actions
from deployer.core.errors import DeployError


def entry(queue: str, arrival: int, *reasons: str) -> str:
    recipients = [{"address": "bob@elsewhere.example", "delay_reason": reason} for reason in reasons]
    return json.dumps(
        {"queue_name": queue, "arrival_time": arrival, "recipients": recipients or [{"address": "x"}]}
    )


def test_an_empty_queue() -> None:
    assert actions.parse_queue("") == actions.QueueStatus()


def test_counts_age_and_reasons() -> None:
    lines = [
        entry("deferred", 30, "refused", "timed out"),
        entry("deferred", 20, "refused"),
        entry("hold", 40),
    ]
    lines += [entry("active", 50), entry("incoming", 60)]
    assert actions.parse_queue("\n".join(lines)) == actions.QueueStatus(
        active=2, deferred=2, held=1, oldest=20, reasons=(("refused", 2), ("timed out", 1))
    )


def test_another_answer_is_an_error() -> None:
    with pytest.raises(DeployError, match="mail queue on demo-mail-1"):
        actions.parse_queue("postqueue: fatal: Queue report unavailable", "demo-mail-1")


def test_commands_are_argument_lists() -> None:
    assert actions.queue_flush() == ("postqueue", "-f")
    assert actions.queue_hold() == ("postsuper", "-h", "ALL")
    assert actions.queue_release() == ("postsuper", "-H", "ALL")
