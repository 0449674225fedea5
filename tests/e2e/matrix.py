"""A person who signs up on a Matrix server and talks there. Plain HTTPS, by the Matrix client-server API v3."""

from __future__ import annotations

import re
import secrets
import struct
import time
import urllib.parse
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.e2e.doors import Answer, Doors

API = "/_matrix/client/v3"
# What the person reads: the newest mail to an address, the newest SMS to a number.
Mailbox = Callable[[str], str]
Phone = Callable[[str], str]


@dataclass
class Person:
    """mailbox, phone: how this person reads mail and SMS; both wait a bounded time for a message."""

    doors: Doors
    domain: str
    mail: str
    number: str
    mailbox: Mailbox
    phone: Phone
    name: str = field(default_factory=lambda: f"user{secrets.token_hex(4)}")
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    token: str = ""

    def call(self, method: str, path: str, body: object = None, **options: object) -> Answer:
        return self.doors.request(method, f"https://{self.domain}{path}", body, **options)  # type: ignore[arg-type]

    def sign_up(self, *, open_link: bool = True, enter_code: bool = True) -> Answer:
        """Go through the whole sign-up; with either proof left out the last answer is the server's refusal."""
        wish = {"username": self.name, "password": self.password}
        started = self.call("POST", f"{API}/register", wish)
        assert started.status == 401, started.body
        session, flows = started.json()["session"], started.json()["flows"]
        both = {"m.login.email.identity", "m.login.msisdn"}
        assert all(both <= set(flow["stages"]) for flow in flows), (
            f"a flow needs less than both proofs: {flows}"
        )
        secret = secrets.token_hex(16)
        mail = self._ask("email", {"email": self.mail}, secret)
        sms = self._ask("msisdn", {"country": "GB", "phone_number": self.number}, secret)
        code = re.search(r"\b(\d{6})\b", self.phone(self.number))
        assert code, "no code in the SMS"
        if enter_code:
            entered = self.doors.request(
                "POST", sms["submit_url"], {"sid": sms["sid"], "client_secret": secret, "token": code[1]}
            )
            assert entered.json().get("success"), entered.body
        link = re.search(r"https://\S+submit_token\S+", self.mailbox(self.mail))
        assert link, "no link in the mail"
        if open_link:
            self._open(link[0])
        creds = [("m.login.email.identity", mail["sid"]), ("m.login.msisdn", sms["sid"])]
        answer = started
        for kind, sid in creds:
            proof = {"sid": sid, "client_secret": secret}
            auth = {"type": kind, "session": session, "threepid_creds": proof}
            answer = self.call("POST", f"{API}/register", {**wish, "auth": auth})
        if answer.status == 401 and answer.json().get("completed"):
            # All proofs that this server wants may be in; a last dummy stage is allowed by the API.
            auth = {"type": "m.login.dummy", "session": session}
            answer = self.call("POST", f"{API}/register", {**wish, "auth": auth})
        return answer

    def _ask(self, kind: str, whom: dict[str, str], secret: str) -> dict[str, str]:
        body = {**whom, "client_secret": secret, "send_attempt": 1}
        answer = self.call("POST", f"{API}/register/{kind}/requestToken", body)
        assert answer.status == 200, (kind, answer.status, answer.body)
        asked: dict[str, str] = answer.json()
        return asked

    def _open(self, link: str) -> None:
        page = self.doors.request("GET", link.rstrip(">)."))
        assert page.status == 200, page.body

    def log_in(self) -> None:
        who = {"type": "m.id.user", "user": self.name}
        body = {"type": "m.login.password", "identifier": who, "password": self.password}
        answer = self.call("POST", f"{API}/login", body)
        assert answer.status == 200, answer.body
        self.token = answer.json()["access_token"]

    def proven(self) -> set[str]:
        """Kinds of what the account has proven: "email", "msisdn"."""
        answer = self.call("GET", f"{API}/account/3pid", token=self.token)
        return {entry["medium"] for entry in answer.json()["threepids"]}

    def make_room(self) -> str:
        room: str = self.call("POST", f"{API}/createRoom", {}, token=self.token).json()["room_id"]
        return room

    def say(self, room: str, content: dict[str, object]) -> str:
        path = f"{API}/rooms/{urllib.parse.quote(room)}/send/m.room.message/{secrets.token_hex(8)}"
        answer = self.call("PUT", path, content, token=self.token)
        assert answer.status == 200, answer.body
        event: str = answer.json()["event_id"]
        return event

    def upload(self, data: bytes, kind: str) -> str:
        answer = self.call(
            "POST", "/_matrix/media/v3/upload", data, token=self.token, headers={"Content-Type": kind}
        )
        assert answer.status == 200, answer.body
        uri: str = answer.json()["content_uri"]
        return uri

    def download(self, uri: str) -> bytes:
        path = uri.removeprefix("mxc://")
        answer = self.call("GET", f"/_matrix/client/v1/media/download/{path}", token=self.token)
        assert answer.status == 200, answer.body
        return answer.body

    def read(self, room: str) -> list[dict[str, object]]:
        """Contents of the messages of a room, oldest first."""
        path = f"{API}/rooms/{urllib.parse.quote(room)}/messages?dir=f&limit=50"
        chunk = self.call("GET", path, token=self.token).json()["chunk"]
        return [event["content"] for event in chunk if event["type"] == "m.room.message"]


def signs_up_and_talks(someone: Person) -> None:
    """The whole of it: both proofs, a log-in, a message and a picture, and both read back."""
    assert someone.sign_up().status == 200
    someone.log_in()
    assert someone.proven() == {"email", "msisdn"}
    room, image = someone.make_room(), picture()
    uri = someone.upload(image, "image/png")
    someone.say(room, {"msgtype": "m.text", "body": "hello"})
    someone.say(room, {"msgtype": "m.image", "body": "a picture", "url": uri})
    assert [content["body"] for content in someone.read(room)] == ["hello", "a picture"]
    assert someone.download(uri) == image


def picture() -> bytes:
    """A small PNG, different each time (RFC 2083)."""

    def part(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    pixel = secrets.token_bytes(3)
    rows = b"".join(b"\0" + pixel * 8 for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )


def number() -> str:
    """A number of the range that the United Kingdom keeps for drama (Ofcom), so it is nobody's."""
    return f"07700900{int(time.time() * 1000) % 1000:03d}"
