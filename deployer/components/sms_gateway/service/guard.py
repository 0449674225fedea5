"""Who may ask: Basic authentication in constant time, with a bound on wrong guesses from one place."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

# Wrong guesses that one address (IPv6: one /64) has in a window of seconds, and how many addresses are remembered.
GUESSES = 20
WINDOW = 300.0
REMEMBERED = 10_000


def basic(header: str) -> tuple[str, str] | None:
    """User and password of an Authorization header, or None."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, found, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if found else None


def same(given: str, wanted: str) -> bool:
    """Compare without telling by time where they differ. An empty secret matches nothing."""
    return bool(wanted) and hmac.compare_digest(given.encode(), wanted.encode())


class Guard:
    """Accounts (user -> password) and the addresses that guessed wrong."""

    def __init__(self, accounts: dict[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts = dict(accounts)
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def user(self, header: str) -> str | None:
        """The account that the header proves, or None. Every account is compared, so time says nothing."""
        given = basic(header)
        if given is None:
            return None
        found = None
        for user, password in self._accounts.items():
            if same(given[0], user) & same(given[1], password):
                found = user
        return found

    def blocked(self, address: str) -> bool:
        """Whether the address has used up its guesses."""
        count, since = self._wrong.get(_place(address), (0, 0.0))
        return count >= GUESSES and self._clock() - since < WINDOW

    def failed(self, address: str) -> None:
        """Remember a wrong guess."""
        place, now = _place(address), self._clock()
        count, since = self._wrong.pop(place, (0, now))
        if now - since >= WINDOW:
            count, since = 0, now
        self._wrong[place] = (count + 1, since)
        while len(self._wrong) > REMEMBERED:
            self._wrong.popitem(last=False)


def _place(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
