"""People of a Bluesky network who write all at once, and what must be true afterwards of what was acknowledged.

Nothing is tried again: what failed is a failed request, and whether it was done all the same is looked up at the end.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from tests.e2e.atproto import Person, Record, good
from tests.e2e.lines import Line, Log
from tests.e2e.matrix import picture

# Of so many posts one has a picture, and one is liked by the next person.
PICTURES, LIKES = 5, 3
# Seconds between two posts of one person, two looks at the timeline, two new connections.
WRITE, READ, PULSE = 0.7, 2.0, 0.2


@dataclass
class Writing:
    """taken: number -> the post's URI; unsure: numbers without an answer; blobs: CID -> bytes; likes: URIs of likes;
    liked: of what they like."""

    person: Person
    taken: dict[int, str] = field(default_factory=dict)
    unsure: set[int] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    likes: list[str] = field(default_factory=list)
    liked: set[str] = field(default_factory=set)


class SkyCrowd:
    """`with crowd: ...` lets it work; `check` afterwards. person: makes somebody who talks through the given line."""

    def __init__(
        self, line: Callable[[Log, str, bool], Line], person: Callable[[Line], Person], writers: int = 2
    ) -> None:
        self.log, self.troubles = Log(), list[str]()
        self._line, self._numbers, self._ended = line, count(1), threading.Event()
        self._threads: list[threading.Thread] = []
        self.writings = [Writing(person(line(self.log, "prepare", True))) for _ in range(writers)]
        for one in self.writings:
            good(one.person.sign_up())
        for one in self.writings:
            for other in self.writings:
                if other is not one:
                    one.person.follow(other.person)
        self._last: dict[str, Record] = {}

    def __enter__(self) -> SkyCrowd:
        """Again after an end, it goes on with the next numbers."""
        self._ended.clear()
        works: list[Callable[[], None]] = [self._pulse]
        for index, writing in enumerate(self.writings):
            works += [
                lambda w=writing, i=index: self._write(w, i),  # type: ignore[misc]
                lambda w=writing: self._read(w),  # type: ignore[misc]
            ]
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

    # --- what each one does ---

    def _write(self, writing: Writing, index: int) -> None:
        person = writing.person
        person.doors = self._line(self.log, "write", True)  # type: ignore[assignment]
        while not self._ended.wait(WRITE):
            number = next(self._numbers)
            try:
                data = picture() if number % PICTURES == 0 else b""
                blobs = [person.upload(data, "image/png")] if data else []
                post = person.post(f"number {number}", *blobs)
                writing.taken[number] = post["uri"]
                # Before that nobody may read it.
                writing.blobs |= {blob["ref"]["$link"]: data for blob in blobs}
                self._last[person.did] = post
                liked = self._last.get(self.writings[index - 1].person.did)
                # Once: of two likes of a post by the same person, the PDS takes away the first.
                if number % LIKES == 0 and liked and liked["uri"] not in writing.liked:
                    writing.liked.add(liked["uri"])
                    writing.likes.append(person.like(liked)["uri"])
            except (OSError, AssertionError, ValueError):
                writing.unsure.add(number)

    def _read(self, writing: Writing) -> None:
        line = self._line(self.log, "read", True)
        url = f"https://{writing.person.domain}/xrpc/app.bsky.feed.getTimeline?limit=10"
        while not self._ended.wait(READ):
            try:
                line.request("GET", url, token=writing.person.token)
            except OSError:
                continue

    def _pulse(self) -> None:
        """New connections, one after the other: its longest wait is how long the service stood still."""
        line = self._line(self.log, "pulse", False)
        domain = self.writings[0].person.domain
        while not self._ended.wait(PULSE):
            try:
                line.request("GET", f"https://{domain}/xrpc/com.atproto.server.describeServer")
            except OSError:
                continue

    # --- what is true afterwards ---

    def check(self, *, failed: bool = False) -> str:
        """Everything acknowledged is there exactly once, in the repositories and in the AppView; the figures in one line."""
        wrong: list[str] = []
        for writing in self.writings:
            writing.person.log_in()
            wrong += self._of(writing)
        bad = [str(one) for one in self.log.failed()] + self.troubles
        if not failed and bad:
            wrong += [f"{len(bad)} failed: {bad[:8]}"]
        assert not wrong, "\n".join([*wrong, self.figures()])
        return self.figures()

    def _of(self, writing: Writing) -> list[str]:
        person = writing.person
        listed = Counter(str(one["value"]["text"]) for one in person.posts())
        lost = [number for number in writing.taken if not listed[f"number {number}"]]
        twice = [text for text, times in listed.items() if times > 1]
        wrong = [f"{person.handle}: lost posts {lost[:10]}"] if lost else []
        wrong += [f"{person.handle}: twice: {twice[:10]}"] if twice else []
        for cid, data in writing.blobs.items():
            if person.blob(person.did, cid) != data:
                wrong.append(f"{person.handle}: blob {cid} is another")
        likes = {one["uri"] for one in self._likes(person)}
        if gone := set(writing.likes) - likes:
            wrong.append(f"{person.handle}: lost likes {sorted(gone)[:5]}")
        return wrong + self._unseen(writing)

    def _likes(self, person: Person) -> list[Record]:
        found: list[Record] = []
        cursor = ""
        while True:
            more = {"cursor": cursor} if cursor else {}
            page = good(
                person.ask(
                    "com.atproto.repo.listRecords",
                    repo=person.did,
                    collection="app.bsky.feed.like",
                    limit=100,
                    **more,
                )
            )
            found += page["records"]
            cursor = page.get("cursor", "")
            if not cursor:
                return found

    def _unseen(self, writing: Writing) -> list[str]:
        """The AppView shows what the repositories hold; it may be a moment behind."""
        person = writing.person
        deadline = time.monotonic() + 60
        while True:
            seen = self.feed(person)
            missing = set(writing.taken.values()) - seen
            if not missing:
                return []
            if time.monotonic() > deadline:
                return [f"{person.handle}: the AppView lacks {len(missing)} posts: {sorted(missing)[:3]}"]
            time.sleep(1)

    def feed(self, person: Person) -> set[str]:
        found: set[str] = set()
        cursor = ""
        while True:
            more = {"cursor": cursor} if cursor else {}
            page = good(person.ask("app.bsky.feed.getAuthorFeed", actor=person.did, limit=100, **more))
            found |= {item["post"]["uri"] for item in page["feed"]}
            cursor = page.get("cursor", "")
            if not cursor or not page["feed"]:
                return found

    def figures(self) -> str:
        posts = sum(len(one.taken) for one in self.writings)
        blobs = sum(len(one.blobs) for one in self.writings)
        likes = sum(len(one.likes) for one in self.writings)
        return (
            f"{len(self.log.seen)} requests, {len(self.log.failed())} failed, longest wait {self.log.longest():.1f} s; "
            f"{posts} posts, {blobs} blobs, {likes} likes"
        )
