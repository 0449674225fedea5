"""A person signs up at the restored service, says something and reads it back, and looks at an old picture.

Run by `deploy drill` on its machine, as root, where mail and SMS are caught: drill.py DOMAIN UNTIL. Files that were
named until then (seconds since 1970) must be there. Uses nothing but Python's own library and goes through the public
doors. The last line says what failed.
"""

import email
import email.policy
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
import urllib.parse
import urllib.request

DOMAIN, UNTIL = sys.argv[1], int(sys.argv[2])
CLIENT = "/_matrix/client/v3"
CAUGHT = pathlib.Path("/var/lib/deploy-catch")
# Seconds for a message to arrive.
ARRIVES = 60
# The public names lead to this machine, which the world does not know.
_resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: _resolve("127.0.0.1", *rest, **named)
TLS = ssl.create_default_context(cafile="/etc/deploy/pki/root.crt")


def call(
    method: str, path: str, body: object = None, token: str = "", good: tuple[int, ...] = (200,)
) -> dict:
    url = path if path.startswith("https://") else f"https://{DOMAIN}{path}"
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30, context=TLS) as answer:
            status, raw = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    except OSError as error:
        sys.exit(f"{method} {url}: {error}")
    if status not in good:
        sys.exit(f"{method} {url} answered {status}: {raw[:300]!r}")
    try:
        return json.loads(raw)
    except ValueError:
        return {"text": raw.decode(errors="replace")}


def words(path: pathlib.Path) -> str:
    """A caught message in plain text: SMS are JSON, mail is MIME."""
    if path.suffix == ".json":
        return path.read_text()
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    body = message.get_body(("plain", "html"))
    return f"{message['to']}\n{body.get_content() if body else ''}"


def caught(folder: str, to: str, pattern: str) -> str:
    """What `pattern` finds in a message that was caught for `to`."""
    deadline = time.monotonic() + ARRIVES
    while time.monotonic() < deadline:
        for path in sorted((CAUGHT / folder).rglob("*")):
            if path.is_file() and to in (text := words(path)) and (match := re.search(pattern, text)):
                return match[0]
        time.sleep(0.5)
    sys.exit(f"no {folder} for {to} arrived within {ARRIVES} s")


name = f"drill-{secrets.token_hex(4)}"
password, secret = secrets.token_urlsafe(12), secrets.token_hex(16)
mail, number = f"{name}@elsewhere.test", f"7700900{secrets.randbelow(1000):03d}"
wish = {"username": name, "password": password}
session = call("POST", f"{CLIENT}/register", wish, good=(401,))["session"]
proof = {"client_secret": secret, "send_attempt": 1}
mail_sid = call("POST", f"{CLIENT}/register/email/requestToken", {**proof, "email": mail})["sid"]
texted = call(
    "POST", f"{CLIENT}/register/msisdn/requestToken", {**proof, "country": "GB", "phone_number": f"0{number}"}
)
code = caught("sms", number, r"\b[0-9]{6}\b")
call("POST", texted["submit_url"], {"sid": texted["sid"], "client_secret": secret, "token": code})
call("GET", caught("mail", mail, r"https://[^ >\s\"]+submit_token[^ >\s\"]*"))
for kind, sid in (("m.login.email.identity", mail_sid), ("m.login.msisdn", texted["sid"])):
    auth = {"type": kind, "session": session, "threepid_creds": {"sid": sid, "client_secret": secret}}
    answer = call("POST", f"{CLIENT}/register", {**wish, "auth": auth}, good=(200, 401))
if "user_id" not in answer:
    sys.exit(f"the sign-up did not end: {answer}")
login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": password}
token = call("POST", f"{CLIENT}/login", login)["access_token"]
room = urllib.parse.quote(call("POST", f"{CLIENT}/createRoom", {}, token)["room_id"])
call("PUT", f"{CLIENT}/rooms/{room}/send/m.room.message/1", {"msgtype": "m.text", "body": "hello"}, token)
said = call("GET", f"{CLIENT}/rooms/{room}/messages?dir=b&limit=1", None, token)["chunk"][0]["content"][
    "body"
]
if said != "hello":
    sys.exit(f"said hello, read {said!r}")

# Every picture that the restored database names is asked for, up to a hundred of the newest.
query = (
    "SELECT media_id FROM local_media_repository WHERE quarantined_by IS NULL"
    f" AND created_ts < {UNTIL} * 1000::bigint ORDER BY created_ts DESC LIMIT 100"
)
names = subprocess.run(
    ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", "synapse", "-c", query],
    capture_output=True,
    text=True,
    timeout=30,
    check=True,
).stdout.split()
for media in names:
    path = f"/_matrix/client/v1/media/download/{DOMAIN}/{urllib.parse.quote(media)}"
    url = urllib.request.Request(f"https://{DOMAIN}{path}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(url, timeout=30, context=TLS) as answer:
            if not answer.read(1):
                sys.exit(f"the upload {media} is empty")
    except OSError as error:
        sys.exit(f"the upload {media}, which the database names, is not there: {error}")
print(f"{name} signed up and said hello; {len(names)} upload(s) are there")
