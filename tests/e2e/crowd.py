"""A crowd that uses a service all at once, and what must be true afterwards of what it did.

Writers post numbered messages and pictures, readers read and wait for news, newcomers sign up, letters and texts go out.
Nothing is tried again: what failed is a failed request, and whether it was done all the same is looked up at the end.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.e2e.lines import POLL, Line, Log, Seen
from tests.e2e.matrix import API, Person, picture
from tests.e2e.reports import Reports
from tests.rig.mail_receiver import MailReceiver
from tests.rig.smpp_carrier import Carrier

# Of so many messages one is a picture.
PICTURES = 5
# Letters and newcomers of one address, below what the app allows (a burst of 10).
OF_ONE_ADDRESS = 8


@dataclass
class Outside:
    """What lies around the service.

    addresses: of the clients, one each, given out in order; digits: telephone numbers of people, of 07700900000 to
    ...299; account: of the SMS API, its name and token; lift: takes the limit on how often they may write from people,
    as an admin would.
    """

    domain: str
    server: str
    ca: str
    receiver: MailReceiver
    carrier: Carrier
    reports: Reports
    account: tuple[str, str]
    addresses: Callable[[], str]
    digits: Callable[[], str]
    lift: Callable[[list[Person]], None]


@dataclass
class Writing:
    """taken: number -> id that the server gave. unsure: numbers without an answer. pictures: uri -> bytes."""

    person: Person
    room: str
    taken: dict[int, str] = field(default_factory=dict)
    unsure: set[int] = field(default_factory=set)
    pictures: dict[str, bytes] = field(default_factory=dict)
    # uri -> seconds since 1970
    uploaded: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pace:
    """Seconds between two of a kind; 0: none."""

    write: float = 0.5
    read: float = 1.0
    pulse: float = 0.2
    newcomer: float = 20.0
    letter: float = 4.0
    text: float = 2.0


class Crowd:
    """`with crowd: ...` lets it work; `check` afterwards."""

    def __init__(self, outside: Outside, writers: int = 3, pace: Pace | None = None) -> None:
        self.outside, self.pace = outside, pace or Pace()
        self.log = Log()
        self.writings: list[Writing] = []
        # What the server has taken; what had no answer. Texts by their words, letters by their address.
        self.texts: dict[str, str] = {}
        self.letters: set[str] = set()
        self.unsure: set[str] = set()
        self.joined = 0
        self.died = 0.0
        self.troubles: list[str] = []
        self._numbers, self._phones = count(1), count()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sign_up(writers)

    # --- life ---

    def __enter__(self) -> Crowd:
        """Again after an end, it goes on with the next numbers."""
        self._ended.clear()
        works: list[Callable[[], None]] = [self._pulse, self._newcomers, self._letters, self._texts]
        for writing in self.writings:
            works += [lambda w=writing: self._write(w), lambda w=writing: self._read(w)]  # type: ignore[misc]
            works.append(lambda w=writing: self._poll(w))  # type: ignore[misc]
        self._threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(180)
            assert not thread.is_alive(), "a client of the crowd does not come to its end"

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.troubles.append(f"a client broke off: {type(error).__name__}: {error}")

    def forget(self) -> None:
        """What went out, and how it went, so far; what was written stays to be looked for."""
        self.log.seen.clear()
        for found in (self.troubles, self.texts, self.letters, self.unsure):
            found.clear()

    def line(self, kind: str, *, kept: bool = True, source: str = "", log: Log | None = None) -> Line:
        out = self.outside
        return Line(log or self.log, out.server, out.ca, source or out.addresses(), kind, kept=kept)

    def person(self, kind: str, source: str = "") -> Person:
        out, digits = self.outside, self.outside.digits()

        def phone(number: str) -> str:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                for one in reversed(out.carrier.messages):
                    if one.recipient.endswith(number.removeprefix("0")):
                        return one.text
                time.sleep(0.1)
            raise TimeoutError(f"no SMS to {number} in 60 s")

        return Person(
            self.line(kind, source=source),  # type: ignore[arg-type]
            out.domain,
            mail=f"person{digits}-{time.time_ns()}@mailbox.test",
            number=digits,
            mailbox=lambda to: out.receiver.wait_for(to, 60).text,
            phone=phone,
        )

    def _sign_up(self, writers: int) -> None:
        people = [self.person("prepare") for _ in range(writers)]
        for one in people:
            assert one.sign_up().status == 200
            one.log_in()
        self.outside.lift(people)
        self.writings = [Writing(one, one.make_room()) for one in people]

    # --- what each one does ---

    def _write(self, writing: Writing) -> None:
        person = writing.person
        person.doors = self.line("write", source=person.doors.source)  # type: ignore[attr-defined,assignment]
        while not self._ended.wait(self.pace.write):
            number = next(self._numbers)
            try:
                content: dict[str, object] = {"msgtype": "m.text", "body": f"number {number}"}
                if number % PICTURES == 0:
                    data = picture()
                    content |= {"msgtype": "m.image", "url": person.upload(data, "image/png")}
                    writing.pictures[str(content["url"])] = data
                    writing.uploaded[str(content["url"])] = time.time()
                writing.taken[number] = person.say(writing.room, {**content, "sent": int(time.time() * 1000)})
            except (OSError, AssertionError, ValueError):
                writing.unsure.add(number)

    def _read(self, writing: Writing) -> None:
        line = self.line("read")
        room = urllib.parse.quote(writing.room)
        url = f"https://{self.outside.domain}{API}/rooms/{room}/messages?dir=b&limit=5"
        while not self._ended.wait(self.pace.read):
            self._quietly(lambda: line.request("GET", url, token=writing.person.token))

    def _poll(self, writing: Writing) -> None:
        line = self.line(POLL)
        since = ""
        while not self._ended.is_set():
            url = f"https://{self.outside.domain}{API}/sync?timeout=10000{since}"
            answer = self._quietly(lambda url=url: line.request("GET", url, token=writing.person.token))
            if answer and answer.status == 200:
                since = f"&since={urllib.parse.quote(answer.json()['next_batch'])}"
            else:
                self._ended.wait(0.5)

    def _pulse(self) -> None:
        """New connections, one after the other: its longest wait is how long the service stood still."""
        line = self.line("pulse", kept=False)
        while not self._ended.wait(self.pace.pulse):
            url = f"https://{self.outside.domain}/_matrix/client/versions"
            self._quietly(lambda url=url: line.request("GET", url))

    def _newcomers(self) -> None:
        while self.pace.newcomer and not self._ended.wait(self.pace.newcomer):
            self.newcomer()

    def newcomer(self) -> None:
        """Somebody signs up with mail and SMS, and logs in."""
        try:
            someone = self.person("sign-up")
            answer = someone.sign_up()
            assert answer.status == 200, answer.body
            someone.log_in()
            self.joined += 1
        except (OSError, AssertionError, TimeoutError, ValueError) as error:
            self.troubles.append(f"a newcomer gave up at {time.time():.1f}: {error}")

    def _letters(self) -> None:
        line = self.line("letter")
        for number in count(1):
            if not self.pace.letter or self._ended.wait(self.pace.letter):
                return
            if number % OF_ONE_ADDRESS == 0:
                line.close()
                line = self.line("letter")
            self.letter(line, f"letter{number}-{time.time_ns()}@mailbox.test")

    def letter(self, line: Line, address: str, secret: str = "") -> None:
        url = f"https://{self.outside.domain}{API}/register/email/requestToken"
        body = {
            "email": address,
            "client_secret": secret or f"s{time.time_ns()}",
            "send_attempt": 1,
        }
        answer = self._quietly(lambda: line.request("POST", url, body))
        if answer and answer.status == 200:
            self.letters.add(address)
        else:
            self.unsure.add(address)

    def _texts(self) -> None:
        line = self.line("text")
        while self.pace.text and not self._ended.wait(self.pace.text):
            self.text(line, f"text {time.time_ns()}")

    def text(self, line: Line, words: str) -> None:
        sid, token = self.outside.account
        form = {
            "To": f"+447700900{300 + next(self._phones) % 700}",
            "From": "+4915100001",
            "Body": words,
            "StatusCallback": self.outside.reports.url,
        }
        basic = base64.b64encode(f"{sid}:{token}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
        url = f"https://sms.{self.outside.domain}/2010-04-01/Accounts/{sid}/Messages.json"
        data = urllib.parse.urlencode(form).encode()
        answer = self._quietly(lambda: line.request("POST", url, data, headers=headers))
        if answer and answer.status == 201:
            self.texts[words] = str(json.loads(answer.body)["sid"])
        else:
            self.unsure.add(words)

    @staticmethod
    def _quietly(ask: Callable[[], Any]) -> Any:
        """The answer, or None; the line has noted why."""
        try:
            return ask()
        except OSError:
            return None

    # --- afterwards ---

    def check(self, *, failed: bool = False, twice: int = 0, patience: float = 60, died: float = 0.0) -> str:
        """Everything acknowledged is there exactly once; the figures in one line. Raises AssertionError with all that is
        not so.

        failed: requests may have failed; twice: so many letters and texts may have come twice; patience: seconds that
        letters, texts and reports are waited for. died: seconds since 1970 at which the disk was lost on which uploads,
        letters and texts of the minute before may have lain alone.
        """
        self.died = died
        wrong = [finding for writing in self.writings for finding in self._of(writing)]
        doubled, late = self._sent(patience)
        wrong += late
        if len(doubled) > twice:
            wrong += [f"{len(doubled)} came more than once: {doubled[:5]}"]
        bad = [str(one) for one in self.log.failed()] + self.troubles
        if not failed and bad:
            wrong += [f"{len(bad)} failed: {bad[:8]}"]
        assert not wrong, "\n".join([*wrong, self.figures()])
        return self.figures()

    def figures(self) -> str:
        kinds = Counter(one.kind for one in self.log.seen)
        taken = sum(len(writing.taken) for writing in self.writings)
        pictures = sum(len(writing.pictures) for writing in self.writings)
        cut = sum(one.failed for one in self.log.seen if one.kind == POLL)
        return (
            f"{sum(kinds.values())} requests, {len(self.log.failed())} failed, {cut} long polls cut, longest wait"
            f" {self.log.longest():.1f} s; {taken} messages, {pictures} pictures, {self.joined} newcomers,"
            f" {len(self.letters)} letters, {len(self.texts)} texts"
        )

    def _of(self, writing: Writing) -> list[str]:
        # What it is refused is a finding, and no failed request of the crowd's.
        line = self.line("check", log=Log())
        person = writing.person
        person.doors = line  # type: ignore[assignment]
        found = held(person, writing.room)
        times = Counter(number for number, _ in found)
        wrong = []
        for number, event in writing.taken.items():
            if times[number] != 1 or (number, event) not in found:
                wrong.append(f"message {number}, which was taken, is there {times[number]} times")
        for number in times:
            if number not in writing.taken and (number not in writing.unsure or times[number] > 1):
                wrong.append(f"message {number} is there {times[number]} times and nobody wrote it so often")
        order = [number for number, _ in found if number in writing.taken]
        if order != sorted(order):
            wrong.append(f"the order of {person.name}'s messages is lost")
        for uri, data in list(writing.pictures.items()):
            try:
                same = person.download(uri) == data
            except (OSError, AssertionError) as error:
                if self._went_with_it(writing.uploaded[uri]):
                    del writing.pictures[uri]
                else:
                    wrong.append(f"the picture {uri}: {error}")
                continue
            if not same:
                wrong.append(f"the picture {uri} has other bytes")
        line.close()
        return wrong

    def _went_with_it(self, at: float) -> bool:
        return bool(self.died) and self.died - 60 < at < self.died + 1

    def _sent(self, patience: float) -> tuple[list[str], list[str]]:
        """What came more than once; what did not come."""
        out = self.outside
        deadline = time.monotonic() + patience
        while True:
            mail = Counter(to for one in out.receiver.received() if one.accepted for to in one.recipients)
            sms = Counter(one.text for one in out.carrier.messages)
            missing = [f"the letter to {to} did not come" for to in self.letters if not mail[to]]
            missing += [f"{words!r} did not come" for words in self.texts if not sms[words]]
            missing = [one for one in missing if not self._went_with_it(_made(one))]
            delivered = out.reports.delivered()
            unreported = [words for words, sid in self.texts.items() if not delivered[sid]]
            missing += [f"no report of {one!r}" for one in unreported if not self._went_with_it(_made(one))]
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        mine = {*self.letters, *self.texts, *self.unsure}
        both = {**mail, **sms}
        return [words for words in mine if both.get(words, 0) > 1], missing + out.reports.forged


def _made(words: str) -> float:
    """Seconds since 1970: a letter's or a text's own words hold their nanoseconds."""
    found = re.search(r"\d{19}", words)
    assert found, words
    return int(found[0]) / 1e9


def held(person: Person, room: str) -> list[tuple[int, str]]:
    """Number and id of each numbered message of a room, oldest first."""
    found: list[tuple[int, str]] = []
    start = ""
    for _ in range(1000):
        path = f"{API}/rooms/{urllib.parse.quote(room)}/messages?dir=f&limit=100{start}"
        answer = person.call("GET", path, token=person.token)
        assert answer.status == 200, answer.body
        page = answer.json()
        for event in page["chunk"]:
            body = str(event.get("content", {}).get("body", ""))
            if event["type"] == "m.room.message" and body.startswith("number "):
                found.append((int(body.split()[1]), event["event_id"]))
        if not page["chunk"] or "end" not in page:
            return found
        start = f"&from={urllib.parse.quote(page['end'])}"
    raise AssertionError("the room does not end")


__all__ = ["Crowd", "Outside", "Pace", "Seen", "Writing", "held"]
