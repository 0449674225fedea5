"""A vendor of object storage: S3 over TLS with real signatures (rclone), its objects on disk, faults on demand.

    with Objects(folder, "east.social.test", (GATEWAY, 9001)) as east:
        inventory = east.section(trusted_ca="east.crt")     # and east.ca into that file
        east.damage("*/database/backup/*", "flip")

It ends with the process that started it, however that ends, and after LIMIT seconds at the latest. No versioning, no
object lock, no conditional writes: what a vendor's immutability is worth cannot be shown here.

Machines look the name up in DNS (`World.set_records`) and reach the gateway where the provider local is given the option
`reach: [tcp/PORT@ADDRESS]`; what runs beside the tests finds it by `known`.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from deployer.core.model import Repository

CHECKOUT = Path(__file__).resolve().parents[2]
RCLONE = Path(sys.executable).with_name("rclone")
# Seconds after which a vendor ends by itself: a little more than CI has for a whole run.
LIMIT = 6000
# Runs a program until its standard input ends (the test process is gone) or the time is up; says the program's PID.
# It waits for the program's death: until then its port is taken, and would answer for the one that comes next.
_BOUNDED = '"$@" & echo $!; timeout "$LIMIT" cat >/dev/null; kill -KILL $!; wait $! 2>/dev/null'

# Seconds after which a change on disk is seen.
CACHE = 0.2

Damage = Literal["delete", "truncate", "flip"]


class Objects:
    """One vendor. `folder` holds everything: store/BUCKET/KEY are the objects.

    host: the name that its certificate has, besides localhost. listen: address and port; port 0 takes a free one.
    """

    def __init__(
        self,
        folder: Path,
        host: str = "localhost",
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        bucket: str = "backups",
        name: str = "",
    ) -> None:
        self.folder, self.host, self.bucket = folder, host, bucket
        self.name = name or host.partition(".")[0]
        self.address, port = listen
        self.port = port or _free(self.address)
        self.key = f"KEY{secrets.token_hex(8).upper()}"
        self.secret = secrets.token_urlsafe(24)
        self.store = folder / "store"
        (self.store / bucket).mkdir(parents=True, exist_ok=True)
        self.ca = certificate(folder, host, self.address)
        self._processes: list[_Bounded] = []

    # --- life ---

    def __enter__(self) -> Objects:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it answers."""
        self._serve(self.address, self.port)

    def stop(self) -> None:
        """Switched off: connections are refused. The objects stay."""
        for process in self._processes:
            process.end()
        self._processes = []

    def vanish(self) -> None:
        """The vendor is gone with all that it held."""
        self.stop()
        for path in sorted(self.store.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def pause(self) -> None:
        """It takes connections and answers nothing."""
        for process in self._processes:
            process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in self._processes:
            process.signal(signal.SIGCONT)

    def slow(self, round_trip: float) -> None:
        """Answer this many milliseconds later from now on; 0 heals."""
        self.stop()
        if not round_trip:
            self.start()
            return
        behind = _free(self.address)
        self._serve(self.address, behind)
        way = f"{self.address}:{self.port}={self.address}:{behind}"
        command = [sys.executable, "-m", "tests.rig.delay", str(round_trip), way]
        self._processes.append(_Bounded(command, self.folder / "delay.log"))
        self._await(self.port)

    def _serve(self, address: str, port: int) -> None:
        command = [
            str(RCLONE),
            *("serve", "s3", "--config", "/dev/null", "--addr", f"{address}:{port}"),
            *("--cert", str(self.folder / "tls.crt"), "--key", str(self.folder / "tls.key")),
            # What a test does to the objects on disk is seen soon. With 0 each folder's timer would spin for ever.
            *("--dir-cache-time", f"{CACHE * 1000:.0f}ms", "--poll-interval", "0", "--log-level", "INFO"),
            str(self.store),
        ]
        # Not in argv: tests look there for secrets.
        environment = {"RCLONE_AUTH_KEY": f'"{self.key},{self.secret}"'}
        self._processes.append(_Bounded(command, self.folder / "rclone.log", environment))
        self._await(port)

    def _await(self, port: int) -> None:
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection((self.address, port), 1).close()
                return
            except OSError as error:
                if time.monotonic() > deadline or not self._processes[-1].alive:
                    log = self._processes[-1].log.read_text(errors="replace")[-2000:]
                    raise TimeoutError(
                        f"{self.name} does not listen at {self.address}:{port}: {log}"
                    ) from error
            time.sleep(0.05)

    # --- how it is named ---

    @property
    def endpoint(self) -> str:
        return f"https://{self.host}:{self.port}"

    @property
    def reach(self) -> str:
        """For the option `reach` of the provider local."""
        return f"tcp/{self.port}@{self.address}"

    def repository(self, prefix: str = "", **other: str) -> Repository:
        """The model's entry, as the project reads it. `other` replaces fields."""
        values = {
            "name": self.name,
            "endpoint": self.endpoint,
            "bucket": self.bucket,
            "prefix": prefix,
            "key": self.key,
            "secret": self.secret,
            "trusted_ca": self.ca,
        }
        return Repository(kind="s3", **{**values, **other})

    def section(self, trusted_ca: str, prefix: str = "") -> str:
        """An item of `repositories:` in an inventory. trusted_ca: the file of the project folder that gets `ca`."""
        return (
            f"  - name: {self.name}\n    kind: s3\n    endpoint: {self.endpoint}\n    bucket: {self.bucket}\n"
            f"    key: {self.key}\n    secret: {self.secret}\n    trusted_ca: {trusted_ca}\n"
            + (f"    prefix: {prefix}\n" if prefix else "")
        )

    @contextlib.contextmanager
    def known(self) -> Iterator[None]:
        """Its name in this computer's /etc/hosts, for what runs beside the tests. Needs root."""
        line = f"{self.address} {self.host} # deploy rig {os.getpid()}"
        _hosts(add=line)
        try:
            yield
        finally:
            _hosts(remove=line)

    # --- what it holds ---

    def path(self, key: str) -> Path:
        return self.store / self.bucket / key

    def keys(self, pattern: str = "*") -> list[str]:
        """The keys on disk that match; * matches / too."""
        top = self.store / self.bucket
        found = (str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())
        return sorted(key for key in found if fnmatch.fnmatchcase(key, pattern))

    def put(self, key: str, content: bytes) -> None:
        """Write an object on disk; `settle` waits until it is seen."""
        self.path(key).parent.mkdir(parents=True, exist_ok=True)
        self.path(key).write_bytes(content)

    def damage(self, pattern: str, how: Damage) -> list[str]:
        """Delete, cut in half or flip one bit in the middle of every object that matches; returns their keys.

        What was done is seen when this returns.
        """
        found = self.keys(pattern)
        if not found:
            raise AssertionError(f"{self.name} holds nothing like {pattern}")
        for key in found:
            content = bytearray(self.path(key).read_bytes())
            if how == "delete":
                self._delete(key)
            elif how == "truncate":
                self.put(key, bytes(content[: len(content) // 2]))
            elif content:
                content[len(content) // 2] ^= 1
                self.put(key, bytes(content))
        self.settle()
        return found

    def _delete(self, key: str) -> None:
        """With it the folders that held nothing else: a vendor of objects knows none."""
        path = self.path(key)
        path.unlink()
        while not any(path.parent.iterdir()) and path.parent != self.store / self.bucket:
            path = path.parent
            path.rmdir()

    def settle(self) -> None:
        """Wait until the server sees what was changed on disk."""
        time.sleep(1.5 * CACHE)


class _Bounded:
    """A program that ends when this process ends."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._shell = subprocess.Popen(
                ["sh", "-c", _BOUNDED, "sh", *command],
                cwd=CHECKOUT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **(environment or {}), "LIMIT": str(LIMIT)},
                start_new_session=True,
            )
        assert self._shell.stdout
        self._pid = int(self._shell.stdout.readline())

    @property
    def alive(self) -> bool:
        try:
            return Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def signal(self, number: int) -> None:
        os.kill(self._pid, number)

    def end(self) -> None:
        assert self._shell.stdin and self._shell.stdout
        self._shell.stdin.close()
        self._shell.wait(10)
        self._shell.stdout.close()


def _free(address: str) -> int:
    with socket.create_server((address, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _hosts(add: str = "", remove: str = "") -> None:
    """Not replaced as a file: it may be a mount."""
    with open("/etc/hosts", "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lines = [line for line in file.read().splitlines() if not remove or line != remove]
        file.seek(0)
        file.write("\n".join([*lines, *([add] if add else [])]) + "\n")
        file.truncate()


def certificate(folder: Path, host: str, address: str) -> str:
    """tls.crt and tls.key for the host; returns the PEM of the CA, whose key is thrown away."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {host}")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])

    def builder(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
            )
        )

    uses = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    usage = x509.KeyUsage(
        True, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False, **uses
    )
    root = builder(issuer, authority.public_key())
    root = root.add_extension(x509.BasicConstraints(True, 0), critical=True).add_extension(
        usage, critical=True
    )
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys((host, "localhost"))]
    names.append(x509.IPAddress(ip_address(address)))
    leaf = builder(subject, key.public_key()).add_extension(
        x509.SubjectAlternativeName(names), critical=False
    )
    (folder / "tls.crt").write_bytes(leaf.sign(authority, SHA256()).public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return root.sign(authority, SHA256()).public_bytes(Encoding.PEM).decode()
