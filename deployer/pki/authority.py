"""The stack's own certificate authority: a root in the bundle, and an issuer of its own for every machine.

A machine signs its leaves itself, so certificates renew while no operator is there. Should a machine be taken
over, its issuer can name hosts of the stack's domain and nothing else of the world (RFC 5280, 4.2.1.10).
IP addresses are left open: machines are reached by name, and addresses of a deployment change.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from deployer.core.keytext import split_pem

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ROOT_DAYS = 20 * 365
ISSUER_DAYS = 10 * 365
_OTHER_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)
# A machine's clock may be behind ours on its first boot.
_BACKDATED = timedelta(days=1)


def root(name: str) -> str:
    """A self-signed root: PEM key (PKCS8, EC P-256) followed by the certificate. name: shown in browsers."""
    from cryptography import x509

    key = _new_key()
    subject = _name(f"{name} root")
    builder = _builder(subject, subject, key.public_key(), ROOT_DAYS, path_length=1)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(x509.AuthorityKeyIdentifier(own.digest, None, None), critical=False)
    return _pem(key) + _signed(builder, key)


def issuer(authority: str, machine: str, domain: str) -> str:
    """An intermediate for one machine, signed by `authority` (a value of `root`): PEM key, then certificate.

    It may name `domain` and what lies below it, the machine's short name and localhost.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key_text, certificate_text = split_pem(authority)
    parent_key = load_pem_private_key(key_text.encode("ascii"), None)
    if not isinstance(parent_key, EllipticCurvePrivateKey):
        raise ValueError("the root's key is not an EC key")
    parent = x509.load_pem_x509_certificate(certificate_text.encode("ascii"))
    key = _new_key()
    builder = _builder(
        _name(f"{machine} issuer"), parent.subject, key.public_key(), ISSUER_DAYS, path_length=0
    )
    parent_id = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    permitted = [x509.DNSName(name) for name in (domain, machine, "localhost")]
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(parent_id), critical=False
    ).add_extension(x509.NameConstraints(permitted, None), critical=True)
    return _pem(key) + _signed(builder, parent_key)


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    # 64 characters are the upper bound of a common name (RFC 5280, appendix A).
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[-64:])])


def _builder(
    subject: x509.Name, parent: x509.Name, public: object, days: int, path_length: int
) -> x509.CertificateBuilder:
    """What root and issuer have in common."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    if not isinstance(public, EllipticCurvePublicKey):
        raise TypeError("an EC public key is needed")
    now = datetime.now(UTC).replace(microsecond=0)
    never = dict.fromkeys(_OTHER_USES, False)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **never), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def _pem(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
