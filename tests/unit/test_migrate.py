"""What `migrate` understands of a wish and of what the machines say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.components.moving import actions
from deployer.core.errors import DeployError, InputError
from deployer.core.finding import Finding
from deployer.core.moving import ENDED, MOVED, PREPARING, SETTLING, Move
from deployer.flow import foresight, handover, migrate, moves
from deployer.flow.migrate import Wish
from deployer.flow.moving_view import slot_trouble
from tests.rig.smpp_carrier import Carrier

BIND = Path(actions.__file__).parents[1] / "sms_gateway/service/bind.py"


def move(phase: str = PREPARING) -> Move:
    return Move("20261129T023000", "agora@hetzner", "agora@aws", 2, "2026-11-29T02:30:00+00:00", phase)


# --- the wish ---


def test_a_move_names_both_ends() -> None:
    assert migrate._ends(Wish("hetzner", "aws"), None) == ("hetzner", "aws")
    with pytest.raises(InputError, match="needs --from and --to"):
        migrate._ends(Wish(old="hetzner"), None)
    with pytest.raises(InputError, match="both hetzner"):
        migrate._ends(Wish("hetzner", "hetzner"), None)


def test_back_is_the_same_move_the_other_way() -> None:
    assert migrate._ends(Wish(back=True), move(MOVED)) == ("aws", "hetzner")
    for known in (None, move(PREPARING), move(SETTLING), move(ENDED)):
        with pytest.raises(InputError, match="no move of this stack could be taken back"):
            migrate._ends(Wish(back=True), known)


def test_resume_goes_on_with_what_is_under_way() -> None:
    for phase in (PREPARING, SETTLING):
        assert migrate._ends(Wish(resume=True), move(phase)) == ("hetzner", "aws")
    with pytest.raises(InputError, match="none is under way"):
        migrate._ends(Wish(resume=True), move(MOVED))


def test_one_move_at_a_time() -> None:
    moves.refuse(move(), "hetzner", "aws")
    moves.refuse(move(MOVED), "aws", "baremetal")
    with pytest.raises(InputError, match=r"has begun .* and has not ended") as caught:
        moves.refuse(move(), "hetzner", "baremetal")
    assert "--give-up" in caught.value.next


# --- what the machines say ---


def sides(fence: str = "reopened", why: str = "the deadline has passed") -> Any:
    """Both sides of a move, whose old one says this of its fence."""
    status = actions.status({"fence": {"state": fence, "why": why}})
    return SimpleNamespace(move=move(), lead=lambda side: "agora-all-1", status=lambda side: status)


def cutover(**more: Any) -> actions.Cutover:
    return actions.status(
        {"cutover": {"phase": "files", "error": {"why": "the disk is full"}, **more}}
    ).cutover


def test_what_was_taken_back_says_that_the_old_side_serves() -> None:
    error = handover._failure(sides(), cutover(state="failed"))
    assert isinstance(error, handover.TakenBackError)
    assert "the disk is full. agora@hetzner serves as before (it has opened again" in error.why


def test_after_the_permit_the_new_side_is_the_live_one() -> None:
    error = handover._failure(sides("permitted", ""), cutover(state="failed", permit="given"))
    assert not isinstance(error, handover.TakenBackError)
    assert "agora@aws is the live side" in error.why and "--resume" in error.next


def test_a_lost_answer_is_told_as_what_it_is() -> None:
    error = handover._failure(sides("permitted", ""), cutover(state="unknown", permit="asked"))
    assert "Both sides are closed" in error.why
    assert "--old-is-dead" in error.next and "it has given its permit" in error.next


def test_a_silent_old_side_is_told() -> None:
    def silent(side: str) -> actions.Status:
        raise DeployError("connecting", "no SSH within 20 s")

    found = sides()
    found.status = silent
    why = handover._failure(found, cutover(state="failed")).why
    # Nobody knows whether it serves, so nobody says so.
    assert "which does not answer (no SSH within 20 s)" in why and "serves" not in why


def test_status_of_a_machine_that_knows_nothing() -> None:
    found = actions.status({})
    assert (found.standby.state, found.cutover.state, found.cutover.permit) == ("none", "none", "none")
    assert found.cutover.pause == 0


# --- the way back ---


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((), "lost: its slot is gone"),
        (("lost", "f", "0"), "what it would need was removed"),
        (("unreserved", "f", "0"), "what it would need was removed"),
        (("reserved", "f", "33554432"), "does not follow now, 32 MiB wait"),
        (("extended", "t", "1073741824"), "1024 MiB behind"),
        (("reserved", "t", "1024"), ""),
    ],
)
def test_a_slot_tells_of_the_way_back(row: tuple[str, ...], says: str) -> None:
    found = slot_trouble(row)
    assert (says in found) if says else (found == "")


# --- carriers, from a machine that they have never seen ---


def ask(*carriers: dict[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, BIND], input=json.dumps(carriers), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_carrier_is_asked_without_leaving_a_trace() -> None:
    with Carrier("one", "secretc1", host="127.0.0.1", port=0) as carrier:
        account = {"name": "a", "host": "127.0.0.1", "port": carrier.port, "tls": False}
        account |= {"system_id": "one", "password": "secretc1", "system_type": ""}
        good, wrong, dead = ask(
            account,
            {**account, "name": "b", "password": "wrong"},
            {**account, "name": "c", "port": 1},
        )
    assert good == {"name": "a", "ok": True, "text": f"127.0.0.1:{account['port']} lets us in"}
    assert not wrong["ok"] and "refuses" in wrong["text"]
    assert not dead["ok"] and "refused" in dead["text"]
    assert "secretc1" not in str((good, wrong, dead))


def test_what_was_verified_is_told_in_words() -> None:
    checks = [
        {"name": "positions", "good": True, "text": "old ended at 0/1, new replayed to 0/2"},
        {"name": "forwarding", "good": False, "text": "the old side does not answer"},
    ]
    assert tuple(map(str, cutover(checks=checks).checks)) == (
        "positions: old ended at 0/1, new replayed to 0/2",
        "NOT GOOD: forwarding: the old side does not answer",
    )


@pytest.mark.parametrize(
    ("fence", "taken_back", "says"),
    [
        ("reopened", True, "agora@hetzner serves as before"),
        ("permitted", False, "agora@aws is the live side"),
    ],
)
def test_when_the_new_side_is_silent_the_old_ones_word_counts(
    fence: str, taken_back: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 15))
    monkeypatch.setattr(handover.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(handover.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(handover, "_look", lambda sides: None)
    with pytest.raises(DeployError, match=says) as caught:
        handover.follow(sides(fence), 20)
    assert isinstance(caught.value, handover.TakenBackError) is taken_back
    assert caught.value.next and next(clock) < 300


# --- before the question ---


def told(*findings: Finding) -> list[tuple[str, str]]:
    """Kind and text of what an operator hears of the findings."""
    heard: list[tuple[str, str]] = []
    project = SimpleNamespace(inventory=SimpleNamespace(provider="aws"))
    session: Any = SimpleNamespace(project=project, sink=lambda event: heard.append((event.kind, event.text)))
    for one in findings:
        foresight._tell(session, one)
    return heard


def test_the_price_and_a_long_memory_are_told_before_the_question() -> None:
    assert told(
        Finding("vendor.price", "ok", "price", "agora-all-1", "t3.medium, 30.00 USD a month"),
        Finding(
            "dns.ttl", "warn", "TTL of what moves", "social.test", "A of it 3600 s", "deploy up sets them"
        ),
        Finding("vendor.credentials", "ok", "credentials", "aws", "good"),
    ) == [
        ("notice", "price: agora-all-1: t3.medium, 30.00 USD a month"),
        ("warning", "TTL of what moves: social.test: A of it 3600 s (deploy up sets them)"),
    ]


def test_a_vendor_that_has_no_room_stops_it_before_the_question() -> None:
    with pytest.raises(InputError, match="no machine more may be made") as caught:
        told(Finding("vendor.quota", "fail", "quota", "aws", "no machine more may be made", "ask for more"))
    assert caught.value.next == "ask for more"


def test_what_was_moved_is_told_in_bytes() -> None:
    found = actions.status({"cutover": {"bytes": {"database": 5, "files": 7, "in the pause": 1}}}).cutover
    assert found.bytes == {"database": 5, "files": 7, "in the pause": 1}
