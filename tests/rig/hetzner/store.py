"""What the vendor keeps: resources, actions that take time, and the numbers of an account."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Record = dict[str, Any]

# Which kinds carry labels and names of their own.
KINDS = ("servers", "volumes", "firewalls", "networks", "ssh_keys", "primary_ips", "zones")
LABEL = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
VALUE = re.compile(r"|[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class ApiError(Exception):
    """An answer that says no."""

    def __init__(self, status: int, code: str, message: str, details: Record | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, "details": details}}


def invalid(field_name: str, why: str) -> ApiError:
    details = {"fields": [{"name": field_name, "messages": [why]}]}
    return ApiError(422, "invalid_input", f"invalid input in field '{field_name}': {why}", details)


def not_found(singular: str, which: object) -> ApiError:
    return ApiError(404, "not_found", f"{singular} with ID '{which}' not found")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def public(record: Record) -> Record:
    """What an answer shows of a record: keys that begin with "_" are the rig's own."""
    return {key: value for key, value in record.items() if not key.startswith("_")}


@dataclass
class Action:
    """Something that takes time. Its effect happens when it is due and its job (a real machine) is done."""

    id: int
    command: str
    resources: list[Record]
    due: float
    effect: Callable[[], None]
    job: Future[None] | None = None
    began: float = field(default_factory=time.monotonic)
    started: str = field(default_factory=now)
    finished: str | None = None
    error: Record | None = None

    @property
    def status(self) -> str:
        return "running" if self.finished is None else "error" if self.error else "success"

    def show(self) -> Record:
        share = (time.monotonic() - self.began) / max(self.due - self.began, 0.001)
        return {
            "id": self.id,
            "command": self.command,
            "status": self.status,
            "progress": 100 if self.finished else min(99, int(share * 100)),
            "started": self.started,
            "finished": self.finished,
            "resources": self.resources,
            "error": self.error,
        }


class Store:
    """All state, behind one lock that the server holds while it answers a request."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tables: dict[str, dict[int, Record]] = {kind: {} for kind in KINDS}
        self.actions: dict[int, Action] = {}
        # Most of each kind that the account may have.
        self.limits: dict[str, int] = dict.fromkeys(KINDS, 100)
        # Seconds that actions take, by command; "" for all others.
        self.durations: dict[str, float] = {"": 0.02}
        self._ids = itertools.count(1001)
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="hetzner-machine")

    def close(self) -> None:
        self._pool.shutdown()

    def add(self, kind: str, record: Record) -> Record:
        """Give it an id and a time, and keep it. Raises ApiError for a name that is taken, or the account's limit."""
        table = self.tables[kind]
        if any(item["name"] == record["name"] for item in table.values()):
            raise taken("name", f"{kind[:-1]} name is already used")
        if len(table) >= self.limits[kind]:
            details = {"limits": [{"name": f"{kind[:-1]}_limit"}]}
            raise ApiError(403, "resource_limit_exceeded", f"{kind[:-1]} limit exceeded", details)
        made = {"id": next(self._ids), "created": now(), "_made": time.monotonic(), **record}
        table[made["id"]] = made
        return made

    def get(self, kind: str, which: object) -> Record:
        """By its id. Raises ApiError."""
        try:
            return self.tables[kind][int(str(which))]
        except (KeyError, ValueError):
            raise not_found(kind[:-1], which) from None

    # --- actions ---

    def begin(
        self,
        command: str,
        resources: Iterable[tuple[str, int]],
        effect: Callable[[], None] = lambda: None,
        job: Callable[[], None] | None = None,
        after: Action | None = None,
    ) -> Action:
        """Start an action. after: another one that must be done before."""
        seconds = self.durations.get(command, self.durations[""])
        begin = max(time.monotonic(), after.due if after else 0)
        shown = [{"id": number, "type": kind} for kind, number in resources]
        action = Action(next(self._ids), command, shown, begin + seconds, effect)
        action.job = self._pool.submit(job) if job else after.job if after else None
        self.actions[action.id] = action
        return action

    def settle(self) -> None:
        """Let happen what is due."""
        for action in sorted(self.actions.values(), key=lambda item: (item.due, item.id)):
            if action.finished or action.due > time.monotonic() or (action.job and not action.job.done()):
                continue
            action.finished = now()
            failure = action.job.exception() if action.job else None
            if failure:
                action.error = {"code": "action_failed", "message": str(failure)}
            elif action.error is None:
                action.effect()

    def busy(self, kind: str, number: int) -> bool:
        """Whether an action on the resource is running, which locks it."""
        wanted = {"id": number, "type": kind}
        return any(action.finished is None and wanted in action.resources for action in self.actions.values())


def taken(field_name: str, message: str) -> ApiError:
    return ApiError(409, "uniqueness_error", message, {"fields": [{"name": field_name}]})


def labels(body: Record) -> dict[str, str]:
    """The labels of a request, checked as the vendor does."""
    found: dict[str, str] = body.get("labels") or {}
    for key, value in found.items():
        if not LABEL.fullmatch(key) or key.startswith("hetzner.cloud/"):
            raise invalid("labels", f"invalid key {key!r}")
        if not VALUE.fullmatch(value):
            raise invalid("labels", f"invalid value {value!r}")
    return dict(found)


def selected(selector: str, found: dict[str, str]) -> bool:
    """Whether labels match a selector of the vendor's language (docs.hetzner.cloud, "Label Selector")."""
    # Commas in parentheses belong to a set.
    for term in re.split(r",(?![^()]*\))", selector):
        term = term.strip()
        if match := re.fullmatch(r"([^\s!=]+)\s+(in|notin)\s+\(([^)]*)\)", term):
            values = {value.strip() for value in match[3].split(",")}
            good = (found.get(match[1]) in values) == (match[2] == "in")
        elif match := re.fullmatch(r"([^\s!=]+)\s*(==|=|!=)\s*(\S*)", term):
            good = (found.get(match[1]) == match[3]) == (match[2] != "!=")
        elif match := re.fullmatch(r"(!?)([^\s!=]+)", term):
            good = (match[2] in found) != bool(match[1])
        else:
            raise invalid("label_selector", f"cannot read {term!r}")
        if not good:
            return False
    return True
