"""Who may take the lease. Also sent to the machines as it stands, so it imports nothing of ours."""

import time
from typing import Any


def decide(
    existing: dict[str, Any] | None, wanted: dict[str, Any], now: float, ours: list[str]
) -> dict[str, Any]:
    """Whether `wanted` may take the place of `existing` (the lease that lies there, or None).

    A lease is {"id", "holder", "pid", "taken", "expires", "seconds"}. `now` is this machine's clock, by which
    alone a lease is taken and expires: the operators' clocks may differ. `ours` are the ids of leases
    that ended processes of the asking computer held.

    Gives {"granted": bool, "why": str}, and when granted "lease": what to write in its place.
    """

    def grant(why: str, taken: float = now) -> dict[str, Any]:
        lease = {**wanted, "taken": taken, "expires": now + float(wanted["seconds"])}
        return {"granted": True, "why": why, "lease": lease}

    if not existing:
        return grant("nobody held it")
    try:
        who, taken = f"{existing['holder']} (process {existing['pid']})", float(existing["taken"])
        expires, seconds = float(existing["expires"]), float(existing["seconds"])
    except (KeyError, TypeError, ValueError):
        # Leases are renamed into place, so this is no half-written one; nothing of it can be waited for.
        return grant("what lay there was no lease")
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(taken))
    if existing.get("id") == wanted["id"]:
        return grant("renewed", taken)
    if existing.get("id") in ours:
        return grant(f"taken over from {who}, which ran on this computer and ended")
    if expires <= now:
        return grant(f"the one of {who} expired {now - expires:.0f} s ago")
    if expires - now > 2 * seconds:
        # The clock was set back (a first boot before the time is known): it would block for as long as that.
        return grant(f"the one of {who} was taken by a clock that has been set back since")
    left = f"it expires in {expires - now:.0f} s unless it is renewed"
    return {"granted": False, "why": f"held by {who} since {since}; {left}"}
