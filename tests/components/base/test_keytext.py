"""Keys and certificates as text."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization

from deployer.core.keytext import public_ssh, split_pem
from deployer.pki import keys
from tests.components.base.world import secrets


def test_the_public_half_is_the_one_that_the_library_finds() -> None:
    private = keys.ssh()
    key = serialization.load_ssh_private_key(private.encode(), None)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert public_ssh(private) == public.decode()
    assert public_ssh(private, "a b") == f"{public.decode()} a b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n!!!!\n-----END OPENSSH PRIVATE KEY-----",
        base64.b64encode(b"openssh-key-v1\0\0\0\0\xff").decode(),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        public_ssh(text)


def test_a_secret_splits_into_key_and_certificate() -> None:
    key, certificates = split_pem(secrets()["pki/ca"])
    assert key.startswith("-----BEGIN PRIVATE KEY-----\n") and key.endswith("-----END PRIVATE KEY-----\n")
    assert certificates.startswith("-----BEGIN CERTIFICATE-----\n") and "PRIVATE" not in certificates
    for half in (key, certificates):
        with pytest.raises(ValueError, match="followed by its certificate"):
            split_pem(half)
