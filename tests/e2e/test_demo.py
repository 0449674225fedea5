"""What a newcomer does with the README in hand: up, sign up, up again, down."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Deployed
from tests.e2e.matrix import Person, number, signs_up_and_talks


def person(demo: Deployed) -> Person:
    digits = number()
    return Person(
        demo.doors,
        demo.domain,
        mail=f"reader{digits}@elsewhere.test",
        number=digits,
        mailbox=lambda to: demo.operator.inbox("mail", to),
        phone=lambda number: demo.operator.inbox("sms", number.removeprefix("0")),
    )


def test_up_ends_with_every_probe_green(demo: Deployed) -> None:
    probes = demo.summary["probes"]
    assert isinstance(probes, list)
    assert probes and all(probe["ok"] for probe in probes), json.dumps(probes, indent=1)
    assert demo.summary["degraded"] == []


def test_up_again_changes_nothing(demo: Deployed) -> None:
    again = demo.operator.good("up", "--yes")
    assert again.result["changes"] == [] and again.result["changed"] == 0
    assert demo.operator.good("plan", "--exit-code").code == 0


def test_status_is_well(demo: Deployed) -> None:
    status = demo.operator.good("status").result
    assert status["ok"], status
    assert status["disks"]


def test_a_person_signs_up_and_talks(demo: Deployed) -> None:
    someone = person(demo)
    signs_up_and_talks(someone)


@pytest.mark.parametrize("missing", ["open_link", "enter_code"])
def test_neither_proof_can_be_left_out(demo: Deployed, missing: str) -> None:
    answer = person(demo).sign_up(**{missing: False})
    assert answer.status == 401 and "access_token" not in answer.json(), answer.body
