"""Calls to the vendor: tried again where that is safe, waited for within a bound, and failing as our errors."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from deployer.core.errors import CredentialError, DeployError, QuotaError
from providers.hetzner.settings import Settings

if TYPE_CHECKING:
    from hcloud import APIException, Client
    from hcloud.actions import BoundAction

T = TypeVar("T")

TOKEN = "HCLOUD_TOKEN"
# Seconds to connect, and to wait for an answer.
TIMEOUT = (10, 30)
# How often a call is tried, and the seconds between (doubled each time, with jitter). hcloud itself tries again when
# the rate limit is reached, on conflicts, on 502 and 504 and when no answer comes, up to five times.
ATTEMPTS = 5
PAUSE, LONGEST_PAUSE = 0.3, 5.0
# Seconds before it is asked again whether something is done: at first, and at most.
POLL, LONGEST_POLL = 0.1, 2.0
# Seconds that an action may take; making a server takes about twenty.
ACTION_TIMEOUT = 300
# Seconds for which something that exists may be missing in lists.
LAG = 30

AGAIN = ("server_error", "unavailable", "service_error", "locked", "500", "503")
CREDENTIALS = ("unauthorized", "token_readonly", "forbidden", "401", "403")
NEXT = {
    "resource_limit_exceeded": "ask Hetzner to raise the project's limit, or delete what is not needed",
    "resource_unavailable": "name another type or location in the inventory; `deploy offers` lists them",
    "rate_limit_exceeded": "wait some minutes, then run it again: what was made is found again",
    "protected": "take the protection off at Hetzner if it may go",
}
RERUN = "run it again: what was made is found again"


class Unsure(DeployError):
    """The call may or may not have been done: no answer came, or an error of the vendor's own."""


class Taken(DeployError):
    """The vendor has something of that name already."""


class Api:
    """The vendor's client, made when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def client(self) -> Client:
        """Raises CredentialError without a token, DeployError without the library."""
        try:
            import hcloud
        except ImportError as error:
            raise DeployError(
                "loading the provider hetzner",
                "its library hcloud is not installed",
                "pip install 'deploy-toolkit[hetzner]'",
            ) from error
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            raise CredentialError(
                "connecting to Hetzner",
                f"{TOKEN} is not set",
                "make an API token (read and write) of the project in the Hetzner Console and set it in the environment",
            )
        return hcloud.Client(
            token,
            api_endpoint=self._settings.endpoint,
            application_name="deploy-toolkit",
            timeout=TIMEOUT,
        )

    def call(self, what: str, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """A call that may be repeated: reading, deleting, setting a value. Raises DeployError."""
        for attempt in range(ATTEMPTS):
            try:
                return self.once(what, function, *arguments, **named)
            except Unsure:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(pause(attempt))
        raise AssertionError

    def once(self, what: str, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """A call that must not be repeated blindly. Raises Unsure, Taken, or what the vendor's error means."""
        import hcloud
        import requests

        try:
            return function(*arguments, **named)
        except hcloud.APIException as error:
            raise translated(what, error) from error
        except requests.RequestException as error:
            raise Unsure(
                what,
                f"no answer from {self._settings.endpoint}: {_reason(error)}",
                "see that this computer reaches it; then " + RERUN,
            ) from error

    def find(self, what: str, function: Callable[..., T], *arguments: Any, **named: Any) -> T | None:
        """As `call`, with None for what does not exist (any more)."""
        import hcloud

        try:
            return self.call(what, function, *arguments, **named)
        except DeployError as error:
            if isinstance(error.__cause__, hcloud.APIException) and error.__cause__.code == "not_found":
                return None
            raise

    def ensure(self, what: str, find: Callable[[], T | None], make: Callable[[], T]) -> T:
        """What `find` finds, or what `make` makes, once: also when an answer is lost or lists lag behind.

        The vendor refuses a second one of the same name, which is what this rests on. Raises DeployError.
        """
        for attempt in range(ATTEMPTS):
            if (found := find()) is not None:
                return found
            try:
                return self.once(what, make)
            except Taken:
                if (late := patiently(find)) is not None:
                    return late
                raise
            except Unsure:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(pause(attempt))
        raise AssertionError

    def wait(self, what: str, actions: Iterable[BoundAction | None]) -> None:
        """Until all of them are done. Raises DeployError when one fails or takes too long."""
        import hcloud.actions

        deadline = time.monotonic() + ACTION_TIMEOUT
        for action in actions:
            polls = 0
            while action is not None and action.status == action.STATUS_RUNNING:
                if time.monotonic() > deadline:
                    why = f"{action.command} (action {action.id}) is not done after {ACTION_TIMEOUT} s"
                    raise DeployError(what, why, "look at the server in the Hetzner Console; then " + RERUN)
                time.sleep(poll(polls))
                polls += 1
                self.call(what, action.reload)
            if action is not None and action.status == action.STATUS_ERROR:
                failure = hcloud.actions.ActionFailedException(action)
                raise DeployError(what, f"{action.command} failed: {failure}", RERUN)


def pause(attempt: int) -> float:
    """Seconds before the next attempt, with jitter so that several clients do not come back together."""
    longest: float = min(LONGEST_PAUSE, PAUSE * 2**attempt)
    return longest * random.uniform(0.5, 1)


def poll(number: int) -> float:
    """Seconds before the poll of that number, from 0 on."""
    wait: float = min(LONGEST_POLL, POLL * 1.5**number)
    return wait


def patiently(find: Callable[[], T | None]) -> T | None:
    """What `find` finds within LAG seconds."""
    deadline = time.monotonic() + LAG
    attempt = 0
    while (found := find()) is None and time.monotonic() < deadline:
        time.sleep(min(2.0, pause(attempt)))
        attempt += 1
    return found


def translated(what: str, error: APIException) -> DeployError:
    """The vendor's error as ours, with its code and the number of the request."""
    code = str(error.code)
    why = f"{code}: {error.message}"
    if limits := _names(error.details, "limits"):
        why += f" [{limits}]"
    if error.correlation_id:
        why += f" (request {error.correlation_id})"
    if code == "resource_limit_exceeded":
        return QuotaError(what, why, NEXT[code])
    if code == "uniqueness_error":
        return Taken(
            what, why, "give it another name at Hetzner, or name the machine otherwise in the inventory"
        )
    if code in CREDENTIALS:
        return CredentialError(what, why, f"set {TOKEN} to a token of the project that may read and write")
    if code in AGAIN:
        return Unsure(what, why, "see https://status.hetzner.com; then " + RERUN)
    return DeployError(what, why, NEXT.get(code, RERUN))


def _names(details: object, key: str) -> str:
    found = details.get(key) if isinstance(details, Mapping) else None
    return ", ".join(str(item.get("name")) for item in found if isinstance(item, Mapping)) if found else ""


def _reason(error: Exception) -> str:
    """Its innermost cause; requests and urllib3 wrap theirs several times."""
    inner: BaseException = error
    while (below := inner.__cause__ or inner.__context__) is not None:
        inner = below
    return f"{inner}" or type(inner).__name__
