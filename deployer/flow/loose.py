"""Reading what may be anything: a file that an older toolkit or a person wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def number(found: object) -> float | None:
    """None for what is no number."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if math.isfinite(found) else None


def text(found: object) -> str:
    """In one line; "" for None."""
    return "" if found is None else " ".join(str(found).split())


def section(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = body.get(key)
    return found if isinstance(found, Mapping) else {}


def sequence(body: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = body.get(key)
    return found if isinstance(found, list | tuple) else ()


def texts(body: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(text(one) for one in sequence(body, key))


def moment(found: object) -> str:
    """Seconds since 1970 as a time of the day, to a tenth, UTC."""
    at = number(found)
    try:
        return datetime.fromtimestamp(at or 0, UTC).strftime("%H:%M:%S.%f")[:-5] if at else ""
    except (OverflowError, ValueError, OSError):
        return ""
