"""The lease on the machines, for the time of one verb."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deployer.core.errors import DeployError
from deployer.core.machine import Machine
from deployer.flow import observe

if TYPE_CHECKING:
    from deployer.flow.session import Session


class Lease:
    """The lease on every machine of the deployment, for one run: taken by observing, renewed by a thread, released."""

    def __init__(self, session: Session, machines: Mapping[str, Machine], held: Any) -> None:
        from deployer.state import lease

        self._session, self._machines = session, machines
        self._common = {
            "rule": lease.rule_source(),
            "lease": lease.wanted(held.lease).to_json(),
            "ours": list(held.ours),
        }
        self._every = lease.SECONDS / 4
        self._ended = threading.Event()
        self._holding = False

    def take(self) -> dict[str, Any]:
        return {**self._common, "do": "take"}

    def renew_from_now_on(self) -> None:
        self._holding = True
        threading.Thread(target=self._renew, daemon=True).start()

    def _renew(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self._ask("take")
            except DeployError:
                # The run itself will meet the broken connection, and says it better.
                return

    def _ask(self, do: str) -> None:
        requests = {name: {"lease": {**self._common, "do": do}} for name in self._machines}
        observe.observe(self._session.engine, requests)

    def release(self) -> None:
        self._ended.set()
        if self._holding:
            self._holding = False
            self._ask("release")

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.release()
        except DeployError:
            # Already failing for a better reason; the lease expires by itself.
            pass
