"""Codes that prove a number, as Bluesky's AppView asks for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from deployer.components.sms_gateway.service import verification
from deployer.components.sms_gateway.service.app import Service
from tests.components.sms_gateway.service import PASSWORD, made

ACTOR, PHONE = "did:plc:abcdefghijklmnopqrstuvwx", "+491701234567"
PROTO = {"content-type": "application/proto", "authorization": f"Bearer {PASSWORD}"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    found, _ = made(tmp_path)
    yield found
    found.store.close()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(service.public) as found:
        yield found


def call(client: TestClient, method: str, key: str = PASSWORD, **body: str) -> Any:
    return client.post(
        f"/rolodex.RolodexService/{method}", json=body, headers={"authorization": f"Bearer {key}"}
    )


def start(client: TestClient, actor: str = ACTOR, phone: str = PHONE) -> Any:
    return call(client, "StartPhoneVerification", actor=actor, phone=phone)


def verify(client: TestClient, code: str, actor: str = ACTOR, phone: str = PHONE) -> Any:
    return call(client, "VerifyPhone", actor=actor, phone=phone, verificationCode=code)


def texts(service: Service) -> list[str]:
    return [row["body"] for row in service.store.rows("SELECT body FROM messages ORDER BY created")]


def code(service: Service) -> str:
    found = re.search(r"\b\d{6}\b", texts(service)[-1])
    assert found
    return found[0]


def reason(answer: Any) -> str:
    """As the AppView reads it."""
    return str(answer.json()["details"][0]["debug"]["reason"])


def test_a_code_proves_a_number_once(service: Service, client: TestClient) -> None:
    assert start(client).json() == {}
    right = code(service)
    answer = verify(client, right)
    assert answer.status_code == 200 and len(answer.json()["token"]) > 20
    again = verify(client, right)
    assert again.status_code == 400 and reason(again) == "INVALID_CODE"


def test_as_the_appview_speaks_it(service: Service, client: TestClient) -> None:
    """Protobuf, byte by byte: field 1 actor, 2 phone, 3 the code; the answer's field 1 is the token."""

    def field(number: int, text: str) -> bytes:
        return bytes([number << 3 | 2, len(text)]) + text.encode()

    begun = client.post(
        "/rolodex.RolodexService/StartPhoneVerification",
        content=field(1, ACTOR) + field(2, PHONE),
        headers=PROTO,
    )
    assert (begun.status_code, begun.content) == (200, b"")
    assert begun.headers["content-type"] == "application/proto"
    proven = client.post(
        "/rolodex.RolodexService/VerifyPhone",
        content=field(1, ACTOR) + field(2, PHONE) + field(3, code(service)),
        headers=PROTO,
    )
    assert proven.status_code == 200 and proven.content[:2] == bytes([0x0A, len(proven.content) - 2])
    wrong = client.post("/rolodex.RolodexService/VerifyPhone", content=field(1, ACTOR)[:-3], headers=PROTO)
    assert wrong.status_code == 400 and wrong.json()["code"] == "invalid_argument"


def test_guesses_are_counted(service: Service, client: TestClient) -> None:
    start(client)
    right = code(service)
    other = f"{(int(right) + 1) % 1_000_000:06d}"
    for _ in range(verification.GUESSES):
        assert reason(verify(client, other)) == "INVALID_CODE"
    assert reason(verify(client, right)) == "INVALID_CODE"


def test_a_code_grows_old_and_a_newer_one_takes_its_place(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(client)
    first = code(service)
    start(client)
    assert first == code(service) or reason(verify(client, first)) == "INVALID_CODE"
    second, now = code(service), verification.time.time()
    monkeypatch.setattr(verification.time, "time", lambda: now + verification.HOLDS + 1)
    assert reason(verify(client, second)) == "INVALID_CODE"


def test_a_code_belongs_to_one_account_and_one_number(service: Service, client: TestClient) -> None:
    start(client)
    right = code(service)
    assert reason(verify(client, right, actor=ACTOR[:-1] + "y")) == "INVALID_CODE"
    assert reason(verify(client, right, phone="+491701234568")) == "INVALID_CODE"
    assert verify(client, right).status_code == 200


def test_codes_are_limited_by_account_and_by_number(service: Service, client: TestClient) -> None:
    for number in range(verification.CODES):
        assert start(client, phone=f"+49170123450{number}").status_code == 200
    refused = start(client, phone="+491701234599")
    assert refused.status_code == 429 and reason(refused) == "RATE_LIMIT_EXCEEDED"
    assert len(texts(service)) == verification.CODES
    codes = verification.Codes(service.store, "key")
    for number in range(verification.CODES):
        codes.make(f"{ACTOR[:-1]}{number + 2}", "+491701234598")
    with pytest.raises(verification.Refused, match="RATE_LIMIT_EXCEEDED"):
        codes.make(ACTOR[:-1] + "z", "+491701234598")


@pytest.mark.parametrize(
    ("actor", "phone", "why"), [("anna", PHONE, "INVALID_DID"), (ACTOR, "0170", "INVALID_PHONE")]
)
def test_what_is_no_account_or_number(client: TestClient, actor: str, phone: str, why: str) -> None:
    answer = start(client, actor, phone)
    assert answer.status_code == 400 and reason(answer) == why


def test_nobody_without_the_key(service: Service, client: TestClient) -> None:
    answer = call(client, "StartPhoneVerification", key="wrong", actor=ACTOR, phone=PHONE)
    assert answer.status_code == 401 and answer.json()["code"] == "unauthenticated"
    assert texts(service) == []


def test_neither_codes_nor_numbers_are_kept(service: Service, client: TestClient) -> None:
    start(client)
    kept = str([tuple(row) for row in service.store.rows("SELECT * FROM codes")])
    assert PHONE not in kept and code(service) not in kept


def test_address_books_are_none_of_ours(client: TestClient) -> None:
    answer = call(client, "ImportContacts", actor=ACTOR)
    assert answer.status_code == 501 and answer.json()["code"] == "unimplemented"
    assert call(client, "GetSyncStatus", actor=ACTOR).json() == {}
