"""JSON lines on standard input, JSON lines on a private copy of standard output.

Request:  {"id": N, "verb": "connect" | "observe" | "apply" | "run", ...}
Answer:   {"id": N, "result": ...}  or  {"id": N, "error": {"why": ..., "machine": ...}}
Event:    {"event": {...}} (the fields of core.events.Event)

Requests run side by side. The end of standard input ends the process: it never outlives its operator.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import gevent
from gevent.fileobject import FileObject
from gevent.lock import Semaphore

from deployer.engine.hosts import EngineError, Hosts
from deployer.engine.phases import Phases


class Server:
    def __init__(self, outgoing: int) -> None:
        # File descriptor that only protocol lines are written to.
        self._outgoing = outgoing
        self._writing = Semaphore()
        self._hosts = Hosts(self.event)
        self._phases = Phases(self._hosts, self.event)
        self._verbs: dict[str, Callable[[dict[str, Any]], Any]] = {
            "connect": self._hosts.connect,
            "observe": self._hosts.observe,
            "run": self._hosts.run,
            "apply": self._phases.apply,
        }

    def _send(self, message: dict[str, Any]) -> None:
        data = (json.dumps(message, separators=(",", ":")) + "\n").encode()
        with self._writing:
            while data:
                data = data[os.write(self._outgoing, data) :]

    def event(self, **fields: Any) -> None:
        self._send({"event": fields})

    def _answer(self, request: dict[str, Any]) -> None:
        number = request.get("id")
        try:
            self._send({"id": number, "result": self._verbs[request["verb"]](request)})
        except EngineError as error:
            self._send({"id": number, "error": error.to_json()})
        except Exception as error:  # the flow shows it as a fault of ours, with its type
            logging.getLogger("deployer.engine").exception("request failed")
            self._send({"id": number, "error": {"why": f"{type(error).__name__}: {error}", "fault": True}})

    def serve(self) -> None:
        for line in FileObject(sys.stdin.fileno(), "rb", close=False):
            gevent.spawn(self._answer, json.loads(line))
        # Standard input ended: our operator is gone or done.
        os._exit(0)


def main() -> None:
    outgoing = os.dup(1)
    # Whatever a library prints must not end up between protocol lines.
    os.dup2(2, 1)
    # pyinfra logs commands and their output; the flow hears what matters by events. The log stays empty unless
    # the operator asked for --debug, and then holds only pyinfra's own warnings.
    logging.disable(logging.CRITICAL if not os.environ.get("DEPLOY_ENGINE_DEBUG") else logging.DEBUG)
    Server(outgoing).serve()
