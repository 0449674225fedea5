"""`hold wait`: requests under way end, long polls are not waited for, and there is a bound."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

HOLD = Path("deployer/components/proxy/service/hold")
Count = Callable[[float], int]


@pytest.fixture
def caddy(tmp_path: Path) -> Iterator[dict[str, Count]]:
    """Caddy's admin socket: how many requests are under way, by the seconds since the first question."""
    count: dict[str, Count] = {}
    began: list[float] = []

    class Admin(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            began.append(time.monotonic())
            assert self.path == "/reverse_proxy/upstreams" and self.headers["Host"] == ""
            busy = count["of"](began[-1] - began[0])
            body = [{"address": "127.0.0.1:8008", "num_requests": busy, "fails": 0}]
            body.append({"address": "127.0.0.1:9999", "num_requests": 7, "fails": 0})
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *words: object) -> None: ...

    server = ThreadingUnixStreamServer(str(tmp_path / "admin.sock"), Admin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield count
    server.shutdown()
    server.server_close()


def wait(folder: Path, seconds: float) -> tuple[int, str, float]:
    text = HOLD.read_text(encoding="utf-8").replace("cd /run/caddy", f"cd {folder}")
    began = time.monotonic()
    words = ["bash", "-c", text, "hold", "wait", str(seconds), "127.0.0.1:8008"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr.strip(), time.monotonic() - began


def test_nobody_is_under_way(caddy: dict[str, Count], tmp_path: Path) -> None:
    caddy["of"] = lambda at: 0
    assert wait(tmp_path, 20)[:2] == (0, "")


def test_a_write_between_its_check_and_itself_is_not_overlooked(
    caddy: dict[str, Count], tmp_path: Path
) -> None:
    asked = iter([1, 0, 1, 1])
    caddy["of"] = lambda at: next(asked, 1 if at < 0.6 else 0)
    code, _, took = wait(tmp_path, 20)
    assert code == 0 and took > 0.6


def test_those_that_end_are_waited_for(caddy: dict[str, Count], tmp_path: Path) -> None:
    caddy["of"] = lambda at: max(0, 4 - int(at / 0.6))
    code, said, took = wait(tmp_path, 20)
    assert (code, said) == (0, "") and took > 2


def test_long_polls_are_not(caddy: dict[str, Count], tmp_path: Path) -> None:
    caddy["of"] = lambda at: 3 if at > 0.3 else 5
    code, said, took = wait(tmp_path, 20)
    assert (code, said) == (1, "3 requests are still under way") and took < 10


def test_it_has_an_end(caddy: dict[str, Count], tmp_path: Path) -> None:
    caddy["of"] = lambda at: 1000 - int(at * 10)
    code, _, took = wait(tmp_path, 2)
    assert code == 1 and 2 <= took < 12
