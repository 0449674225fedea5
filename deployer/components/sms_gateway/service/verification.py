"""Codes that prove a telephone number, as Bluesky's AppView asks for them: its service "rolodex".

The Connect protocol, unary calls (connectrpc.com/docs/protocol), with bodies in protobuf or JSON. Only what belongs to a
number's proof is answered; address books are none of ours. The AppView reads why a call failed from the first detail's
`reason`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import phone, policy
from .app_state import State
from .guard import same
from .phone import mask
from .store import Store
from .twilio import MAX_BODY, json_object, read

log = logging.getLogger("sms_gateway.verification")

PATH = "/rolodex.RolodexService"
# Seconds that a code holds; guesses that it bears; codes for one account, and to one number, in so many seconds.
HOLDS, GUESSES = 600, 5
CODES, WINDOW = 5, 3600
# Seconds that a proof, or a code nobody entered, is remembered.
KEPT = 30 * 86400
_STATUS = {
    "invalid_argument": 400,
    "unauthenticated": 401,
    "resource_exhausted": 429,
    "unimplemented": 501,
    "unavailable": 503,
}
# Fields of the requests, by their numbers.
_START = {1: "actor", 2: "phone"}
_VERIFY = {1: "actor", 2: "phone", 3: "verificationCode"}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS codes (
  id INTEGER PRIMARY KEY, actor TEXT NOT NULL, phone TEXT NOT NULL, code TEXT NOT NULL, made REAL NOT NULL,
  guesses INTEGER NOT NULL DEFAULT 0, proven REAL NOT NULL DEFAULT 0)
"""


@dataclass(frozen=True)
class Refused(Exception):
    """code: of Connect; reason: as the AppView knows it, "" for none."""

    code: str
    reason: str
    text: str


class Codes:
    """The codes in the gateway's spool. Neither a code nor a number is kept as it is: only digests under our key."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key.encode()
        store.change(_SCHEMA)

    def digest(self, *parts: str) -> str:
        return hmac.new(self._key, "\0".join(parts).encode(), hashlib.sha256).hexdigest()

    def make(self, actor: str, number: str) -> str:
        """A new code; those before it hold no more. Blocks for the disk, as `Store` does. Raises Refused."""
        now, whom = time.time(), self.digest("phone", number)
        self._store.change("DELETE FROM codes WHERE made < ?", (now - KEPT,))
        code = f"{secrets.randbelow(1_000_000):06d}"
        # Counted and kept in one statement: several that ask at once get no code more.
        made = self._store.change(
            "INSERT INTO codes (actor, phone, code, made) SELECT ?, ?, ?, ? FROM (SELECT"
            " count(*) FILTER (WHERE actor = ?) AS own, count(*) FILTER (WHERE phone = ?) AS its FROM codes"
            " WHERE made > ?) WHERE max(own, its) < ?",
            (actor, whom, self.digest("code", actor, number, code), now, actor, whom, now - WINDOW, CODES),
        )
        if not made:
            raise Refused("resource_exhausted", "RATE_LIMIT_EXCEEDED", f"{CODES} codes were sent this hour")
        return code

    def prove(self, actor: str, number: str, code: str) -> None:
        """Take a code once. A guess counts before it is looked at. Blocks for the disk. Raises Refused."""
        wrong = Refused(
            "invalid_argument", "INVALID_CODE", "the code is wrong, used up, or older than 10 minutes"
        )
        found = self._store.rows(
            "SELECT id, code FROM codes WHERE actor = ? AND phone = ? ORDER BY id DESC LIMIT 1",
            (actor, self.digest("phone", number)),
        )
        if not found:
            raise wrong
        counted = self._store.change(
            "UPDATE codes SET guesses = guesses + 1 WHERE id = ? AND guesses < ? AND proven = 0 AND made > ?",
            (found[0]["id"], GUESSES, time.time() - HOLDS),
        )
        if not counted or not same(self.digest("code", actor, number, code), found[0]["code"]):
            raise wrong
        if not self._store.change(
            "UPDATE codes SET proven = ? WHERE id = ? AND proven = 0", (time.time(), found[0]["id"])
        ):
            raise wrong


class Verification:
    """The routes of this dialect."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._codes = Codes(state.store, state.config.internal_token)

    def routes(self) -> list[Route]:
        return [Route(f"{PATH}/{{method}}", self.call, methods=["POST"])]

    async def call(self, request: Request) -> Response:
        binary = request.headers.get("content-type", "").startswith("application/proto")
        try:
            self._allowed(request)
            raw = await read(request, MAX_BODY)
            if raw is None:
                raise Refused("resource_exhausted", "", "the request is too large")
            answer = await self._answer(request.path_params["method"], raw, binary)
        except Refused as problem:
            return _error(problem)
        if binary:
            return Response(encode(answer), media_type="application/proto")
        return JSONResponse(answer)

    def _allowed(self, request: Request) -> None:
        address = request.client.host if request.client else ""
        guard = self._state.guard
        if guard.blocked(address):
            raise Refused("resource_exhausted", "", "too many requests with wrong credentials")
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not same(key.strip(), self._state.config.password):
            guard.failed(address)
            raise Refused("unauthenticated", "", "wrong key")

    async def _answer(self, method: str, raw: bytes, binary: bool) -> dict[str, str]:
        if method in ("Ping", "GetSyncStatus"):
            return {}
        if method not in ("StartPhoneVerification", "VerifyPhone"):
            raise Refused("unimplemented", "", "address books are not compared here")
        names = _START if method == "StartPhoneVerification" else _VERIFY
        fields = decode(raw, names) if binary else _texts(raw)
        actor, wanted = fields.get("actor", ""), fields.get("phone", "")
        if not actor.startswith("did:"):
            raise Refused("invalid_argument", "INVALID_DID", "the account is no DID")
        try:
            number = phone.destination(wanted, self._state.config.policy.countries)
        except phone.Refused as error:
            raise Refused("invalid_argument", "INVALID_PHONE", str(error)) from None
        if method == "VerifyPhone":
            code = fields.get("verificationCode", "")
            await asyncio.to_thread(self._codes.prove, actor, number, code)
            log.info("%s is proven", mask(number))
            return {"token": secrets.token_urlsafe(24)}
        await self._send(number, await asyncio.to_thread(self._codes.make, actor, number))
        return {}

    async def _send(self, number: str, code: str) -> None:
        text = f"Your code is {code}. It holds for {HOLDS // 60} minutes. Nobody of us will ask you for it."
        try:
            await policy.accept(
                self._state.config,
                self._state.store,
                api="rolodex",
                recipient=number,
                body=text,
                # A code that comes after its time is of no use.
                validity=HOLDS,
            )
        except policy.Rejected as problem:
            log.info("refused for %s: %s", mask(number), problem.reason)
            if problem.reason in ("number", "prefix", "day"):
                raise Refused("resource_exhausted", "RATE_LIMIT_EXCEEDED", problem.text) from None
            raise Refused("invalid_argument", "INVALID_PHONE", problem.text) from None
        self._state.wake()


def _error(problem: Refused) -> JSONResponse:
    """Connect's error, with a google.rpc.ErrorInfo as its detail."""
    body: dict[str, object] = {"code": problem.code, "message": problem.text}
    if problem.reason:
        value = base64.b64encode(encode({"reason": problem.reason})).decode().rstrip("=")
        debug = {"reason": problem.reason}
        body["details"] = [{"type": "google.rpc.ErrorInfo", "value": value, "debug": debug}]
    return JSONResponse(body, _STATUS[problem.code])


def _texts(raw: bytes) -> dict[str, str]:
    found = json_object(raw)
    if found is None:
        raise Refused("invalid_argument", "", "the body is no JSON object")
    return {key: value for key, value in found.items() if isinstance(value, str)}


def decode(raw: bytes, names: Mapping[int, str]) -> dict[str, str]:
    """The text fields of a protobuf message; others are passed by. Raises Refused."""
    found, at = {}, 0
    try:
        while at < len(raw):
            key, at = _varint(raw, at)
            if key & 7 == 2:
                size, at = _varint(raw, at)
                value, at = raw[at : at + size], at + size
                if at > len(raw):
                    raise ValueError("it is cut short")
                if key >> 3 in names:
                    found[names[key >> 3]] = value.decode()
            elif key & 7 == 0:
                _, at = _varint(raw, at)
            else:
                at += {1: 8, 5: 4}[key & 7]
    except (ValueError, IndexError, KeyError):
        raise Refused("invalid_argument", "", "the body is no protobuf message") from None
    return found


def encode(fields: Mapping[str, str]) -> bytes:
    """A message whose only field, if any, is a text with number 1."""
    made = b""
    for value in fields.values():
        data = value.encode()
        made += b"\x0a" + _size(len(data)) + data
    return made


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")


def _size(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])
