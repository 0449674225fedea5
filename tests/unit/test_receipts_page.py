"""The page of a receipt: self-contained, escaped, and drawn from numbers."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from deployer.core.errors import DeployError
from deployer.flow.receipts_page import bars, charts, render
from deployer.flow.story import Phase, tell
from tests.unit.test_receipts import DRILL, HELD, MIGRATE, NOON, RESTORE, UP, WATCH

HOSTILE = """</svg></style><script>alert('1')</script><img src=https://evil.example onerror="x">&"""
# May lead out of the page.
LEADS = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background", "style"}
VOID = {"meta", "line", "rect", "path"}


class Reader(HTMLParser):
    """Tags with their attributes, and the text; fails for tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def page(verb: str, body: dict[str, Any], root: Path) -> str:
    return render(tell(f"{verb}-agora@aws-20261124T120000Z", verb, "agora@aws", NOON, body), root)


def hostile(found: Any) -> Any:
    """The same with every text replaced."""
    if isinstance(found, dict):
        return {key: hostile(value) for key, value in found.items()}
    if isinstance(found, list):
        return [hostile(value) for value in found]
    return HOSTILE if isinstance(found, str) else found


@pytest.mark.parametrize("change", [lambda body: body, hostile], ids=["plain", "hostile"])
@pytest.mark.parametrize("verb", ["up", "restore", "drill", "migrate"])
def test_nothing_is_fetched_and_nothing_runs(verb: str, change: Any, tmp_path: Path) -> None:
    body = {"up": UP, "restore": RESTORE, "drill": DRILL, "migrate": MIGRATE}[verb]
    body = {**body, "urls": ["https://agora.example/"], "notes": ["see https://agora.example/"]}
    text = page(verb, change(body), tmp_path)
    read = Reader(text)
    assert not read.open
    for tag, attributes in read.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "a", "use", "foreignobject"), tag
        assert not LEADS & set(attributes), f"{tag} {attributes}"
        assert not [name for name in attributes if name.startswith("on")]
        for value in attributes.values():
            assert not re.search(r"https?:|//", value or ""), f"{tag} {attributes}"
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert not re.search(r"url\(|@import|https?:", style)
    assert "prefers-color-scheme: dark" in style and "@media print" in style
    assert "default-src 'none'" in text
    assert HOSTILE not in text


def test_hostile_texts_are_shown_as_they_are(tmp_path: Path) -> None:
    body = hostile({key: value for key, value in MIGRATE.items() if key != "watch"})
    body["watch"] = {**WATCH, "failures": [{"at": HELD, "name": HOSTILE, "why": HOSTILE}]}
    read = Reader(page("migrate", body, tmp_path))
    text = "".join(read.text)
    assert text.count(HOSTILE) > 6
    assert "script" not in [tag for tag, _ in read.tags]


def test_the_page_of_a_migrate_has_it_all(tmp_path: Path) -> None:
    text = page("migrate", MIGRATE, tmp_path)
    said = " ".join(" ".join(Reader(text).text).split())
    for words in (
        "From agora@hetzner to agora@aws",
        "2026-11-24 12:00:00 UTC, 2 min 00 s: good",
        "6.3 s pause",
        "0 failed requests",
        "31.0 MiB moved",
        "Around the pause",
        "Shaded: the machines held requests",
        "6.1 s, of it 4.0 s the app's own start",
        "database standby 40 s 38 % 30.0 MiB",
        "all phases 1 min 46 s",
        "positions: 0/5000060 on both sides",
        "agora-all-1: cache/reads green",
        "the way back: deploy migrate --back",
        "Requests that failed",
    ):
        assert words in said, words
    assert text.count("<svg") == 3


def test_pages_of_little_or_nothing(tmp_path: Path) -> None:
    said = "".join(Reader(page("somethingnew", {}, tmp_path)).text)
    assert "deploy somethingnew of agora@aws" in said and "Phases" not in said
    odd = {
        "phases": [{"name": None, "seconds": 0}, {"seconds": "x"}, 4],
        "watch": {
            "started": 1e300,
            "timeline": [[0, 1, 1], ["a", 1, 1], [1], None, [-1, 2, 3], [0, 1e300, 1]],
        },
    }
    Reader(page("migrate", odd, tmp_path))
    Reader(page("migrate", {"watch": {"started": 1.0, "timeline": [[0.0, 0.0, True]]}}, tmp_path))


def test_phases_follow_one_another() -> None:
    first, second, third = bars([Phase("a", 30), Phase("b", 0), Phase("c", 10)])
    assert first.x + first.width == pytest.approx(second.x, abs=0.2)
    assert second.width > 0, "one of no time is seen too"
    assert third.width == pytest.approx(first.width / 3, abs=0.2)
    assert third.x + third.width + 60 < 720, "its time is beside it"
    assert [bar.y for bar in (first, second, third)] == [0, 24, 48]
    assert bars([Phase("a", 0)])[0].width > 0


def test_requests_are_drawn_where_they_began() -> None:
    entries = [[float(second), 0.5, second != 50] for second in range(100)]
    watch = {"started": HELD, "ended": HELD + 100, "timeline": entries, "pause": 0.4, "pause_at": HELD + 50}
    near, whole = charts(tell("x", "migrate", "a@b", NOON, {"watch": watch}))
    assert whole.good.count("M") == 99 and whole.bad.count("M") == 1
    assert re.fullmatch(r"M[\d.]+ 204V[\d.]+", whole.bad)
    assert near.good.count("M") < 10 and near.bad.count("M") == 1
    assert [label for _, label in whole.x] == ["0 s", "15 s", "30 s", "45 s", "1 min"] or whole.x[0][
        1
    ] == "0 s"
    assert near.title.startswith("Around the pause: from 12:01:48.0 to ")


def test_a_template_of_the_projects_own(tmp_path: Path) -> None:
    own = tmp_path / "templates" / "receipts" / "page.html.j2"
    own.parent.mkdir(parents=True)
    own.write_text("<p>{{ story.title }}")
    assert page("migrate", {"from": "<a>", "to": "b"}, tmp_path) == "<p>From &lt;a&gt; to b"
    own.write_text("{{ nothing.at.all }}")
    with pytest.raises(
        DeployError, match=r"making the page: receipts/page\.html\.j2: 'nothing' is undefined"
    ):
        page("migrate", {}, tmp_path)
