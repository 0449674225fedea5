"""Commands about the queue, for flows to send by `run`. Each prints one JSON object with what waits."""

from __future__ import annotations

from deployer.components.sms_gateway import layout


def _queue(action: str) -> tuple[str, ...]:
    return (
        *("runuser", "-u", layout.USER, "--", "env", "PYTHONPATH=/usr/local/lib/deploy"),
        *(
            "PYTHONDONTWRITEBYTECODE=1",
            "/usr/bin/python3",
            "-m",
            "sms_gateway",
            layout.CONFIG,
            "queue",
            action,
        ),
    )


def queue_status() -> tuple[str, ...]:
    """{"queued": n, "held": n, "sending": n, "holding": bool}"""
    return _queue("status")


def queue_hold() -> tuple[str, ...]:
    """Keep what waits and what comes, until it is released. What Kannel has goes on; stop its units for that."""
    return _queue("hold")


def queue_release() -> tuple[str, ...]:
    """Let everything go that has not expired."""
    return _queue("release")
