"""A person on a Bluesky network. Plain HTTPS, by the AT Protocol's XRPC (https://atproto.com/specs/xrpc)."""

from __future__ import annotations

import re
import secrets
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.e2e.doors import Answer, Doors

# What the person reads: the newest mail to an address, the newest SMS to a number. Both wait a bounded time.
Mailbox = Callable[[str], str]
Phone = Callable[[str], str]
Record = dict[str, Any]


@dataclass
class Person:
    """number: in international form, "+44...". did, token: once there is an account."""

    doors: Doors
    domain: str
    mail: str
    number: str
    mailbox: Mailbox
    phone: Phone
    name: str = field(default_factory=lambda: f"user{secrets.token_hex(4)}")
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    did: str = ""
    token: str = ""

    @property
    def handle(self) -> str:
        return f"{self.name}.{self.domain}"

    def ask(self, method: str, **query: object) -> Answer:
        path = f"/xrpc/{method}?{urllib.parse.urlencode(query, doseq=True)}"
        return self.doors.request("GET", f"https://{self.domain}{path}", token=self.token)

    def tell(
        self, method: str, body: object = None, headers: dict[str, str] | None = None, token: str = ""
    ) -> Answer:
        url = f"https://{self.domain}/xrpc/{method}"
        return self.doors.request("POST", url, body, token=token or self.token, headers=headers)

    # --- the account ---

    def sign_up(self, invite: str = "") -> Answer:
        body = {"handle": self.handle, "email": self.mail, "password": self.password}
        answer = self.tell(
            "com.atproto.server.createAccount", body | ({"inviteCode": invite} if invite else {})
        )
        if answer.status == 200:
            self.did, self.token = answer.json()["did"], answer.json()["accessJwt"]
        return answer

    def log_in(self) -> None:
        body = {"identifier": self.handle, "password": self.password}
        made = good(self.tell("com.atproto.server.createSession", body))
        self.did, self.token = made["did"], made["accessJwt"]

    def confirm_mail(self) -> None:
        good(self.tell("com.atproto.server.requestEmailConfirmation"))
        code = re.search(r"\b([A-Z2-7]{5}-[A-Z2-7]{5})\b", self.mailbox(self.mail))
        assert code, "no code in the mail"
        good(self.tell("com.atproto.server.confirmEmail", {"email": self.mail, "token": code[1]}))

    def mail_confirmed(self) -> bool:
        return bool(good(self.ask("com.atproto.server.getSession"))["emailConfirmed"])

    def send_code(self) -> str:
        """Have a code sent to the telephone, and read it there."""
        good(self.tell("app.bsky.contact.startPhoneVerification", {"phone": self.number}))
        code = re.search(r"\b(\d{6})\b", self.phone(self.number))
        assert code, "no code in the SMS"
        return code[1]

    def verify_phone(self, code: str) -> Answer:
        return self.tell("app.bsky.contact.verifyPhone", {"phone": self.number, "code": code})

    # --- what people do ---

    def create(self, collection: str, record: Record) -> Record:
        body = {
            "repo": self.did,
            "collection": collection,
            "record": {"$type": collection, "createdAt": now(), **record},
        }
        return good(self.tell("com.atproto.repo.createRecord", body))

    def upload(self, data: bytes, kind: str) -> Record:
        blob: Record = good(self.tell("com.atproto.repo.uploadBlob", data, {"Content-Type": kind}))["blob"]
        return blob

    def post(self, text: str, *pictures: Record) -> Record:
        record: Record = {"text": text}
        if pictures:
            images = [{"alt": "a picture", "image": blob} for blob in pictures]
            record["embed"] = {"$type": "app.bsky.embed.images", "images": images}
        return self.create("app.bsky.feed.post", record)

    def follow(self, other: Person) -> Record:
        return self.create("app.bsky.graph.follow", {"subject": other.did})

    def like(self, post: Record) -> Record:
        return self.create("app.bsky.feed.like", {"subject": {"uri": post["uri"], "cid": post["cid"]}})

    # --- what they see ---

    def posts(self) -> list[Record]:
        """Every post of this person's own repository."""
        found: list[Record] = []
        cursor = ""
        while True:
            more = {"cursor": cursor} if cursor else {}
            page = good(
                self.ask(
                    "com.atproto.repo.listRecords",
                    repo=self.did,
                    collection="app.bsky.feed.post",
                    limit=100,
                    **more,
                )
            )
            found += page["records"]
            cursor = page.get("cursor", "")
            if not cursor:
                return found

    def timeline(self) -> list[Record]:
        return [item["post"] for item in good(self.ask("app.bsky.feed.getTimeline", limit=50))["feed"]]

    def notifications(self) -> list[Record]:
        listed: list[Record] = good(self.ask("app.bsky.notification.listNotifications"))["notifications"]
        return listed

    def blob(self, did: str, cid: str) -> bytes:
        """As it was uploaded."""
        answer = self.ask("com.atproto.sync.getBlob", did=did, cid=cid)
        assert answer.status == 200, answer.body
        return answer.body

    def until(self, seconds: float, what: str, found: Callable[[], Any]) -> Any:
        """What the AppView knows a moment later."""
        deadline = time.monotonic() + seconds
        while not (result := found()):
            assert time.monotonic() < deadline, f"{self.handle}: no {what} within {seconds:g} s"
            time.sleep(0.3)
        return result


def good(answer: Answer) -> Record:
    assert answer.status == 200, (answer.status, answer.body[:500])
    result: Record = answer.json() if answer.body else {}
    return result


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def meet(one: Person, other: Person, picture: bytes, text: str = "hello") -> Record:
    """`one` writes with a picture; `other` follows, likes and sees it; `one` hears of both. The post."""
    blob = one.upload(picture, "image/png")
    other.follow(one)
    post = one.post(text, blob)
    other.like(post)
    seen = other.until(
        20, "post in the timeline", lambda: [item for item in other.timeline() if item["uri"] == post["uri"]]
    )[0]
    assert seen["author"]["handle"] == one.handle and seen["record"]["text"] == text
    assert other.blob(one.did, blob["ref"]["$link"]) == picture
    # As the apps show it: made by the AppView from the blob that it fetched from the PDS.
    shown = other.doors.request("GET", seen["embed"]["images"][0]["thumb"])
    kind = {key.lower(): value for key, value in shown.headers.items()}.get("content-type", "")
    assert shown.status == 200 and kind in ("image/webp", "image/jpeg"), (shown.status, kind)
    one.until(
        20, "notifications", lambda: {"follow", "like"} <= {item["reason"] for item in one.notifications()}
    )
    return post
