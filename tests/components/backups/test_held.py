from __future__ import annotations

import pytest

from tests.components.backups.programs import load

holding, files, places = load("holding"), load("files"), load("places")

# As Kannel 1.4.5 wrote them into its store.
_END = b"\xff\xff\xff\xff" * 24
RECEIVED = (
    b"\0\0\0\x02\0\0\0\x08+4915199\0\0\0\x04demo\xff\xff\xff\xff\0\0\0\x05STOP2k\x06\x04\xa0"
    b"\0\0\0\x04none\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x07gateway\xff\xff\xff\xff"
    b"\0\0\0$f16e32d6-f59a-4427-bebe-122db69bb0a3\0\0\0\0" + _END
)
TO_SEND = (
    b"\0\0\0\x02\0\0\0\x04demo\0\0\0\n+491511234\0\0\0\0\0\0\0\x05hellok\x06\x04\x9d"
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x07gateway\xff\xff\xff\xff"
    b"\0\0\0$48de5521-ed60-457b-8046-8895c626e02b\0\0\0\x02" + _END
)


@pytest.mark.parametrize(
    ("packed", "outgoing"),
    [(RECEIVED, False), (TO_SEND, True), (TO_SEND[:60], False), (b"", False), (b"\0\0\0\x03" + _END, False)],
)
def test_what_kannel_had_to_send_is_told_from_what_it_received(packed: bytes, outgoing: bool) -> None:
    assert (holding.sms_type(packed) in holding.OUTGOING) is outgoing


@pytest.mark.parametrize(
    ("at", "minutes", "point"),
    [
        ("2026-11-24T21:04:59Z", 5, "2026-11-24T21:00:00Z"),
        ("2026-11-24T21:05:00Z", 5, "2026-11-24T21:05:00Z"),
        # As the timer's calendar: from each full hour on.
        ("2026-11-24T21:59:59Z", 7, "2026-11-24T21:56:00Z"),
        ("2026-11-24T21:59:59Z", 30, "2026-11-24T21:30:00Z"),
    ],
)
def test_a_point_is_the_time_at_which_all_timers_elapsed(at: str, minutes: int, point: str) -> None:
    assert files.floor(files.seconds(at), minutes) == point
