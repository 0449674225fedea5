"""Where the SMS gateway reports what became of a message: an HTTP server outside, which sees who signed the report."""

from __future__ import annotations

import http.server
import threading
import urllib.parse
from collections import Counter
from typing import Any

from twilio.request_validator import RequestValidator

from tests.rig.world import GATEWAY, World

HOST = "callback.social.test"


class Reports:
    """token: what reports are signed with; set it before the first of them."""

    def __init__(self, rig: World) -> None:
        rig.set_records([{"name": HOST, "type": "A", "value": GATEWAY}])
        self.token = ""
        self.forged: list[str] = []
        self._seen: list[tuple[str, str]] = []
        self._server = http.server.ThreadingHTTPServer((GATEWAY, 0), _handler(self))
        self.url = f"http://{HOST}:{self._server.server_port}/status"

    def __enter__(self) -> Reports:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def delivered(self) -> Counter[str]:
        """Id of a message -> how often its delivery was reported. The dialect allows more than once."""
        return Counter(sid for sid, status in list(self._seen) if status == "delivered")

    def take(self, form: dict[str, str], signature: str) -> None:
        if not RequestValidator(self.token).validate(self.url, form, signature):
            self.forged.append(f"a report of {form.get('MessageSid')} is not signed")
        self._seen.append((form.get("MessageSid", ""), form.get("MessageStatus", "")))


def _handler(reports: Reports) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
            reports.take(form, self.headers["X-Twilio-Signature"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Tests print enough."""

    return Handler
