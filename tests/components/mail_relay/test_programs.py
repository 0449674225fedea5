"""The programs that run on the mail machine, run here by their files."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import dkim
import pytest

import deployer
from deployer.components.mail_relay.dkim import public_record
from deployer.components.mail_relay.smarthosts import passwords
from tests.components.mail_relay.world import FIRST, OPEN, SECOND, rsa_key

SERVICE = Path(deployer.__file__).parent / "components" / "mail_relay" / "service"

HEADERS = [
    ("From", "Démo <noreply@example.test>".encode()),
    ("To", b"bob@elsewhere.example"),
    ("Subject", b"a long\n one"),
    ("Date", b"Tue, 24 Nov 2026 17:00:00 +0000"),
    ("List-Unsubscribe", b"<https://example.test/u/1>"),
]
BODY = b"hello  there  \r\n\r\n"


def program(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, SERVICE / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def signer() -> ModuleType:
    return program("dkim_signer")


def message(headers: list[tuple[str, bytes]]) -> bytes:
    return b"".join(
        name.encode() + b": " + value.replace(b"\n", b"\r\n") + b"\r\n" for name, value in headers
    )


def verifies(text: bytes) -> bool:
    record = public_record(rsa_key()).encode()
    return bool(dkim.verify(text, dnsfunc=lambda name, timeout=5: record))


def signed(signer: ModuleType, headers: list[tuple[str, bytes]] = HEADERS) -> list[tuple[str, bytes]]:
    value = signer.sign(headers, BODY, "example.test", "deploy1", rsa_key().encode())
    return [("DKIM-Signature", value.encode()), *headers]


def test_the_published_key_verifies_what_the_signer_signs(signer: ModuleType) -> None:
    headers = signed(signer)
    assert verifies(message(headers) + b"\r\n" + BODY)
    assert not verifies(message(headers) + b"\r\n" + BODY + b"more")
    assert b"d=example.test" in headers[0][1] and b"s=deploy1" in headers[0][1]


@pytest.mark.parametrize(
    "name", ["From", "To", "Subject", "Date", "List-Unsubscribe", "List-Unsubscribe-Post"]
)
def test_nobody_can_add_a_header_that_readers_trust(signer: ModuleType, name: str) -> None:
    headers = signed(signer)
    assert not verifies(message([*headers, (name, b"x@evil.example")]) + b"\r\n" + BODY)


def test_a_relay_may_add_its_own(signer: ModuleType) -> None:
    assert verifies(message([("Received", b"from somewhere"), *signed(signer)]) + b"\r\n" + BODY)


def test_a_subdomain_is_signed_by_the_domain(signer: ModuleType) -> None:
    headers = [("From", b"root@app.example.test"), *HEADERS[1:]]
    assert verifies(message(signed(signer, headers)) + b"\r\n" + BODY)


@pytest.mark.parametrize(
    "headers",
    [
        [("From", b"x@elsewhere.example")],
        [("From", b"x@notexample.test")],
        [("From", b"nobody")],
        [("To", b"bob@elsewhere.example")],
        [("From", b"noreply@example.test"), ("from", b"x@elsewhere.example")],
    ],
)
def test_what_is_not_ours_is_refused(signer: ModuleType, headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(signer.ForeignSender):
        signer.sign(headers, BODY, "example.test", "deploy1", rsa_key().encode())


def test_public_record_is_what_cryptography_says() -> None:
    import base64

    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(rsa_key().encode(), None)
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert public_record(rsa_key()) == f"v=DKIM1; k=rsa; p={base64.b64encode(spki).decode()}"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIBVQ==\n-----END PRIVATE KEY-----",
    ],
)
def test_a_damaged_key_is_said_to_be_one(key: str) -> None:
    with pytest.raises(ValueError, match="DKIM key"):
        public_record(key)


def test_caught_mail_is_a_file_of_the_maildir(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, SERVICE / "catch.py", tmp_path], input=b"To: x\n\nhello\n", check=False
    )
    assert run.returncode == 0
    (kept,) = (tmp_path / "new").iterdir()
    assert kept.read_bytes() == b"To: x\n\nhello\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not list((tmp_path / "tmp").iterdir())


def test_mail_that_cannot_be_caught_stays_in_the_queue(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    run = subprocess.run([sys.executable, SERVICE / "catch.py", blocked], input=b"x", check=False)
    assert run.returncode == os.EX_TEMPFAIL


def test_a_store_is_bounded_by_age_and_size(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for age, name in ((40, "old"), (3, "middle"), (2, "newer"), (1, "newest")):
        (new / name).write_bytes(b"x" * 100)
        at = time.time() - age * 86400
        os.utime(new / name, (at, at))
    subprocess.run([sys.executable, SERVICE / "prune.py", tmp_path, "30", "1000"], check=True)
    assert {path.name for path in new.iterdir()} == {"middle", "newer", "newest"}
    subprocess.run([sys.executable, SERVICE / "prune.py", tmp_path, "30", "250"], check=True)
    assert {path.name for path in new.iterdir()} == {"newer", "newest"}
    subprocess.run([sys.executable, SERVICE / "prune.py", tmp_path / "missing", "30", "250"], check=True)


def test_the_log_in_of_a_smarthost_is_found_by_its_next_hop(tmp_path: Path) -> None:
    table = tmp_path / "passwords"
    table.write_text(passwords((FIRST, SECOND, OPEN)))
    login = program("smarthost").login
    assert login("[smtp.first.example]:587", table) == ("user", "first-password")
    assert login("[127.0.0.1]:10466", table) == ("other", "second-password")
    assert login("[relay.lan]:25", table) is None
