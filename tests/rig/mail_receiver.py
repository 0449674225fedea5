"""A receiving mail server (or, with a log-in, a mail vendor): real SMTP, verdicts on disk, faults on demand.

    python -m tests.rig.mail_receiver --listen 10.0.0.2:25 --dns 10.0.0.9 --store DIR
        [--cert FILE --key FILE] [--wrapped] [--login USER:PASSWORD] [--domain NAME ...] [--reject-unauthenticated]

DIR/messages.jsonl gets a line for each message, DIR/*.eml the message as it came. What DIR/fault holds is
obeyed from the next command on (remove it, or write "none", to heal):

    450 4.7.1 come back later            this answer to RCPT TO
    550 5.7.1 account suspended at mail  this answer at "auth", "mail", "rcpt" or "data"
    slow 5                               5 s before each answer
    off                                  listen no more, close what is open

As a class: `with MailReceiver(...) as receiver:` runs it in a thread of its own; `receiver.fault` is the same text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.rig.mail_verdict import Judge, Verdict

STAGES = ("auth", "mail", "rcpt", "data")


@dataclass(frozen=True)
class Received:
    """One message. at: seconds since 1970; answer: what the client was told; tls: protocol, "" without."""

    at: float
    address: str
    ehlo: str
    tls: str
    login: str
    sender: str
    recipients: tuple[str, ...]
    file: str
    answer: str
    verdict: Verdict

    @property
    def accepted(self) -> bool:
        return self.answer.startswith("2")

    @property
    def message(self) -> EmailMessage:
        """The message with its headers and body decoded."""
        found = message_from_bytes(Path(self.file).read_bytes(), policy=policy.default)
        assert isinstance(found, EmailMessage)
        return found

    @property
    def text(self) -> str:
        """The plain text for a person, or the HTML where there is no other."""
        body = self.message.get_body(("plain", "html"))
        return str(body.get_content()) if body else ""


class MailReceiver:
    """The server. listen: ("ADDRESS", port); port 0 takes a free one, see `port`.

    dns: "ADDRESS" or "ADDRESS:PORT" of the server that knows the senders; login: (user, password) makes it a
    vendor's smarthost; domains: whose mail it takes (all when empty); wrapped: TLS from the first byte.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        dns: str,
        store: Path,
        *,
        cert: Path | None = None,
        key: Path | None = None,
        wrapped: bool = False,
        login: tuple[str, str] | None = None,
        domains: tuple[str, ...] = (),
        reject_unauthenticated: bool = False,
        hostname: str = "mx.rig.test",
    ) -> None:
        self.address, self.port = listen
        self.store = store
        self.judge = Judge(dns)
        self.login, self.domains, self.hostname = login, domains, hostname
        self.reject_unauthenticated = reject_unauthenticated
        self.tls: ssl.SSLContext | None = None
        if cert:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(cert, key)
        self.wrapped = wrapped
        self._connections: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._run(),), daemon=True
        )

    # --- life ---

    def __enter__(self) -> MailReceiver:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        self.store.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError(f"the mail receiver does not listen at {self.address}:{self.port}")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _run(self) -> None:
        """Listen, unless the fault is "off"; look five times a second whether it is."""
        server: asyncio.Server | None = None
        while not self._stop.is_set():
            off = self.fault == "off"
            if off and server:
                server.close()
                self._hang_up()
                server = None
            elif not off and not server:
                server = await self._loop.create_server(
                    self._session, self.address, self.port, ssl=self.tls if self.wrapped else None
                )
                self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            try:
                await asyncio.wait_for(self._stop.wait(), 0.2)
            except TimeoutError:
                continue
        if server:
            server.close()
        self._hang_up()
        # Let the closed connections end before the loop does.
        await asyncio.sleep(0.05)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def _hang_up(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()

    def _session(self) -> SMTP:
        return _Session(self)

    # --- faults ---

    @property
    def fault(self) -> str:
        """The present fault, as in the module's text; "" when there is none."""
        try:
            text = (self.store / "fault").read_text().strip()
        except FileNotFoundError:
            return ""
        return "" if text == "none" else text

    @fault.setter
    def fault(self, text: str) -> None:
        (self.store / "fault").write_text(text)
        # So that "off" holds when the assignment returns.
        time.sleep(0.5 if text == "off" else 0)

    async def answer(self, stage: str) -> str:
        """The forced answer at this stage, "" for none; waits first when it shall be slow."""
        fault = self.fault
        if slow := re.fullmatch(r"slow ([0-9.]+)", fault):
            await asyncio.sleep(float(slow[1]))
            return ""
        forced = re.fullmatch(r"([45]\d\d .*?)(?: at (\w+))?", fault)
        return forced[1] if forced and (forced[2] or "rcpt") == stage else ""

    # --- what arrived ---

    def received(self) -> list[Received]:
        """All messages, also refused ones, oldest first."""
        try:
            lines = (self.store / "messages.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [_from_json(json.loads(line)) for line in lines]

    def wait_for(self, wanted: str | Callable[[Received], bool], timeout: float = 20) -> Received:
        """The newest accepted message to that address, or for which the function says yes.

        Raises TimeoutError with what did arrive.
        """
        deadline = time.monotonic() + timeout

        def matches(one: Received) -> bool:
            return one.accepted and (wanted in one.recipients if isinstance(wanted, str) else wanted(one))

        while True:
            found = [one for one in self.received() if matches(one)]
            if found:
                return found[-1]
            if time.monotonic() > deadline:
                arrived = [(one.sender, one.recipients, one.answer) for one in self.received()]
                raise TimeoutError(f"no such mail within {timeout} s; arrived: {arrived}")
            time.sleep(0.1)

    async def take(self, session: Session, envelope: Envelope, transport: Any) -> str:
        """Judge and store a message; returns the answer to the client."""
        content = envelope.original_content or b""
        # aiosmtpd takes an empty sender for "no MAIL yet", so it stays "<>" until here.
        sender, ehlo = (envelope.mail_from or "").removeprefix("<>"), session.host_name or ""
        address = session.peer[0] if session.peer else ""
        verdict = await asyncio.to_thread(self.judge.judge, content, address, ehlo, sender)
        answer = await self.answer("data")
        if not answer and self.reject_unauthenticated and verdict.dmarc != "pass":
            answer = (
                f"550 5.7.26 not authenticated: spf={verdict.spf} dkim={verdict.dkim} dmarc={verdict.dmarc}"
            )
        now = time.time()
        file = self.store / f"{now:.6f}.eml"
        file.write_bytes(content)
        tls = transport.get_extra_info("ssl_object")
        one = Received(
            at=now,
            address=address,
            ehlo=ehlo,
            tls=tls.version() if tls else "",
            login=self.login[0] if self.login and session.authenticated else "",
            sender=sender,
            recipients=tuple(envelope.rcpt_tos),
            file=str(file),
            answer=answer or "250 2.0.0 taken",
            verdict=verdict,
        )
        with (self.store / "messages.jsonl").open("a") as lines:
            lines.write(json.dumps(asdict(one)) + "\n")
        return one.answer


class _Session(SMTP):
    """One connection. aiosmtpd calls the hooks of its handler, which is this object's `hooks`."""

    def __init__(self, receiver: MailReceiver) -> None:
        self.receiver = receiver
        over_tls = receiver.tls if not receiver.wrapped else None
        super().__init__(
            _Hooks(receiver, self),
            hostname=receiver.hostname,
            ident="rig",
            enable_SMTPUTF8=True,
            tls_context=over_tls,
            authenticator=self._log_in if receiver.login else None,
            # aiosmtpd does not know of TLS from the first byte.
            auth_require_tls=over_tls is not None,
            loop=receiver._loop,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.receiver._connections.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(self.transport, asyncio.Transport):
            self.receiver._connections.discard(self.transport)
        super().connection_lost(error)

    def _log_in(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert self.receiver.login
        user, password = self.receiver.login
        good = (data.login, data.password) == (user.encode(), password.encode())
        return AuthResult(success=good, handled=False)


class _Hooks:
    def __init__(self, receiver: MailReceiver, session: _Session) -> None:
        self.receiver, self.smtp = receiver, session

    async def handle_AUTH(self, server: SMTP, session: Session, envelope: Envelope, args: Any) -> Any:
        from aiosmtpd.smtp import MISSING

        return await self.receiver.answer("auth") or MISSING

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        if forced := await self.receiver.answer("mail"):
            return forced
        if self.receiver.login and not session.authenticated:
            return "530 5.7.0 authentication required"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        if forced := await self.receiver.answer("rcpt"):
            return forced
        domain = address.rpartition("@")[2].lower()
        if self.receiver.domains and domain not in self.receiver.domains:
            return "554 5.7.1 we do not relay"
        if address.lower().startswith("nobody@"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return await self.receiver.take(session, envelope, self.smtp.transport)


def _from_json(line: dict[str, Any]) -> Received:
    """JSON knows no tuples."""

    def frozen(values: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    return Received(**frozen({**line, "verdict": Verdict(**frozen(line["verdict"]))}))


def main() -> None:
    parser = argparse.ArgumentParser(description="A receiving mail server for tests.")
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--dns", required=True, metavar="ADDRESS[:PORT]")
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--wrapped", action="store_true", help="TLS from the first byte (port 465)")
    parser.add_argument("--login", metavar="USER:PASSWORD", help="be a smarthost")
    parser.add_argument("--domain", action="append", default=[], help="take mail for it only")
    parser.add_argument("--hostname", default="mx.rig.test")
    parser.add_argument("--reject-unauthenticated", action="store_true", help="550 unless DMARC passes")
    options = parser.parse_args()
    address, _, port = options.listen.rpartition(":")
    user, colon, password = (options.login or "").partition(":")
    receiver = MailReceiver(
        (address, int(port)),
        options.dns,
        options.store,
        cert=options.cert,
        key=options.key,
        wrapped=options.wrapped,
        login=(user, password) if colon else None,
        domains=tuple(options.domain),
        reject_unauthenticated=options.reject_unauthenticated,
        hostname=options.hostname,
    )
    receiver.start()
    print(f"listening at {receiver.address}:{receiver.port}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        receiver.stop()


if __name__ == "__main__":
    main()
