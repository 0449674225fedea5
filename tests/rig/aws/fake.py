"""The server: every call is counted, may be struck by a fault, and goes to moto or to what moto leaves out."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.rig.aws import wire
from tests.rig.aws.wire import Answer, Request
from tests.rig.hetzner.faults import AFTER, BEFORE, Call, Calls, Faults
from tests.rig.hetzner.hardware import Hardware, OnPaper

IMAGES = Path(__file__).with_name("images.json")
REGION = "eu-central-1"
ACCOUNT = "123456789012"
# Whatever it is: moto does not look at it.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIARIG0000000000000", "AWS_SECRET_ACCESS_KEY": "rig"}


class AwsCalls(Calls):
    """Every call; one that asks the same question again counts once, as the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: set[bytes] = set()

    def clear(self) -> None:
        super().clear()
        self._asked = set()

    def note_request(self, request: Request) -> Call | None:
        if request.action.startswith("Describe"):
            if request.body in self._asked:
                return None
            self._asked.add(request.body)
        return self.note("POST", request.action)


class FakeAws:
    """`endpoint` is for the provider's option of that name. One of them at a time: moto keeps its state in its modules."""

    def __init__(self, hardware: Hardware | None = None, port: int = 0) -> None:
        os.environ["MOTO_AMIS_PATH"] = str(IMAGES)
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        from tests.rig.aws.behaviour import Behaviour

        self.calls = AwsCalls()
        self.faults = Faults()
        # Every call ever, as "ec2:RunInstances": what a policy must allow.
        self.actions: set[str] = set()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.behaviour = Behaviour(self._moto, hardware or OnPaper(), self.faults)
        self.reset()
        self._serve(port)

    def reset(self) -> None:
        """Forget everything: an account in which nothing was ever made."""
        from moto.moto_api._internal.models import moto_api_backend

        moto_api_backend.reset()
        self.behaviour.reset()
        self.faults.clear()
        self.calls.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
        self.behaviour.close()

    def backend(self, region: str = REGION) -> Any:
        """moto's own records of EC2, for tests that look or meddle."""
        from moto.ec2.models import ec2_backends

        return ec2_backends[ACCOUNT][region]

    # --- the server ---

    def _serve(self, port: int) -> None:
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log(self, type: str, message: str, *args: object) -> None:
                """Tests print enough."""

        self._server = make_server("127.0.0.1", port, self._application, threaded=True, request_handler=Quiet)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def _application(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        request = wire.read(environ)
        self.actions.add(f"{request.service}:{request.action}")
        call = self.calls.note_request(request)
        answer = self._strike(BEFORE, call, request)
        if answer is None:
            answer = self.behaviour.answer(request)
            answer = self._strike(AFTER, call, request) or answer
        if answer.status == 0:
            return self._drop(environ, start)
        headers = {**answer.headers, "Content-Length": str(len(answer.body))}
        start(f"{answer.status} {'OK' if answer.status < 300 else 'Error'}", list(headers.items()))
        return [answer.body]

    def _strike(self, when: str, call: Call | None, request: Request) -> Answer | None:
        if when == BEFORE and self.faults.limited:
            return wire.refuse(request, 503, "RequestLimitExceeded", "Request limit exceeded.")
        fault = self.faults.strike(when, call)
        if fault is None:
            return None
        if fault.hook:
            fault.hook()
        if fault.status == 0:
            return Answer(0, b"")
        return wire.refuse(request, fault.status, fault.code, fault.message)

    @staticmethod
    def _drop(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Close the connection without an answer."""
        import socket

        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start("500 Dropped", [("Content-Length", "0")])
        return [b""]


def main() -> None:
    """Run it by hand: python -m tests.rig.aws.fake [PORT]"""
    import sys

    fake = FakeAws(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(json.dumps({"endpoint": fake.endpoint, **CREDENTIALS}), flush=True)
    try:
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        fake.close()


if __name__ == "__main__":
    main()
