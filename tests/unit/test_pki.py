"""Keys by their kinds; certificates checked by the verifiers that will meet them."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from deployer.core.component import Secret
from deployer.core.keytext import public_ssh, split_pem
from deployer.pki import authority, keys
from deployer.pki.generator import Generator

DOMAIN = "demo.test"
MACHINE = "demo-all-1"


@pytest.fixture(scope="module")
def root() -> str:
    return authority.root("demo")


@pytest.fixture(scope="module")
def issuer(root: str) -> str:
    return authority.issuer(root, MACHINE, DOMAIN)


def parsed(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def leaf(issuer: str, *names: str) -> str:
    """A certificate for `names`, as a machine signs it."""
    key, certificate = split_pem(issuer)
    signer = load_pem_private_key(key.encode(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    parent = parsed(certificate)
    own = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    parent_id = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]))
        .issuer_name(parent.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(parent_id), critical=False
        )
        .sign(signer, SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


NAMES = [
    (f"{MACHINE}.{DOMAIN}", True),
    (DOMAIN, True),
    (f"matrix.{DOMAIN}", True),
    (MACHINE, True),
    ("localhost", True),
    ("127.0.0.1", True),
    ("::1", True),
    ("10.213.0.10", True),
    ("example.org", False),
    (f"not{DOMAIN}", False),
    ("test", False),
]


@pytest.mark.parametrize(("name", "good"), NAMES)
def test_an_issuer_names_its_stack_only_for_cryptography(
    root: str, issuer: str, name: str, good: bool
) -> None:
    try:
        subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    verifier = PolicyBuilder().store(Store([parsed(root)])).build_server_verifier(subject)  # type: ignore[arg-type]
    chain = (parsed(leaf(issuer, name)), [parsed(issuer)])
    if good:
        assert len(verifier.verify(*chain)) == 3
    else:
        with pytest.raises(VerificationError):
            verifier.verify(*chain)


@pytest.mark.parametrize(("name", "good"), NAMES)
def test_an_issuer_names_its_stack_only_for_openssl(
    root: str, issuer: str, name: str, good: bool, tmp_path: Path
) -> None:
    for file, text in (
        ("root", split_pem(root)[1]),
        ("issuer", split_pem(issuer)[1]),
        ("leaf", leaf(issuer, name)),
    ):
        (tmp_path / file).write_text(text)
    command = ["openssl", "verify", "-x509_strict", "-CAfile", "root", "-untrusted", "issuer", "leaf"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode == 0) is good, done.stdout + done.stderr
    if not good:
        assert "permitted subtree violation" in done.stdout + done.stderr


def test_an_issuer_makes_no_further_issuer(root: str, issuer: str, tmp_path: Path) -> None:
    below = authority.issuer(issuer, "other", DOMAIN)
    chain = split_pem(issuer)[1] + split_pem(below)[1]
    for file, text in (("root", split_pem(root)[1]), ("chain", chain), ("leaf", leaf(below, DOMAIN))):
        (tmp_path / file).write_text(text)
    command = ["openssl", "verify", "-CAfile", "root", "-untrusted", "chain", "leaf"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert "path length constraint exceeded" in done.stdout + done.stderr


def test_times(root: str, issuer: str) -> None:
    now = datetime.now(UTC)
    assert (
        timedelta(days=20 * 365 - 1) < parsed(root).not_valid_after_utc - now < timedelta(days=20 * 365 + 1)
    )
    assert timedelta(days=10 * 365 - 1) < parsed(issuer).not_valid_after_utc - now < timedelta(days=3651)
    assert parsed(root).not_valid_before_utc < now - timedelta(hours=23)


def test_a_secret_of_an_authority_has_key_and_certificate(root: str) -> None:
    key, certificate = split_pem(root)
    assert key.startswith("-----BEGIN PRIVATE KEY-----\n") and key.endswith("-----END PRIVATE KEY-----\n")
    assert certificate.startswith("-----BEGIN CERTIFICATE-----\n")
    assert root == key + certificate


def test_a_long_machine_name_fits(root: str) -> None:
    assert parsed(authority.issuer(root, 63 * "a", DOMAIN))


def test_public_half_of_an_ssh_key(tmp_path: Path) -> None:
    private = keys.ssh()
    (tmp_path / "key").write_text(private)
    (tmp_path / "key").chmod(0o600)
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", tmp_path / "key"], check=True, capture_output=True, text=True
    )
    assert public_ssh(private) == " ".join(shown.stdout.split()[:2])
    with pytest.raises(ValueError, match="not a private key"):
        public_ssh("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def test_the_dkim_key_is_what_every_receiver_checks() -> None:
    key = load_pem_private_key(keys.rsa().encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey) and key.key_size == 2048


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("password", r"[A-Za-z0-9]{32}"),
        ("hex", r"[0-9a-f]{64}"),
        ("ed25519_seed", r"[A-Za-z0-9+/]{43}"),
        ("vapid", r"[A-Za-z0-9_-]{43} [A-Za-z0-9_-]{87}"),
        ("rsa", r"-----BEGIN PRIVATE KEY-----\n[\s\S]+"),
        ("ssh", r"-----BEGIN OPENSSH PRIVATE KEY-----\n[\s\S]+"),
        ("ca", r"-----BEGIN PRIVATE KEY-----\n[\s\S]+-----END CERTIFICATE-----\n"),
        ("issuer", r"-----BEGIN PRIVATE KEY-----\n[\s\S]+-----END CERTIFICATE-----\n"),
    ],
)
def test_kinds(root: str, kind: str, pattern: str) -> None:
    generator = Generator("demo", DOMAIN)
    made = [generator.make(Secret(f"pki/issuer/{MACHINE}", kind), {"pki/ca": root}) for _ in range(2)]
    assert made[0] != made[1]
    assert re.fullmatch(pattern, made[0])
    assert generator.purpose(Secret("x", kind)) == (DOMAIN if kind == "issuer" else "")
