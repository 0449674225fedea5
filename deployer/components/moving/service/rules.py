"""The rules of the fence, without any effect: what the old side's record may become. Everything else obeys them.

    none -> armed -> held -> fenced -> permitted
              \\       |        /
               +-> reopening -> reopened -> armed (another attempt)

armed, held and fenced have a deadline. When it has passed, or the machine was started anew since, only reopening is
allowed. `permitted` is the end: the one permit to promote was given away, and nothing opens this side again by itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ground import Failure

OPENABLE = ("armed", "held", "fenced")
# A move that is not the newest one of this machine.
STALE = "end what asks here; see `deploy status`"


@dataclass(frozen=True)
class Fence:
    """deadline: seconds since that boot. held_at, permitted_at: seconds since 1970. lsn: where the database ended.

    peer: this machine has no database; it does as the one that has says.
    """

    id: str
    attempt: int
    state: str
    deadline: float
    boot: str
    max_pause: float = 0.0
    held_at: float = 0.0
    permitted_at: float = 0.0
    lsn: str = ""
    why: str = ""
    peer: bool = False

    def body(self) -> dict[str, Any]:
        return asdict(self)


def parse(body: dict[str, Any]) -> Fence | None:
    """None for no record."""
    if not body:
        return None
    known = {one.name for one in fields(Fence)}
    return Fence(**{name: value for name, value in body.items() if name in known})


@dataclass(frozen=True)
class Asked:
    """Who asks: the move, and which attempt of it."""

    id: str
    attempt: int


def same(fence: Fence, who: Asked) -> bool:
    return (fence.id, fence.attempt) == (who.id, who.attempt)


def over(fence: Fence, now: float, boot: str) -> str:
    """Why its time has passed, "" while it runs."""
    if fence.boot != boot:
        return "the machine was started anew"
    if now >= fence.deadline:
        return "the time that was given has passed"
    return ""


def arm(fence: Fence | None, who: Asked, now: float, boot: str, seconds: float, peer: bool = False) -> Fence:
    """From here the dead-man lives. The same request again changes nothing, nor its deadline."""
    what = "arming the fence"
    if fence and fence.state == "permitted":
        raise Failure(what, f"this side gave its permit away in the move {fence.id}", STALE)
    if fence and fence.state in OPENABLE and same(fence, who) and not over(fence, now, boot):
        return fence
    if fence and fence.state not in ("reopened",):
        why = f"the attempt {fence.attempt} of {fence.id} is {fence.state} and not yet reopened"
        raise Failure(what, why, "run it again in a minute")
    if fence and fence.id == who.id and who.attempt <= fence.attempt:
        raise Failure(what, f"attempt {who.attempt} is over; this side serves again ({fence.why})", STALE)
    return Fence(who.id, who.attempt, "armed", now + seconds, boot, peer=peer)


def _go_on(
    what: str, fence: Fence | None, who: Asked, now: float, boot: str, states: tuple[str, ...]
) -> Fence:
    if fence is None or not same(fence, who):
        have = f"attempt {fence.attempt} of {fence.id} is {fence.state}" if fence else "nothing is armed"
        raise Failure(what, f"{have} on this side, not attempt {who.attempt} of {who.id}", STALE)
    if fence.state in ("reopening", "reopened"):
        raise Failure(what, f"this side serves again: {fence.why}", "begin the switchover anew")
    if fence.state not in states:
        raise Failure(what, f"this side is {fence.state}", "a mistake of ours")
    if why := over(fence, now, boot):
        raise Failure(what, f"{why}; this side serves again", "begin the switchover anew")
    return fence


def hold(fence: Fence | None, who: Asked, now: float, boot: str, max_pause: float, at: float) -> Fence:
    """The pause begins. The same request again does not lengthen it."""
    fence = _go_on("holding requests", fence, who, now, boot, ("armed", "held"))
    if fence.state == "held":
        return fence
    return replace(fence, state="held", deadline=now + max_pause, max_pause=max_pause, held_at=at)


def held(what: str, fence: Fence | None, who: Asked, now: float, boot: str) -> Fence:
    """For what happens between holding and the permit."""
    return _go_on(what, fence, who, now, boot, ("held", "fenced"))


def fenced(fence: Fence, lsn: str) -> Fence:
    """The database has ended cleanly, at lsn."""
    assert fence.state in ("held", "fenced") and lsn
    return replace(fence, state="fenced", lsn=lsn)


def permit(fence: Fence | None, who: Asked, now: float, boot: str, at: float) -> Fence:
    """The one permit to promote. Whoever got it may hear it again; nobody else ever does."""
    if fence and fence.state == "permitted":
        if same(fence, who):
            return fence
        why = f"it was given to attempt {fence.attempt} of {fence.id}"
        raise Failure("giving the permit to promote", why, STALE)
    fence = _go_on("giving the permit to promote", fence, who, now, boot, ("fenced",))
    if fence.peer or not fence.lsn:
        raise Failure("giving the permit to promote", "this machine has no database", "a mistake of ours")
    return replace(fence, state="permitted", permitted_at=at)


def due(fence: Fence | None, now: float, boot: str) -> str:
    """Why the dead-man must reopen now; "" when he must not."""
    if fence is None:
        return ""
    if fence.state == "reopening":
        return fence.why or "its reopening broke off"
    return over(fence, now, boot) if fence.state in OPENABLE else ""


def reopen(fence: Fence | None, why: str, who: Asked | None = None) -> Fence | None:
    """Back to serving. None: there is nothing to put back. who: None for the operator and the dead-man."""
    if fence is None or fence.state == "reopened" or (who and not same(fence, who)):
        return None
    if fence.state == "permitted":
        why = f"it gave the permit to promote to the other side ({fence.id}), which may be live since"
        next = "go on with `deploy migrate --resume`, or come back with `deploy migrate --back`"
        raise Failure("reopening this side", why, next)
    return replace(fence, state="reopening", why=fence.why or why)


def told(fence: Fence, at: float) -> Fence:
    """A peer hears that its lead gave the permit."""
    return replace(fence, state="permitted", permitted_at=at)


def reopened(fence: Fence) -> Fence:
    assert fence.state == "reopening"
    return replace(fence, state="reopened")
