"""Callbacks to the app, signed as Twilio signs them, kept on disk until they are delivered or given up.

A callback is a request that somebody else makes us send, so it goes only to hosts that the operator named, and
never through a redirect.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
import sqlite3
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import httpx

from .config import Config
from .store import Message, Store

log = logging.getLogger("sms_gateway.webhooks")

# Seconds until the next try, growing from FIRST to LONGEST; given up after GIVE_UP.
FIRST = 5.0
LONGEST = 900.0
GIVE_UP = 24 * 3600.0
TIMEOUT = 10.0
PAUSE = 1.0


class NotAllowed(Exception):
    """The URL may not be called."""


def signature(token: str, url: str, form: Mapping[str, str]) -> str:
    """X-Twilio-Signature: HMAC-SHA1 over the URL and the sorted form (Twilio, "Validating requests")."""
    text = url + "".join(name + form[name] for name in sorted(form))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def allowed(url: str, hosts: Sequence[str]) -> None:
    """Raise NotAllowed unless the URL is http or https to one of `hosts` (names or addresses)."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise NotAllowed("the URL is malformed") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotAllowed("the URL must be http or https with a host")
    if parts.username or parts.password:
        raise NotAllowed("the URL must not hold a user or password")
    if parts.hostname.lower() not in {host.lower() for host in hosts}:
        raise NotAllowed(f"the host {parts.hostname} is not in callback_hosts of the stack")


async def resolve(host: str, port: int, scheme: str) -> str:
    """An address of the host that may be called. The connection goes to it: a second answer changes nothing.

    A name may lead into a private network, as the operator has named it, but never to this machine or its link
    (services and metadata without a password live there): those must be named by address. Clear text stays in
    private networks.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpx.ConnectError(f"{host} does not resolve") from error
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    for address in addresses:
        parsed = ipaddress.ip_address(address)
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        inner = parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast
        if inner and host not in (address, "localhost"):
            raise NotAllowed(f"{host} leads to {parsed}: name the address itself to allow it")
        if scheme == "http" and parsed.is_global:
            raise NotAllowed("callbacks over the internet must use https")
    return addresses[0]


class Webhooks:
    """The queue of callbacks and the loop that sends them."""

    def __init__(self, config: Config, store: Store, http: httpx.AsyncClient) -> None:
        self._config = config
        self._store = store
        self._http = http
        self._new = asyncio.Event()

    async def status(self, message: Message) -> None:
        """Tell the app what became of its message, where it asked for that."""
        if not message.callback:
            return
        form = {
            "AccountSid": self._config.account_sid,
            "ApiVersion": "2010-04-01",
            "From": message.sender,
            "MessageSid": message.sid,
            "MessageStatus": message.status,
            "SmsSid": message.sid,
            "SmsStatus": message.status,
            "To": message.recipient,
        }
        if message.service:
            form["MessagingServiceSid"] = message.service
        if message.error:
            form["ErrorCode"] = str(message.error)
        await self.queue(message.callback, form)

    async def queue(self, url: str, form: Mapping[str, str]) -> None:
        """Keep a callback on disk and send it soon."""
        now = time.time()
        await asyncio.to_thread(
            self._store.change,
            "INSERT INTO webhooks (url, form, made, next_try) VALUES (?, ?, ?, ?)",
            (url, json.dumps(dict(form)), now, now),
        )
        self._new.set()

    async def run(self) -> None:
        """For ever. Callbacks of one message go out in their order; a slow host holds up nobody else's for long."""
        while True:
            self._new.clear()
            try:
                done = await self.once()
            except Exception:
                log.exception("sending callbacks failed; trying again")
                done = 0
            if not done:
                try:
                    await asyncio.wait_for(self._new.wait(), PAUSE)
                except TimeoutError:
                    pass

    async def once(self) -> int:
        """Send what is due. Returns how many callbacks ended, well or not."""
        due = await asyncio.to_thread(
            self._store.rows,
            "SELECT * FROM webhooks WHERE next_try <= ? ORDER BY id LIMIT 50",
            (time.time(),),
        )
        results = await asyncio.gather(*(self._in_order(rows) for rows in _by_message(due)))
        return sum(results)

    async def _in_order(self, rows: Sequence[sqlite3.Row]) -> int:
        ended = 0
        for row in rows:
            if not await self._one(row):
                break
            ended += 1
        return ended

    async def _one(self, row: sqlite3.Row) -> bool:
        host = urlsplit(row["url"]).hostname
        try:
            await self._post(row["url"], json.loads(row["form"]))
        except NotAllowed as error:
            log.warning("callback to %s dropped: %s", host, error)
        except httpx.HTTPError as error:
            if time.time() - row["made"] < GIVE_UP:
                delay = min(LONGEST, FIRST * 2 ** row["tries"])
                await asyncio.to_thread(
                    self._store.change,
                    "UPDATE webhooks SET tries = tries + 1, next_try = ? WHERE id = ?",
                    (time.time() + delay, row["id"]),
                )
                log.info("callback to %s failed (%s), again in %d s", host, type(error).__name__, delay)
                return False
            log.warning("callback to %s given up after %d tries", host, row["tries"] + 1)
        await asyncio.to_thread(self._store.change, "DELETE FROM webhooks WHERE id = ?", (row["id"],))
        return True

    async def _post(self, url: str, form: Mapping[str, str]) -> None:
        allowed(url, self._config.policy.callback_hosts)
        parts = urlsplit(url)
        assert parts.hostname
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await resolve(parts.hostname, port, parts.scheme)
        target = httpx.URL(url).copy_with(host=address)
        answer = await self._http.post(
            target,
            data=dict(form),
            headers={
                "Host": parts.netloc.rpartition("@")[2],
                "X-Twilio-Signature": signature(self._config.auth_token, url, form),
                "User-Agent": "sms-gateway",
            },
            extensions={"sni_hostname": parts.hostname},
            follow_redirects=False,
            timeout=TIMEOUT,
        )
        answer.raise_for_status()
        if answer.is_redirect:
            raise httpx.ConnectError("callbacks follow no redirects")


def _by_message(rows: Sequence[sqlite3.Row]) -> list[list[sqlite3.Row]]:
    groups: dict[str, list[sqlite3.Row]] = {}
    for row in rows:
        groups.setdefault(json.loads(row["form"]).get("MessageSid", str(row["id"])), []).append(row)
    return list(groups.values())
