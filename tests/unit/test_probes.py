"""Probes against real servers on loopback, with certificates of a CA made here."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployer.core.component import Probe
from deployer.core.probe import Result
from deployer.probes import run

HOST = "social.example"
Answer = Callable[[str, dict[str, str]], tuple[int, str]]


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Authority:
    """A CA with one leaf, for HOST."""

    def __init__(self, folder: Path, days: int = 30) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        leaf = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root = self._builder(name, name, root_key, days)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        root = root.add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
        root = root.add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), False)
        made = self._builder(leaf, name, key, days)
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), False)
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
        made = made.add_extension(known, False)
        signed = root.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        self.pem = signed.decode()
        chain = made.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + _pem(key)
        path = folder / "leaf.pem"
        path.write_bytes(chain)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(path)

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


class Web:
    """An HTTPS server. `answer` gives status and text for a path and its headers; None never answers."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.answer: Answer | None = lambda path, headers: (200, f"you asked for {path}")
        self.tls = tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(plain,), daemon=True).start()

    def _one(self, plain: socket.socket) -> None:
        try:
            with self.tls.wrap_socket(plain, server_side=True) as client, client.makefile("rb") as stream:
                path = stream.readline().decode().split()[1]
                headers = {}
                for line in iter(stream.readline, b"\r\n"):
                    key, _, value = line.decode().partition(": ")
                    headers[key.lower()] = value.strip()
                if self.answer is None:
                    time.sleep(5)
                    return
                status, text = self.answer(path, headers)
                body = text.encode()
                client.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        except (OSError, IndexError):
            return


@pytest.fixture
def web(authority: Authority) -> Iterator[Web]:
    server = Web(authority.server)
    yield server
    server.listener.close()


def https(web: Web, path: str = "/", **args: object) -> Probe:
    given = {"url": f"https://{HOST}:{web.port}{path}", "address": "127.0.0.1", **args}
    return Probe("https", "https", given)


def only(probe: Probe, ca_pem: str | None) -> Result:
    [result] = run([probe], ca_pem)
    return result


# --- https ---


def test_https_goes_to_the_address_and_checks_the_name(web: Web, authority: Authority) -> None:
    seen: dict[str, str] = {}
    web.answer = lambda path, headers: (200, seen.update(headers, path=path) or "hello")
    result = only(https(web, "/a?b=c", expect="hello"), authority.pem)
    assert (result.ok, result.detail) == (True, "status 200; certificate good for 30 days")
    assert (seen["host"], seen["path"]) == (f"{HOST}:{web.port}", "/a?b=c")
    assert 0 < result.seconds < 2


@pytest.mark.parametrize(
    ("given", "wanted", "ok", "detail"),
    [
        (200, 200, True, "status 200; certificate good for 30 days"),
        (204, 200, False, "status 204 instead of 200"),
        (404, "<500", True, "status 404; certificate good for 30 days"),
        (301, "<500", True, "status 301; certificate good for 30 days"),
        (503, "<500", False, "status 503 instead of <500"),
    ],
)
def test_the_status_decides(
    web: Web, authority: Authority, given: int, wanted: object, ok: bool, detail: str
) -> None:
    web.answer = lambda path, headers: (given, "")
    result = only(https(web, status=wanted), authority.pem)
    assert (result.ok, result.detail) == (ok, detail)


def test_the_expected_text_decides(web: Web, authority: Authority) -> None:
    result = only(https(web, expect="something else"), authority.pem)
    assert (result.ok, result.detail) == (False, "status 200, but not the text that was expected")


def test_a_certificate_of_an_unknown_ca_is_red(web: Web) -> None:
    result = only(https(web), None)
    assert not result.ok
    assert result.detail.startswith("the certificate is not good: ")


def test_a_certificate_for_another_name_is_red(web: Web, authority: Authority) -> None:
    other = Probe("x", "https", {"url": f"https://other.example:{web.port}/", "address": "127.0.0.1"})
    result = only(other, authority.pem)
    assert not result.ok
    assert "other.example" in result.detail


def test_an_expired_certificate_is_red(tmp_path: Path) -> None:
    expired = Authority(tmp_path, days=-1)
    server = Web(expired.server)
    result = only(https(server), expired.pem)
    assert (result.ok, result.detail) == (False, "the certificate is not good: certificate has expired")


def test_nobody_there_is_red_at_once(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = only(Probe("x", "https", {"url": f"https://{HOST}:{port}/", "address": "127.0.0.1"}), None)
    assert (result.ok, result.detail) == (False, "Connection refused")


def test_probes_run_side_by_side_and_each_is_bounded(web: Web, authority: Authority) -> None:
    silent = Web(authority.server)
    silent.answer = None
    with socket.create_server(("127.0.0.1", 0)) as mute:
        # Accepts and says nothing: the time-out of the handshake, and of the greeting.
        port = mute.getsockname()[1]
        probes = [
            Probe("silent", "https", https(silent).args, timeout=0.5, degrades=True),
            Probe("no handshake", "https", {"url": f"https://{HOST}:{port}/", "address": "127.0.0.1"}, 0.5),
            Probe("no greeting", "smtp", smtp_args(port), 0.5),
            https(web),
        ]
        began = time.monotonic()
        results = run(probes, authority.pem)
        took = time.monotonic() - began
    assert [(result.name, result.ok) for result in results] == [
        ("silent", False),
        ("no handshake", False),
        ("no greeting", False),
        ("https", True),
    ]
    assert {result.detail for result in results[:2]} == {"no answer within 0.5 s"}
    assert "timed out" in results[2].detail or "no answer" in results[2].detail
    assert [result.degrades for result in results] == [True, False, False, False]
    assert took < 2


def test_an_answer_by_drops_is_given_up(authority: Authority) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        plain, _ = listener.accept()
        with authority.server.wrap_socket(plain, server_side=True) as client:
            try:
                while True:
                    client.sendall(b"H")
                    time.sleep(0.05)
            except OSError:
                return

    threading.Thread(target=drip, daemon=True).start()
    args = {"url": f"https://{HOST}:{listener.getsockname()[1]}/", "address": "127.0.0.1"}
    began = time.monotonic()
    result = only(Probe("drip", "https", args, timeout=0.5), authority.pem)
    assert (result.ok, result.detail) == (False, "no answer within 0.5 s")
    assert time.monotonic() - began < 2
    listener.close()


def test_no_probes_no_results() -> None:
    assert run([], None) == []


def test_a_probe_for_the_machine_is_not_run_here() -> None:
    result = only(Probe("x", "script", {"script": "true"}), None)
    assert (result.ok, result.detail) == (False, "a probe of the kind 'script' does not run from here")


# --- the SMS gateway's API ---


def sms(web: Web, path: str = "") -> Probe:
    url = f"https://{HOST}:{web.port}{path}"
    return Probe("sms", "sms_api", {"url": url, "address": "127.0.0.1", "user": "app", "password": "p:w"})


@pytest.mark.parametrize("path", ["", "/", "/health"])
def test_the_sms_probe_logs_in_and_sends_nothing(web: Web, authority: Authority, path: str) -> None:
    seen: list[tuple[str, str]] = []

    def answer(path: str, headers: dict[str, str]) -> tuple[int, str]:
        seen.append((path, base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode()))
        return 200, json.dumps({"status": "ok"})

    web.answer = answer
    result = only(sms(web, path), authority.pem)
    assert (result.ok, result.detail) == (True, "takes messages")
    assert seen == [("/health", "app:p:w")]


@pytest.mark.parametrize(
    ("status", "body", "ok", "detail"),
    [
        (200, '{"status": "degraded"}', True, "takes messages; not every carrier is there"),
        (503, '{"status": "failed"}', False, "status 503: failed"),
        (401, '{"error": "wrong user or password"}', False, "user and password are refused"),
        (404, "", False, "status 404 without an answer of the gateway"),
        (200, "[]", False, "status 200 without an answer of the gateway"),
    ],
)
def test_the_gateways_answer_decides(
    web: Web, authority: Authority, status: int, body: str, ok: bool, detail: str
) -> None:
    web.answer = lambda path, headers: (status, body)
    result = only(sms(web), authority.pem)
    assert (result.ok, result.detail) == (ok, detail)


# --- SMTP ---


class Mailbox:
    """Takes mail for postmaster only; notes what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.said.append(f"EHLO {hostname} {'tls' if session.ssl else 'clear'}")
        session.host_name = hostname
        return responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.said.append(f"MAIL {address!r}")
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.said.append(f"RCPT {address}")
        if address != f"postmaster@{HOST}":
            return "550 5.1.1 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.said.append("RSET")
        return "250 OK"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.said.append("QUIT")
        return "221 Bye"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.said.append("DATA")
        return "250 OK"


def smtp_args(port: int, recipient: str = f"postmaster@{HOST}", hostname: str = HOST) -> dict[str, object]:
    return {"address": "127.0.0.1", "port": port, "hostname": hostname, "recipient": recipient}


@pytest.fixture
def box() -> Mailbox:
    return Mailbox()


@pytest.fixture
def mail_port(box: Mailbox, authority: Authority) -> Iterator[int]:
    yield from serve_mail(box, authority.server)


def serve_mail(box: Mailbox, tls: ssl.SSLContext | None) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port, tls_context=tls)
    controller.start()
    yield port
    controller.stop()


def test_smtp_goes_up_to_the_recipient(box: Mailbox, mail_port: int, authority: Authority) -> None:
    result = only(Probe("mail", "smtp", smtp_args(mail_port)), authority.pem)
    assert (result.ok, result.detail) == (True, f"takes mail for postmaster@{HOST}, with TLS")
    assert box.said == [
        "EHLO [127.0.0.1] clear",
        "EHLO [127.0.0.1] tls",
        "MAIL '<>'",
        f"RCPT postmaster@{HOST}",
        "RSET",
        "QUIT",
    ]


def test_a_refused_recipient_is_red(mail_port: int, authority: Authority) -> None:
    result = only(Probe("mail", "smtp", smtp_args(mail_port, "nobody@x.example")), authority.pem)
    assert (result.ok, result.detail) == (
        False,
        "RCPT TO nobody@x.example was answered with 550 5.1.1 nobody of that name",
    )


def test_a_mail_servers_certificate_is_told_but_not_insisted_on(mail_port: int, authority: Authority) -> None:
    unknown = only(Probe("mail", "smtp", smtp_args(mail_port)), None)
    other = only(Probe("mail", "smtp", smtp_args(mail_port, hostname="mx.example")), authority.pem)
    assert (unknown.ok, other.ok) == (True, True)
    assert "; the certificate is not good: " in unknown.detail
    assert "mx.example" in other.detail


def test_a_mail_server_without_tls_is_red(box: Mailbox) -> None:
    for port in serve_mail(box, None):
        result = only(Probe("mail", "smtp", smtp_args(port)), None)
        assert (result.ok, result.detail) == (False, "it does not offer STARTTLS")


# --- speed ---


def test_importing_probes_loads_neither_tls_nor_smtp() -> None:
    program = "import sys, deployer.probes; print([m for m in ('ssl', 'smtplib', 'http.client') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
