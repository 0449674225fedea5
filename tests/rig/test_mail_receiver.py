"""The rig's receiving mail server, on loopback with a DNS server of the test's own."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dkim
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from deployer.components.mail_relay.dkim import public_record
from tests.components.mail_relay.world import rsa_key
from tests.rig.mail_receiver import MailReceiver

RECORDS = {
    ("social-net.test.", "TXT"): '"v=spf1 mx ~all"',
    ("social-net.test.", "MX"): "10 mail.social-net.test.",
    ("mail.social-net.test.", "A"): "127.0.0.1",
    ("mail.social-net.test.", "TXT"): '"v=spf1 a -all"',
    ("other.test.", "TXT"): '"v=spf1 -all"',
    ("_dmarc.social-net.test.", "TXT"): '"v=DMARC1; p=quarantine"',
    ("1.0.0.127.in-addr.arpa.", "PTR"): "mail.social-net.test.",
}


class Names:
    """A DNS server that answers from a table, over UDP."""

    def __init__(self) -> None:
        public = public_record(rsa_key())
        halves = f'"{public[:200]}" "{public[200:]}"'
        self.records = {**RECORDS, ("deploy1._domainkey.social-net.test.", "TXT"): halves}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.server = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data, client = self.socket.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.AA | dns.flags.RA
            question = query.question[0]
            kind = dns.rdatatype.to_text(question.rdtype)
            if value := self.records.get((str(question.name).lower(), kind)):
                answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, value))
            elif not any(name == str(question.name).lower() for name, _ in self.records):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            self.socket.sendto(answer.to_wire(), client)


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    server = Names()
    yield server
    server.socket.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mx.rig.test",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture
def receiver(names: Names, certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[MailReceiver]:
    cert, key = certificate
    with MailReceiver(("127.0.0.1", 0), names.server, tmp_path / "mail", cert=cert, key=key) as running:
        yield running


def mail(author: str = "noreply@social-net.test", *, signed: bool = True) -> bytes:
    text = (
        f"From: App <{author}>\r\nTo: bob@mailbox.test\r\nSubject: code\r\n\r\nYour code is 123.\r\n".encode()
    )
    if not signed:
        return text
    header: bytes = dkim.sign(text, b"deploy1", b"social-net.test", rsa_key().encode())
    return header + text


def send(
    receiver: MailReceiver,
    text: bytes,
    *,
    sender: str = "noreply@social-net.test",
    to: str = "bob@mailbox.test",
    ehlo: str = "mail.social-net.test",
) -> None:
    with smtplib.SMTP("127.0.0.1", receiver.port, local_hostname=ehlo, timeout=10) as client:
        client.sendmail(sender, [to], text)


def test_mail_that_is_as_it_should_be(receiver: MailReceiver) -> None:
    send(receiver, mail())
    found = receiver.wait_for("bob@mailbox.test", 5)
    verdict = found.verdict
    assert (verdict.spf, verdict.dkim, verdict.dmarc, verdict.policy) == (
        "pass",
        "pass",
        "pass",
        "quarantine",
    )
    assert verdict.dkim_domains == ("social-net.test",) and "from" in verdict.signed
    assert verdict.ptr == "mail.social-net.test" and verdict.ehlo_matches
    assert found.text.strip() == "Your code is 123."
    assert found.tls == "" and found.sender == "noreply@social-net.test"


def test_tls(receiver: MailReceiver, certificate: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(cafile=str(certificate[0]))
    with smtplib.SMTP("localhost", receiver.port, timeout=10) as client:
        client.starttls(context=context)
        client.sendmail("noreply@social-net.test", ["bob@mailbox.test"], mail())
    assert receiver.wait_for("bob@mailbox.test", 5).tls == "TLSv1.3"


def test_a_forged_body(receiver: MailReceiver) -> None:
    send(receiver, mail().replace(b"123", b"666"), sender="x@other.test")
    verdict = receiver.wait_for("bob@mailbox.test", 5).verdict
    assert (verdict.spf, verdict.dkim, verdict.dmarc) == ("fail", "fail", "fail")


def test_unsigned_but_from_the_right_address(receiver: MailReceiver) -> None:
    send(receiver, mail(signed=False))
    verdict = receiver.wait_for("bob@mailbox.test", 5).verdict
    assert (verdict.spf, verdict.dkim, verdict.dmarc) == ("pass", "none", "pass")


def test_a_signature_of_another_domain_does_not_align(receiver: MailReceiver) -> None:
    text = mail("boss@social-net.test", signed=False)
    header = dkim.sign(text, b"deploy1", b"social-net.test", rsa_key().encode())
    forged = (header + text).replace(b"boss@social-net.test", b"boss@nowhere.test")
    send(receiver, forged, sender="boss@nowhere.test", ehlo="nowhere.test")
    verdict = receiver.wait_for("bob@mailbox.test", 5).verdict
    assert (verdict.spf, verdict.dkim, verdict.dmarc) == ("none", "fail", "none")
    assert not verdict.ehlo_matches


def test_a_bounce_is_judged_by_its_ehlo_name(receiver: MailReceiver) -> None:
    send(receiver, mail("mailer-daemon@social-net.test", signed=False), sender="")
    verdict = receiver.wait_for("bob@mailbox.test", 5).verdict
    assert (verdict.spf, verdict.dmarc) == ("pass", "pass")


def test_unauthenticated_mail_is_refused_when_asked_for(names: Names, tmp_path: Path) -> None:
    with MailReceiver(("127.0.0.1", 0), names.server, tmp_path, reject_unauthenticated=True) as receiver:
        send(receiver, mail())
        with pytest.raises(smtplib.SMTPDataError, match="not authenticated: spf=fail dkim=none dmarc=fail"):
            send(receiver, mail(signed=False), sender="x@other.test")
        assert [one.accepted for one in receiver.received()] == [True, False]


def test_only_its_own_domains_and_known_users(names: Names, tmp_path: Path) -> None:
    with MailReceiver(("127.0.0.1", 0), names.server, tmp_path, domains=("mailbox.test",)) as receiver:
        for to, code in (("bob@elsewhere.test", 554), ("nobody@mailbox.test", 550)):
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                send(receiver, mail(), to=to)
            assert refused.value.recipients[to][0] == code


def test_a_vendor_wants_a_log_in(names: Names, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    context = ssl.create_default_context(cafile=str(cert))
    with MailReceiver(
        ("127.0.0.1", 0), names.server, tmp_path, cert=cert, key=key, wrapped=True, login=("user", "secret")
    ) as receiver:
        with smtplib.SMTP_SSL("localhost", receiver.port, context=context, timeout=10) as client:
            with pytest.raises(smtplib.SMTPSenderRefused, match="authentication required"):
                client.sendmail("noreply@social-net.test", ["bob@mailbox.test"], mail())
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("user", "wrong")
            client.login("user", "secret")
            client.sendmail("noreply@social-net.test", ["bob@mailbox.test"], mail())
        assert receiver.wait_for("bob@mailbox.test", 5).login == "user"
        receiver.fault = "535 5.7.8 account closed at auth"
        with smtplib.SMTP_SSL("localhost", receiver.port, context=context, timeout=10) as client:
            with pytest.raises(smtplib.SMTPAuthenticationError, match="account closed"):
                client.login("user", "secret")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("450 4.7.1 come back later", smtplib.SMTPRecipientsRefused),
        ("550 5.7.1 account suspended at mail", smtplib.SMTPSenderRefused),
        ("554 5.7.0 quota exceeded at data", smtplib.SMTPDataError),
    ],
)
def test_forced_answers(receiver: MailReceiver, fault: str, error: type[Exception]) -> None:
    receiver.fault = fault
    with pytest.raises(error):
        send(receiver, mail())
    receiver.fault = "none"
    send(receiver, mail())
    assert receiver.wait_for("bob@mailbox.test", 5).accepted


def test_slow(receiver: MailReceiver) -> None:
    receiver.fault = "slow 0.3"
    began = time.monotonic()
    send(receiver, mail())
    assert time.monotonic() - began > 0.9


def test_off_and_on_again(receiver: MailReceiver) -> None:
    receiver.fault = "off"
    with pytest.raises(ConnectionRefusedError):
        send(receiver, mail())
    receiver.fault = ""
    deadline = time.monotonic() + 5
    while True:
        try:
            send(receiver, mail())
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_waiting_says_what_arrived_instead(receiver: MailReceiver) -> None:
    send(receiver, mail())
    with pytest.raises(
        TimeoutError, match=r"arrived: \[\('noreply@social-net.test', \('bob@mailbox.test',\)"
    ):
        receiver.wait_for("alice@mailbox.test", 0.2)


def test_as_a_program(names: Names, tmp_path: Path) -> None:
    arguments = ["--listen", "127.0.0.1:0", "--dns", names.server, "--store", str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.rig.mail_receiver", *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        port = int(process.stdout.readline().strip().rpartition(":")[2])
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("noreply@social-net.test", ["bob@mailbox.test"], mail())
        assert '"dkim": "pass"' in (tmp_path / "messages.jsonl").read_text()
    finally:
        process.terminate()
        process.communicate(timeout=10)
