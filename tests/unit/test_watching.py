"""Watching a real HTTPS server on loopback that is slow, holds requests, or is dead for a while."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from deployer.core.component import Probe
from deployer.core.events import Event, discard
from deployer.flow.watching import PACES, Pace, Target, Watch
from deployer.probes import series
from deployer.probes.series import Names, percentiles
from deployer.probes.timeline import Thinned, Timeline
from tests.unit.test_probes import HOST, Authority, Mailbox, Web, serve_mail

QUICK = {"https": Pace(0.05, 40, 5.0), "smtp": Pace(0.3, 2, 5.0), "sms_api": Pace(0.3, 2, 5.0)}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


class Front(Web):
    """A web server that can hold its answers, and be dead."""

    def __init__(self, authority: Authority) -> None:
        self.open = threading.Event()
        self.open.set()
        self.status = 200
        super().__init__(authority.server)
        self.answer = self._answer

    def _answer(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        self.open.wait(10)
        return self.status, "hello"

    def die(self) -> None:
        # The thread in accept() keeps the socket alive until it is shut down.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def revive(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()


@pytest.fixture
def front(authority: Authority) -> Iterator[Front]:
    server = Front(authority)
    yield server
    server.open.set()
    server.listener.close()


def target(front: Front, host: str = HOST) -> Target:
    probe = Probe("https front", "https", {"url": f"https://{host}:{front.port}/", "status": "<500"})
    return Target(probe, lambda: "127.0.0.1")


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_service_that_answers_has_no_pause(front: Front, authority: Authority) -> None:
    before = time.time()
    with Watch([target(front)], discard, authority.pem, QUICK) as watch:
        until(lambda: watch.result().https.requests >= 10)
    found = watch.result()
    assert before - 0.01 <= found.started < found.ended <= time.time() + 0.01
    assert (found.failed, found.https.open, found.https.failures) == (0, 0, ())
    assert 0 < found.pause < 4 and 0 < found.https.longest_wait < 4
    assert set(found.https.waits) == {"50", "95", "99"}
    assert len(found.https.timeline) == found.https.requests
    assert watch.result() == found, "nothing is counted after the end"


def test_held_requests_stop_none_and_are_the_pause(front: Front, authority: Authority) -> None:
    told: list[Event] = []
    with Watch([target(front)], told.append, authority.pem, QUICK) as watch:
        until(lambda: watch.result().https.requests >= 3)
        front.open.clear()
        held = time.time()
        time.sleep(1.5)
        now = watch.result()
        assert now.https.open > 5, "others follow the one that waits"
        assert now.pause > 1.2 and now.https.longest_wait > 1, "told while it lasts"
        front.open.set()
        until(lambda: watch.result().https.open <= 2)
    found = watch.result()
    assert found.failed == 0
    assert 1.3 < found.pause < 8 and abs(found.https.pause_at - held) < 3
    assert 1.0 < found.https.longest_wait < 8
    assert found.https.waits["99"] > 1
    assert [event.kind for event in told] == ["notice"]
    assert told[0].text.startswith("https front answers again, after ")


def test_no_more_are_begun_than_may_be_under_way(front: Front, authority: Authority) -> None:
    front.open.clear()
    with Watch([target(front)], discard, authority.pem, {"https": Pace(0.02, 4, 5.0)}) as watch:
        until(lambda: watch.result().https.skipped > 3)
        assert watch.result().https.open == 4
        front.open.set()
    found = watch.result()
    assert found.https.open == 0 and found.failed == 0
    assert found.pause > 0.1, "nothing was answered from the beginning on"


def test_a_dead_service_is_counted_with_moment_and_reason(front: Front, authority: Authority) -> None:
    told: list[Event] = []
    with Watch([target(front)], told.append, authority.pem, QUICK) as watch:
        until(lambda: watch.result().https.requests >= 3)
        front.die()
        until(lambda: watch.result().failed >= 3)
        time.sleep(1)
        front.revive()
        failed = watch.result().failed
        until(lambda: any(event.kind == "notice" for event in told))
    found = watch.result()
    assert failed <= found.failed < found.https.requests
    assert len(found.https.failures) == found.failed
    assert found.https.failures[-1].why == "Connection refused"
    assert found.started <= found.https.failures[0].at <= found.ended
    assert found.pause > 1
    assert [event.kind for event in told] == ["probe", "notice"], "one line, not one for each request"
    assert told[0].status == "failed"
    assert [good for _, _, good in found.https.timeline].count(False) == found.failed


def test_an_error_of_the_server_is_a_failure(front: Front, authority: Authority) -> None:
    front.status = 503
    with Watch([target(front)], discard, authority.pem, QUICK) as watch:
        until(lambda: watch.result().failed >= 2)
    found = watch.result()
    assert found.failed == found.https.requests
    assert found.https.failures[0].why == "status 503 instead of <500"
    assert found.pause == pytest.approx(found.ended - found.started, abs=0.01), "there was no good answer"


def test_a_time_out_is_a_failure(front: Front, authority: Authority) -> None:
    front.open.clear()
    with Watch([target(front)], discard, authority.pem, {"https": Pace(0.2, 10, 0.5)}) as watch:
        until(lambda: watch.result().failed >= 2)
    assert watch.result().https.failures[0].why == "no answer within 0.5 s"
    assert watch.result().https.longest_wait >= 0.5


def test_the_end_waits_for_nobody_when_there_was_an_error(front: Front, authority: Authority) -> None:
    front.open.clear()
    with pytest.raises(KeyError):
        with Watch([target(front)], discard, authority.pem, QUICK) as watch:
            until(lambda: watch.result().https.open > 2)
            began = time.monotonic()
            raise KeyError
    assert time.monotonic() - began < 2
    found = watch.result()
    assert found.https.open > 2 and found.https.requests == 0


def test_names_are_resolved_anew_and_address_stands_in(
    front: Front, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, str] = {}

    def resolve(name: str, port: object, **how: object) -> list[object]:
        if name not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [
            (socket.AF_INET6, 1, 6, "", ("::2", 0, 0, 0)),
            (socket.AF_INET, 1, 6, "", (known[name], 0)),
        ]

    monkeypatch.setattr(series, "AGAIN", 0.2)
    where: list[str] = []
    mine = replace(target(front), address=lambda: where[-1] if where else "")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    names = Names()
    assert names.address(HOST) == ""
    known[HOST] = "192.0.2.1"
    assert names.address(HOST) == "", "not asked again at once"
    time.sleep(0.3)
    assert names.address(HOST) == "192.0.2.1", "IPv4 goes first"
    known[HOST] = "192.0.2.2"
    assert names.address(HOST) == "192.0.2.2", "anew each time"
    known.clear()
    series_ = series.Series([mine], QUICK["https"], authority.pem, names, discard)
    assert series_._address(mine) == ""
    where.append("127.0.0.1")
    assert series_._address(mine) == "127.0.0.1"
    assert series_._address(replace(mine, address=None)) == "", "the probe names none"


def test_a_slow_resolver_is_not_measured_as_the_service(
    front: Front, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(name: str, *rest: object, **how: object) -> list[object]:
        time.sleep(3)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda name, *a, **k: (resolve if name == HOST else real)(name, *a, **k)
    )
    with Watch([target(front)], discard, authority.pem, QUICK) as watch:
        until(lambda: watch.result().https.requests >= 10)
    assert watch.result().failed == 0
    assert watch.result().https.longest_wait < 2.8


def test_a_name_that_nobody_knows_is_a_failure(authority: Authority) -> None:
    probe = Probe("web", "https", {"url": "https://nowhere.invalid/"})
    with Watch([Target(probe, lambda: "")], discard, authority.pem, QUICK) as watch:
        until(lambda: watch.result().failed > 0)
    [first, *_] = watch.result().https.failures
    assert first.why == "nowhere.invalid does not resolve, and no address is known"


def test_mail_and_sms_are_asked_beside(front: Front, authority: Authority) -> None:
    gateway = Front(authority)
    gateway.answer = lambda path, headers: (200, json.dumps({"status": "ok"}))
    mail = serve_mail(Mailbox(), authority.server)
    port = next(mail)
    url = f"https://{HOST}:{gateway.port}/health"
    targets = [
        target(front),
        Target(
            Probe("mail", "smtp", {"hostname": HOST, "port": port, "recipient": f"postmaster@{HOST}"}),
            lambda: "127.0.0.1",
        ),
        Target(Probe("sms", "sms_api", {"url": url, "user": "u", "password": "p-4711"}), lambda: "127.0.0.1"),
    ]
    try:
        with Watch(targets, discard, authority.pem, QUICK) as watch:
            until(lambda: all(one.requests >= 2 for one in watch.result().others.values()))
    finally:
        next(mail, None)
        gateway.listener.close()
    found = watch.result()
    assert set(found.others) == {"smtp", "sms_api"}
    assert not [one.failures for one in found.others.values() if one.failures]
    text = json.dumps(found.to_json())
    assert "p-4711" not in text
    body = json.loads(text)
    assert body["requests"] == found.https.requests and body["others"]["smtp"]["requests"] >= 2
    assert body["timeline"][0][2] is True


def test_the_paces_are_those_of_the_issue() -> None:
    assert (PACES["https"].every, PACES["https"].most, PACES["https"].bound) == (0.1, 40, 40)
    assert PACES["smtp"].every == PACES["sms_api"].every == 5


# --- figures ---


def test_percentiles_are_by_the_nearest_rank() -> None:
    assert percentiles([]) == {}
    assert percentiles([3.0]) == {"50": 3.0, "95": 3.0, "99": 3.0}
    assert percentiles(range(1, 101)) == {"50": 50, "95": 95, "99": 99}


def test_thinning_keeps_the_worst() -> None:
    thinned = Thinned(10)
    for number in range(1000):
        thinned.add((float(number), 0.5 if number == 617 else 0.01, number != 333))
    entries = thinned.entries()
    assert len(entries) <= 11
    assert (333.0, 0.01, False) in entries and (617.0, 0.5, True) in entries


def test_a_long_timeline_keeps_the_pause_whole() -> None:
    timeline = Timeline()
    for number in range(200_000):
        held = 100_000 <= number < 100_060
        timeline.add(number / 10, (100_060 - number) / 10 if held else 0.02, True)
    entries = timeline.entries()
    assert len(entries) < 3000
    near = [entry for entry in entries if 9_995 <= entry[0] < 10_010]
    assert len(near) == 150, "each request around the pause"
    assert max(entry[1] for entry in entries) == 6.0
    assert list(entries) == sorted(entries)
