"""`kill -9` of a verb at a moment of one's choice."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.scratch import within

Event = dict[str, Any]


def killed(process: subprocess.Popen[str], reached: Callable[[Event], bool], after: float) -> str:
    """Kill it `after` seconds behind the event; what it was doing, "" when it had ended well before."""
    assert process.stdout and process.stderr
    doing = ""
    try:
        for line in process.stdout:
            event = json.loads(line)
            doing = f"{event['kind']} {event.get('text')}"
            if reached(event):
                break
        else:
            assert process.wait(10) == 0, (doing, process.stderr.read())
            return ""
    except BaseException:
        process.kill()
        raise
    time.sleep(after)
    started = family(process.pid)
    process.kill()
    process.communicate(timeout=20)
    # The engine dies with its flow, and so does whatever that one had started here.
    within(5, "end of the killed run's children", lambda: not any(map(alive, started)))
    return doing


def family(process: int) -> list[tuple[int, str]]:
    """The process and its children, with the time at which each was started (an id may be used again)."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return [(one, _started(one)) for one in found]


def _started(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def alive(one: tuple[int, str]) -> bool:
    return bool(one[1]) and _started(one[0]) == one[1]
