"""The flow's end of the engine: start the child process, send requests, hand on events."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.events import Event, Sink


class EngineFailure(DeployError):
    """The engine answered with an error, or died."""


class Engine:
    """One child process. Start it early: it imports for half a second while the project is read."""

    def __init__(self, sink: Sink, *, debug: bool = False) -> None:
        environment = dict(os.environ)
        if debug:
            environment["DEPLOY_ENGINE_DEBUG"] = "1"
        self.sink = sink
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "deployer.engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debug else subprocess.DEVNULL,
            # Ctrl-C is for the flow, which stops the engine in order.
            start_new_session=True,
            env=environment,
        )
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            message = json.loads(line)
            if "event" in message:
                self.sink(Event(**message["event"]))
                continue
            with self._lock:
                future = self._waiting.pop(message["id"], None)
            if future and not future.cancelled():
                if "error" in message:
                    error = message["error"]
                    next = "run it again with --debug" if error.get("fault") else ""
                    future.set_exception(
                        EngineFailure(
                            "talking to the machine",
                            error["why"],
                            next,
                            machine=error.get("machine"),
                            detail=error.get("detail", ""),
                        )
                    )
                else:
                    future.set_result(message["result"])
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(
                EngineFailure(
                    "talking to the machines", "the engine process ended", "run it again with --debug"
                )
            )

    def send(self, verb: str, **arguments: Any) -> Future[Any]:
        """Send a request; the answer comes as the future's result."""
        number = next(self._numbers)
        future: Future[Any] = Future()
        line = json.dumps({"id": number, "verb": verb, **arguments}, separators=(",", ":")) + "\n"
        assert self._process.stdin
        with self._lock:
            self._waiting[number] = future
            try:
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()
            except OSError:
                self._waiting.pop(number, None)
                raise EngineFailure(
                    "talking to the machines", "the engine process ended", "run it again with --debug"
                ) from None
        return future

    def ask(self, verb: str, *, bound: float, **arguments: Any) -> Any:
        """Send and wait, at most `bound` seconds."""
        try:
            return self.send(verb, **arguments).result(bound)
        except FutureTimeout:
            raise EngineFailure(
                "talking to the machines", f"no answer to {verb} within {bound:g} s"
            ) from None

    def run(
        self, machine: str, command: str, *, stdin: str = "", timeout: float = 30
    ) -> tuple[int, str, str]:
        """A shell command on a machine: exit code, standard output, standard error."""
        answer = self.ask(
            "run", bound=timeout + 30, machine=machine, command=command, stdin=stdin, timeout=timeout
        )
        return answer["code"], answer["stdout"], answer["stderr"]

    def close(self) -> None:
        """End the child process; a remote command that still runs ends with its connection."""
        assert self._process.stdin
        try:
            self._process.stdin.close()
            self._process.wait(2)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait(5)
