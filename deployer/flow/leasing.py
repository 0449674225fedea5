"""The lease on the machines, for the time of one verb."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from deployer.core.errors import DeployError
from deployer.core.machine import Machine
from deployer.flow import observe

if TYPE_CHECKING:
    from deployer.flow.session import Session

# Seconds for a machine to answer.
BOUND = 30
# Where the machines keep it; remote/observe.py says the same.
FOLDER = "/var/lib/deploy"


def release_command(id: str, folder: str = FOLDER) -> str:
    """The shell command that takes the lease `id` away, and nobody else's, under the lock of remote/observe.py.

    No Python there: on many machines at once its start would be most of what an unchanged run's end costs.
    """
    take = """grep -qF "\\"$1\\"" lease.json && rm lease.json"""
    return f"cd {shlex.quote(folder)} && flock lease.lock sh -c {shlex.quote(take)} - {shlex.quote(id)}"


class Lease:
    """The lease on every machine of the deployment, for one run: taken by observing, renewed by a thread, released."""

    def __init__(self, session: Session, machines: Mapping[str, Machine], held: Any) -> None:
        from deployer.state import lease

        self._session, self._machines = session, machines
        self._id = held.lease
        self._common = {
            "rule": lease.rule_source(),
            "lease": lease.wanted(self._id).to_json(),
            "ours": list(held.ours),
        }
        self._every = lease.SECONDS / 4
        self._ended = threading.Event()
        self._holding = False

    def take(self) -> dict[str, Any]:
        return dict(self._common)

    def renew_from_now_on(self) -> None:
        self._holding = True
        threading.Thread(target=self._renew, daemon=True).start()

    def _renew(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self._ask()
            except DeployError:
                # The run itself will meet the broken connection, and says it better.
                return

    def _ask(self) -> None:
        requests = {name: {"lease": self._common} for name in self._machines}
        observe.observe(self._session.engine, requests)

    def release(self) -> None:
        """Let others in, on all machines at once. Raises DeployError when one cannot be reached any more."""
        self._ended.set()
        if self._holding:
            self._holding = False
            command = release_command(self._id)
            engine = self._session.engine
            asked = {
                name: engine.send("run", machine=name, command=command, stdin="", timeout=BOUND)
                for name in self._machines
            }
            for name, answer in asked.items():
                try:
                    answer.result(BOUND + 10)
                except FutureTimeout:
                    raise DeployError(
                        "giving the lease back", f"no answer within {BOUND} s", machine=name
                    ) from None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.release()
        except DeployError:
            # Already failing for a better reason; the lease expires by itself.
            pass
