"""Calls to Amazon: made lazily, bounded, retried where that is safe, and with errors of ours."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from deployer.core.errors import DeployError
from providers.aws.errors import THROTTLED, NoAnswer, code_of, missing, translate
from providers.aws.settings import Settings

Found = TypeVar("Found")

# Attempts of a call that may be repeated; botocore waits between them, with jitter, 20 s at most.
ATTEMPTS = 6
# Seconds until Amazon knows everywhere what it has just made ("eventual consistency" in the EC2 API reference).
SETTLE = 30
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60
# Not found, and not because it is new.
LASTING = frozenset({"InvalidAMIID.NotFound", "InvalidPermission.NotFound"})


class Account:
    """One region of one account, as the environment's credentials see it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._clients: dict[tuple[str, str, bool], Any] = {}
        self._session: Any = None
        # boto3 makes a client not quite safely while it makes another; a client itself may be shared.
        self._making = threading.Lock()

    def client(self, service: str, region: str = "", *, once: bool = False) -> Any:
        """boto3's client. once: it tries a call one time only."""
        region = region or self.settings.region
        key = (service, region, once)
        with self._making:
            if key not in self._clients:
                self._clients[key] = self._new(*key)
            return self._clients[key]

    def _new(self, service: str, region: str, once: bool) -> Any:
        boto3, config = _library()
        # One session reads the long descriptions of services once for all its clients.
        self._session = self._session or boto3.session.Session()
        return self._session.client(
            service,
            region_name=region,
            endpoint_url=self.settings.endpoint or None,
            config=config(
                retries={"mode": "standard", "total_max_attempts": 1 if once else ATTEMPTS},
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT,
                user_agent_extra="deploy-toolkit",
            ),
        )

    def call(
        self, what: str, operation: str, *, service: str = "ec2", region: str = "", **arguments: Any
    ) -> dict[str, Any]:
        """One call that may be repeated. operation: boto3's method. Raises DeployError."""
        return self._call(self.client(service, region), what, operation, arguments)

    def make(self, what: str, operation: str, find: Callable[[], Found | None], **arguments: Any) -> Found:
        """Make something whose call has no client token, once.

        find: looks for it by our tags. It is asked again wherever the outcome is unknown, before a second
        try. What is made is waited for until `find` sees it, so that a process that is killed right after
        this leaves something that the next one finds. Raises DeployError.
        """
        client = self.client("ec2", once=True)
        for attempt in range(ATTEMPTS):
            try:
                self._fresh(lambda: self._call(client, what, operation, arguments))
            except NoAnswer as error:
                if code_of(error) not in THROTTLED and (found := self._until(find, SETTLE / 6)) is not None:
                    return found
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0.5, 1) * min(2**attempt / 2, 20))
            else:
                return self.wait(what, find)
        raise AssertionError("unreachable")

    def fresh(self, what: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """A repeatable call about something that was just made, which Amazon may not know everywhere yet."""
        return self._fresh(lambda: self.call(what, operation, **arguments))

    def pages(self, what: str, operation: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        """All items of a list that comes in pages. Raises DeployError."""
        service, region = arguments.pop("service", "ec2"), arguments.pop("region", "")
        client = self.client(service, region)
        try:
            pager = client.get_paginator(operation).paginate(**arguments)
            return [item for page in pager for item in page.get(key, ())]
        except Exception as error:
            raise translate(error, what, _name(operation)) from error

    def wait(self, what: str, find: Callable[[], Found | None], timeout: float = SETTLE) -> Found:
        """Ask until there is an answer. Raises DeployError on time-out."""
        if (found := self._until(find, timeout)) is not None:
            return found
        raise DeployError(what, f"AWS did not show it within {timeout:.0f} s", "run again, which continues")

    # --- the inside ---

    def _call(self, client: Any, what: str, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(client, operation)(**arguments)
            return answer
        except Exception as error:
            raise translate(error, what, _name(operation)) from error

    def _fresh(self, call: Callable[[], Found]) -> Found:
        deadline = time.monotonic() + SETTLE
        pause = 0.2
        while True:
            try:
                return call()
            except DeployError as error:
                if not missing(error) or code_of(error) in LASTING or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 3)

    def _until(self, find: Callable[[], Found | None], timeout: float) -> Found | None:
        deadline = time.monotonic() + timeout
        pause = 0.1
        while (found := find()) is None:
            if time.monotonic() + pause > deadline:
                return None
            time.sleep(pause)
            pause = min(pause * 1.6, 5)
        return found


def filters(**wanted: str | Sequence[str]) -> list[dict[str, Any]]:
    """Filters of a Describe call; vpc_id="vpc-1" becomes {"Name": "vpc-id", "Values": ["vpc-1"]}."""
    return [
        {"Name": key.replace("_", "-"), "Values": [value] if isinstance(value, str) else list(value)}
        for key, value in wanted.items()
    ]


def _name(operation: str) -> str:
    """run_instances -> RunInstances, as Amazon's documentation and its policies say it."""
    return "".join(part.capitalize() for part in operation.split("_"))


def _library() -> tuple[Any, Any]:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise DeployError(
            "loading Amazon's library", f"it is not installed: {error}", "pip install 'deploy-toolkit[aws]'"
        ) from error
    return boto3, Config
