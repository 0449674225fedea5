"""Keeps secrets out of whatever is shown or logged, as a last wall behind not putting them there."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from deployer.core.errors import DeployError
from deployer.core.events import Event, Sink
from deployer.core.model import Project

# Shorter values would mask ordinary words.
SHORTEST = 8


class Mask:
    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str], project: Project) -> None:
        """secrets: values of the bundle. The passwords of smarthosts, carriers, DNS vendors and repositories are added."""
        from deployer.project.zones import secret

        inventory = project.inventory
        passwords = [item.password for item in inventory.smarthosts] + [
            item.password for item in inventory.carriers
        ]
        passwords += [
            str(value) for service in inventory.dns for key, value in service.options.items() if secret(key)
        ]
        passwords += [
            value for one in inventory.repositories for value in (one.secret, one.prune_secret) if value
        ]
        for value in (*secrets, *passwords):
            # Of keys, each line is a secret of its own (a log shows lines).
            lines = [line for line in value.splitlines() if line and not line.startswith("-----")]
            self._values.update(line for line in lines if len(line) >= SHORTEST)
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def text(self, text: str) -> str:
        return self._pattern.sub("***", text) if self._pattern else text

    def _any(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self._any(item) for key, item in value.items()}
        return [self._any(item) for item in value] if isinstance(value, list | tuple) else value

    def event(self, event: Event) -> Event:
        return dataclasses.replace(event, text=self.text(event.text), data=self._any(event.data))

    def sink(self, sink: Sink) -> Sink:
        return lambda event: sink(self.event(event))

    def error(self, error: DeployError) -> None:
        """Mask the error's own texts in place."""
        error.why, error.detail, error.next = (
            self.text(part) for part in (error.why, error.detail, error.next)
        )
