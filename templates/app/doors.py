"""What a drill's exercise goes through: the public doors of the restored service, and the mail and SMS that were caught.

Sent with the app's drill script, which imports it as `doors`. Python's own library only. Whatever goes wrong ends the
script with a line that says so.
"""

import email
import email.policy
import http.cookiejar
import json
import pathlib
import re
import secrets
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib

# Files that were named until then (seconds since 1970) must be there.
DOMAIN, UNTIL = sys.argv[1], int(sys.argv[2])
CAUGHT = pathlib.Path("/var/lib/deploy-catch")
# Seconds for a message to arrive.
ARRIVES = 60
# The public names lead to this machine, which the world does not know.
_resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: _resolve("127.0.0.1", *rest, **named)
TLS = ssl.create_default_context(cafile="/etc/deploy/pki/root.crt")
# Of the one person who goes through the doors.
COOKIES = http.cookiejar.CookieJar()
_opener = urllib.request.build_opener(
    urllib.request.HTTPSHandler(context=TLS), urllib.request.HTTPCookieProcessor(COOKIES)
)


def ask(
    method: str, path: str, data: bytes | None = None, most: int = -1, **headers: str
) -> tuple[int, bytes]:
    """Status, and at most so many bytes of the body. path: below DOMAIN, or a whole URL. headers: Content_Type=..."""
    url = path if path.startswith("https://") else f"https://{DOMAIN}{path}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, named, method=method)
    try:
        with _opener.open(request, timeout=30) as answer:
            return answer.status, answer.read(most)
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        sys.exit(f"{method} {url}: {error}")


def call(
    method: str,
    path: str,
    body: object = None,
    token: str = "",
    good: tuple[int, ...] = (200,),
    **headers: str,
) -> dict:
    """A question in JSON, or with bytes as they are, and its answer."""
    if body is not None and not isinstance(body, bytes):
        headers = {"Content_Type": "application/json", **headers}
        body = json.dumps(body).encode()
    if token:
        headers["Authorization"] = f"Bearer {token}"
    status, raw = ask(method, path, body, **headers)
    if status not in good:
        sys.exit(f"{method} {path} answered {status}: {raw[:300]!r}")
    try:
        return json.loads(raw)
    except ValueError:
        return {"text": raw.decode(errors="replace")}


def picture() -> bytes:
    """A PNG of one pixel, of any colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = (1).to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
    pixel = zlib.compress(b"\0" + secrets.token_bytes(3))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def words(path: pathlib.Path) -> str:
    """A caught message in plain text: SMS are JSON, mail is MIME."""
    if path.suffix == ".json":
        return path.read_text()
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    body = message.get_body(("plain", "html"))
    return f"{message['to']}\n{body.get_content() if body else ''}"


def caught(folder: str, to: str, pattern: str) -> str:
    """What `pattern` finds in a message (folder: mail or sms) that was caught for `to`."""
    deadline = time.monotonic() + ARRIVES
    while time.monotonic() < deadline:
        for path in sorted((CAUGHT / folder).rglob("*")):
            if path.is_file() and to in (text := words(path)) and (match := re.search(pattern, text)):
                return match[0]
        time.sleep(0.5)
    sys.exit(f"no {folder} for {to} arrived within {ARRIVES} s")


def rows(database: str, query: str) -> list[list[str]]:
    """What the restored database answers: each row's columns. A column's text holds no line break, and no tab."""
    command = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-F", "\t", "-d", database, "-c", query]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        sys.exit(f"the database {database} did not answer within 30 s")
    if done.returncode:
        sys.exit(f"the database {database}: {done.stderr.strip()}")
    return [line.split("\t") for line in done.stdout.splitlines()]
