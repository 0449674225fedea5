#!/usr/bin/python3
"""Makes and renews this machine's leaf certificates, signed by the machine's own issuer.

Runs as root, when something was deployed and once a day. Reads

    issuer.key, issuer.crt   the machine's issuer, itself signed by the stack's CA
    leaves.d/NAME.json       {"names": [DNS name or address, ...], "owner": user, "reload": [unit, ...]}

below /etc/deploy/pki and writes leaves/NAME.pem (key and chain), NAME.key and NAME.crt (leaf and issuer).
NAME.pem is the truth: it appears whole or not at all, and the other two are its parts. Units are told once a
new certificate is in place; a note of that is kept, so a run that was killed in between is made good.
"""

from __future__ import annotations

import argparse
import datetime
import grp
import hashlib
import ipaddress
import json
import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = datetime.timedelta(days=90)
RENEW = datetime.timedelta(days=30)
# Clocks of two machines may differ.
BACKDATE = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Leaf:
    """What leaves.d/NAME.json asks for."""

    name: str
    names: tuple[str, ...]
    owner: str
    reload: tuple[str, ...]


class Store:
    """The folder of the PKI. Nothing here knows systemd."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.issuer_pem = (folder / "issuer.crt").read_bytes()
        self.issuer = x509.load_pem_x509_certificate(self.issuer_pem)
        self._issuer_key = serialization.load_pem_private_key((folder / "issuer.key").read_bytes(), None)
        if _public(self.issuer.public_key()) != _public(self._issuer_key.public_key()):
            raise ValueError("issuer.key does not belong to issuer.crt")

    def wanted(self) -> list[Leaf]:
        found = []
        for path in sorted((self.folder / "leaves.d").glob("*.json")):
            data = json.loads(path.read_text(encoding="utf-8"))
            found.append(
                Leaf(
                    path.stem, tuple(data["names"]), data.get("owner", "root"), tuple(data.get("reload", ()))
                )
            )
        return found

    def reason(self, leaf: Leaf, now: datetime.datetime) -> str:
        """Why the leaf has to be made again; "" when it is good."""
        try:
            pem = self._path(leaf, "pem").read_bytes()
            serialization.load_pem_private_key(pem, None)
            chain = x509.load_pem_x509_certificates(pem)
        except FileNotFoundError:
            return "there is none"
        except ValueError as error:
            return f"it is damaged ({error})"
        if names_of(chain[0]) != normal(leaf.names):
            return "its names changed"
        if len(chain) != 2 or chain[1] != self.issuer:
            return "the issuer changed"
        ends = chain[0].not_valid_after_utc
        # A leaf never outlives its issuer; when the issuer ends soon, making the leaf again would gain nothing.
        if ends - now < RENEW and min(
            now + VALID, self.issuer.not_valid_after_utc
        ) - ends > datetime.timedelta(days=1):
            return f"it ends on {ends:%Y-%m-%d}"
        return ""

    def make(self, leaf: Leaf, now: datetime.datetime) -> None:
        """Write a new key and certificate to NAME.pem."""
        if self.issuer.not_valid_after_utc <= now:
            raise ValueError(
                f"the machine's issuer ended on {self.issuer.not_valid_after_utc:%Y-%m-%d}; run deploy up"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, leaf.names[0][:64])]))
            .issuer_name(self.issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(min(now + VALID, self.issuer.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(_general_names(leaf.names)), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._issuer_key.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
            .sign(self._issuer_key, _hash(self._issuer_key))  # type: ignore[arg-type]
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self.issuer.public_bytes(
            serialization.Encoding.PEM
        )
        write(self._path(leaf, "pem"), private + chain, 0o400, leaf.owner)

    def spread(self, leaf: Leaf) -> str:
        """Make NAME.key and NAME.crt the parts of NAME.pem, with the right owner and mode. Returns its digest."""
        pem = self._path(leaf, "pem").read_bytes()
        cut = pem.index(b"-----BEGIN CERTIFICATE-----")
        for suffix, data, mode in (("pem", pem, 0o400), ("key", pem[:cut], 0o400), ("crt", pem[cut:], 0o444)):
            path = self._path(leaf, suffix)
            # The service may read its certificate, not replace it.
            owner = leaf.owner if mode == 0o400 else pwd.getpwuid(os.geteuid()).pw_name
            if not _is(path, data, mode, owner):
                write(path, data, mode, owner)
        return hashlib.sha256(pem).hexdigest()

    def _path(self, leaf: Leaf, suffix: str) -> Path:
        return self.folder / "leaves" / f"{leaf.name}.{suffix}"


def normal(names: tuple[str, ...]) -> set[str]:
    """Names as a set, addresses in one spelling."""
    return {str(_address(name) or name.lower()) for name in names}


def names_of(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value).lower() for name in found}


def _general_names(names: tuple[str, ...]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        address = _address(name)
        found.append(x509.IPAddress(address) if address else x509.DNSName(name.lower()))
    return found


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _hash(key: object) -> hashes.HashAlgorithm | None:
    """Ed25519 has its hash inside."""
    return None if "Ed25519" in type(key).__name__ else hashes.SHA256()


def _public(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _is(path: Path, data: bytes, mode: int, owner: str) -> bool:
    try:
        info = path.stat()
        return (info.st_mode & 0o7777, info.st_uid) == (
            mode,
            pwd.getpwnam(owner).pw_uid,
        ) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def write(path: Path, data: bytes, mode: int, owner: str) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    user = pwd.getpwnam(owner)
    group = grp.getgrgid(user.pw_gid).gr_gid
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fchown(file.fileno(), user.pw_uid, group)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    new.replace(path)


def tell(leaf: Leaf, digest: str, notes: Path) -> None:
    """Reload the leaf's units if they are active, once for each certificate."""
    note = notes / leaf.name
    if note.exists() and note.read_text(encoding="utf-8") == digest:
        return
    if leaf.reload:
        subprocess.run(["systemctl", "try-reload-or-restart", "--", *leaf.reload], check=True, timeout=120)
    note.write_text(digest, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make and renew this machine's certificates.")
    parser.add_argument("--folder", type=Path, default=Path("/etc/deploy/pki"))
    parser.add_argument("--notes", type=Path, default=Path("/var/lib/deploy/certs"))
    options = parser.parse_args()
    store = Store(options.folder)
    for folder in (options.folder / "leaves", options.notes):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    failed = 0
    for leaf in store.wanted():
        try:
            now = datetime.datetime.now(datetime.UTC)
            if why := store.reason(leaf, now):
                print(f"{leaf.name}: made, because {why}")
                store.make(leaf, now)
            tell(leaf, store.spread(leaf), options.notes)
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            # The other certificates are not to end because of this one.
            print(f"{leaf.name}: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
