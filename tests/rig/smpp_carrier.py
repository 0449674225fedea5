"""An SMS carrier: a real SMPP 3.4 server (PDUs by smpp34), with a record of what arrived and faults on demand.

    python -m tests.rig.smpp_carrier --listen 10.0.0.1:2775 --system-id stack --password secret --store DIR

DIR/messages.jsonl gets a line for each message (parts joined), DIR/events.jsonl one for each bind and its end.
A line written to DIR/control (a FIFO) forces a fault or sends something:

    fault refuse_bind|throttle|reject|temporary|slow|silent|no_reports|none      (slow: 2 s for each answer)
    fail_report                       the next report says UNDELIV
    die | rise                        close every connection and listen no more | listen again
    inbound FROM TO TEXT              a message from a phone, TEXT in JSON's string form or plain

As a class: `with Carrier(...) as carrier:` runs it in a thread of its own; the same things are its methods.
smpp34's own server cannot see or refuse a password, so the connections are asyncio's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import smpp34

from tests.rig.smpp_text import concatenation, decode_text, encode_text

FAULTS = ("none", "refuse_bind", "throttle", "reject", "temporary", "slow", "silent", "no_reports")

# command_id and command_status of SMPP 3.4, as far as they are used here
BINDS = {0x1: "receiver", 0x2: "transmitter", 0x9: "transceiver"}
SUBMIT_SM, DELIVER_SM, UNBIND, ENQUIRE_LINK, GENERIC_NACK = 0x4, 0x5, 0x6, 0x15, 0x80000000
RESPONSE = 0x80000000
OK, INVALID_COMMAND, SYSTEM_ERROR, BIND_FAILED, SUBMIT_FAILED, THROTTLED = 0x0, 0x3, 0x8, 0xD, 0x45, 0x58
# Optional parameters (SMPP 3.4, 5.3.2)
RECEIPTED_MESSAGE_ID, MESSAGE_PAYLOAD, MESSAGE_STATE = 0x001E, 0x0424, 0x0427
STATUSES = {"throttle": THROTTLED, "reject": SUBMIT_FAILED, "temporary": SYSTEM_ERROR}
SLOW = 2.0


@dataclass(frozen=True)
class Received:
    """A whole message. parts: how many SMS it came in; at: seconds since 1970; ids: of its parts."""

    sender: str
    recipient: str
    text: str
    parts: int
    data_coding: int
    at: float
    ids: tuple[str, ...]


@dataclass
class _Joining:
    parts: dict[int, bytes] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)


class Carrier:
    """One SMPP account at one address. Thread-safe from outside; everything happens on its own loop."""

    def __init__(
        self,
        system_id: str,
        password: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        store: Path | None = None,
        tls: ssl.SSLContext | None = None,
        report_after: float = 0.1,
    ) -> None:
        self.system_id = system_id
        self.password = password
        self.host = host
        self.port = port
        self.fault = "none"
        self.messages: list[Received] = []
        # Every submit_sm that was answered with success, and all that came.
        self.accepted = 0
        self.submitted = 0
        self._fail_reports = 0
        self._store = store
        self._tls = tls
        self._report_after = report_after
        self._sequence = 0
        self._joining: dict[tuple[str, str, int, int], _Joining] = {}
        # Reports and messages that nobody has acknowledged: whoever binds next gets them, as carriers do for days.
        self.owed: list[dict[str, Any]] = []
        self._sessions: set[_Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"carrier {system_id}", daemon=True
        )
        self._ids = int(time.time() * 1000) % 10**9 * 1000

    # --- from outside ---

    def __enter__(self) -> Carrier:
        if self._store:
            self._store.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self.rise()
        return self

    def __exit__(self, *unused: object) -> None:
        self.die()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def rise(self) -> None:
        """Listen (again, at the same port)."""
        self._run(self._listen())

    def die(self) -> None:
        """Drop every connection and refuse new ones."""
        self._run(self._close())

    def set_fault(self, name: str) -> None:
        """One of FAULTS. refuse_bind drops what is bound, too."""
        if name not in FAULTS:
            raise ValueError(f"{name} is no fault: {', '.join(FAULTS)}")
        self.fault = name
        if name == "refuse_bind":
            self._run(self._drop())

    def fail_report(self, count: int = 1) -> None:
        """The next `count` reports say that the message was not delivered."""
        self._fail_reports += count

    def send_inbound(self, sender: str, recipient: str, text: str) -> None:
        """A message from a phone, to the first bound session that receives. Raises RuntimeError without one."""
        self._run(self._inbound(sender, recipient, text))

    @property
    def bound(self) -> int:
        """How many sessions are bound."""
        return sum(session.bound for session in list(self._sessions))

    def wait_bound(self, timeout: float = 20.0) -> None:
        """Until a session is bound; raises TimeoutError."""
        self._wait(lambda: self.bound > 0, timeout, "a bind")

    def wait_message(self, timeout: float = 20.0, *, count: int = 1) -> Received:
        """Until `count` messages have come; the last one. Raises TimeoutError."""
        self._wait(lambda: len(self.messages) >= count, timeout, f"message {count}")
        return self.messages[count - 1]

    def _wait(self, ready: Callable[[], bool], timeout: float, what: str) -> None:
        end = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} at carrier {self.system_id} in {timeout} s")
            time.sleep(0.02)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    # --- on the loop ---

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, self.host, self.port, ssl=self._tls, reuse_address=True
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._drop()

    async def _drop(self) -> None:
        for session in list(self._sessions):
            session.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(self, reader, writer)
        self._sessions.add(session)
        try:
            await session.serve()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self._sessions.discard(session)
            session.abort()
            self.owed += session.unanswered.values()
            session.unanswered.clear()
            if session.bound:
                self.event("unbound")

    async def _inbound(self, sender: str, recipient: str, text: str) -> None:
        data, coding = encode_text(text)
        for session in self._sessions:
            if session.bound and session.receives:
                session.deliver(
                    source_addr=sender, destination_addr=recipient, short_message=data, data_coding=coding
                )
                return
        raise RuntimeError(f"carrier {self.system_id}: nobody is bound that receives")

    def next_id(self) -> str:
        self._ids += 1
        return f"{self._ids:012d}"

    def next_sequence(self) -> int:
        self._sequence = self._sequence % 0x7FFFFFFE + 1
        return self._sequence

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def take(self, pdu: smpp34.SubmitSm, message_id: str) -> None:
        """Keep a part; a whole message is recorded."""
        data = pdu.short_message
        for tlv in pdu.tlvs:
            if tlv.tag == MESSAGE_PAYLOAD:
                data = tlv.value
        reference, total, number = 0, 1, 1
        if pdu.esm_class & 0x40:
            header, data = data[1 : 1 + data[0]], data[1 + data[0] :]
            reference, total, number = concatenation(header)
        key = (pdu.source_addr, pdu.destination_addr, reference, total)
        joining = self._joining.setdefault(key, _Joining())
        joining.parts[number] = data
        joining.ids.append(message_id)
        if len(joining.parts) < total:
            return
        del self._joining[key]
        received = Received(
            sender=pdu.source_addr,
            recipient=pdu.destination_addr,
            # Joined before it is decoded: a split may go through the middle of a surrogate pair.
            text=decode_text(
                b"".join(joining.parts[index] for index in sorted(joining.parts)), pdu.data_coding
            ),
            parts=total,
            data_coding=pdu.data_coding,
            at=time.time(),
            ids=tuple(joining.ids),
        )
        self.messages.append(received)
        self._write("messages.jsonl", asdict(received))

    async def report(self, session: _Session, pdu: smpp34.SubmitSm, message_id: str) -> None:
        """The carrier's word about a message, in the customary text form (SMPP 3.4, appendix B)."""
        await asyncio.sleep(self._report_after)
        failed, self._fail_reports = self._fail_reports > 0, max(0, self._fail_reports - 1)
        stat, code = ("UNDELIV", 5) if failed else ("DELIVRD", 2)
        now = time.strftime("%y%m%d%H%M")
        text = (
            f"id:{message_id} sub:001 dlvrd:{int(not failed):03d} submit date:{now} done date:{now} "
            f"stat:{stat} err:{'001' if failed else '000'} text:..."
        )
        open_sessions = [known for known in self._sessions if known.bound and known.receives]
        target = session if session in open_sessions else next(iter(open_sessions), None)
        fields: dict[str, Any] = {
            "source_addr": pdu.destination_addr,
            "destination_addr": pdu.source_addr,
            "short_message": text.encode(),
            "esm_class": 0x04,
            "tlvs": [
                smpp34.Tlv(RECEIPTED_MESSAGE_ID, message_id.encode() + b"\0"),
                smpp34.Tlv(MESSAGE_STATE, bytes([code])),
            ],
        }
        if target is None:
            self.owed.append(fields)
        else:
            target.deliver(**fields)

    def event(self, what: str) -> None:
        self._write("events.jsonl", {"event": what, "at": time.time()})

    def _write(self, name: str, value: dict[str, Any]) -> None:
        if self._store:
            with (self._store / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(value, ensure_ascii=False) + "\n")


class _Session:
    """One connection of a client."""

    def __init__(self, carrier: Carrier, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._carrier = carrier
        self._reader = reader
        self._writer = writer
        self.bound = False
        self.receives = False
        # By sequence number, what was delivered and not acknowledged.
        self.unanswered: dict[int, dict[str, Any]] = {}

    def abort(self) -> None:
        self._writer.transport.abort()

    async def serve(self) -> None:
        while True:
            head = await self._reader.readexactly(16)
            length, command, status, sequence = struct.unpack(">IIII", head)
            if not 16 <= length <= 65536:
                return
            body = await self._reader.readexactly(length - 16)
            if command in BINDS:
                if not self._bind(command, sequence, body):
                    await self._writer.drain()
                    return
            elif command == ENQUIRE_LINK:
                if self._carrier.fault != "silent":
                    self._answer(command, sequence)
            elif command == UNBIND:
                self._answer(command, sequence)
                await self._writer.drain()
                return
            elif command == DELIVER_SM | RESPONSE:
                self._answered(sequence, status)
            elif command == SUBMIT_SM and self.bound:
                await self._submit(sequence, head + body)
            elif not command & RESPONSE:
                self._send(GENERIC_NACK, INVALID_COMMAND, sequence)
            await self._writer.drain()

    def _bind(self, command: int, sequence: int, body: bytes) -> bool:
        system_id, password = (part.decode("latin-1") for part in body.split(b"\0")[:2])
        carrier = self._carrier
        good = (system_id, password) == (
            carrier.system_id,
            carrier.password,
        ) and carrier.fault != "refuse_bind"
        carrier.event(f"bind {BINDS[command]} {'accepted' if good else 'refused'}")
        self._answer(command, sequence, OK if good else BIND_FAILED, b"rig\0")
        self.bound = good
        self.receives = command != 0x2
        if good and self.receives:
            owed, carrier.owed = carrier.owed, []
            for fields in owed:
                self.deliver(**fields)
        return good

    def _answered(self, sequence: int, status: int) -> None:
        """Taken, or refused: what was refused comes again with the next bind."""
        fields = self.unanswered.pop(sequence, None)
        if fields and status != OK:
            self._carrier.owed.append(fields)

    async def _submit(self, sequence: int, raw: bytes) -> None:
        carrier = self._carrier
        carrier.submitted += 1
        fault = carrier.fault
        if fault == "silent":
            return
        if fault == "slow":
            await asyncio.sleep(SLOW)
        if fault in STATUSES:
            self._answer(SUBMIT_SM, sequence, STATUSES[fault])
            return
        pdu = smpp34.decode(raw)
        if not isinstance(pdu, smpp34.SubmitSm):
            self._answer(SUBMIT_SM, sequence, SYSTEM_ERROR)
            return
        message_id = carrier.next_id()
        carrier.take(pdu, message_id)
        carrier.accepted += 1
        self._answer(SUBMIT_SM, sequence, OK, message_id.encode() + b"\0")
        if pdu.registered_delivery & 0x3 and fault != "no_reports":
            carrier.later(carrier.report(self, pdu, message_id))

    def deliver(self, **fields: Any) -> None:
        sequence = self._carrier.next_sequence()
        self.unanswered[sequence] = fields
        pdu = smpp34.DeliverSm(
            sequence_number=sequence,
            source_addr_ton=1,
            source_addr_npi=1,
            dest_addr_ton=1,
            dest_addr_npi=1,
            **fields,
        )
        self._writer.write(pdu.encode())

    def _answer(self, command: int, sequence: int, status: int = OK, body: bytes = b"") -> None:
        self._send(command | RESPONSE, status, sequence, body if status == OK else b"")

    def _send(self, command: int, status: int, sequence: int, body: bytes = b"") -> None:
        self._writer.write(struct.pack(">IIII", 16 + len(body), command, status, sequence) + body)


def obey(carrier: Carrier, line: str) -> None:
    """One line of control."""
    word, *rest = line.split(maxsplit=3)
    if word == "fault":
        carrier.set_fault(rest[0])
    elif word == "fail_report":
        carrier.fail_report()
    elif word == "die":
        carrier.die()
    elif word == "rise":
        carrier.rise()
    elif word == "inbound" and len(rest) == 3:
        text = json.loads(rest[2]) if rest[2].startswith('"') else rest[2]
        carrier.send_inbound(rest[0], rest[1], text)
    else:
        raise ValueError(f"not understood: {line}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--system-id", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--certificate", help="PEM of certificate and key: SMPP over TLS")
    given = parser.parse_args()
    host, _, port = given.listen.rpartition(":")
    tls = None
    if given.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(given.certificate)
    control = given.store / "control"
    with Carrier(
        given.system_id, given.password, host=host, port=int(port), store=given.store, tls=tls
    ) as carrier:
        if not control.exists():
            os.mkfifo(control)
        print(f"listening on {host}:{carrier.port}", flush=True)
        # Read and write, so that it never comes to its end.
        with os.fdopen(os.open(control, os.O_RDWR), encoding="utf-8") as lines:
            for line in lines:
                try:
                    obey(carrier, line.strip())
                except (ValueError, RuntimeError, IndexError) as error:
                    print(error, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
