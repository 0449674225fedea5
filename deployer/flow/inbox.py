"""`deploy inbox`: the mail and SMS that a catching deployment kept instead of sending."""

from __future__ import annotations

import email
import email.policy
import json
import time
from email.message import EmailMessage
from typing import Any

from deployer.core.errors import InputError
from deployer.core.events import Sink
from deployer.flow import provision
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session

# One tar of the newest files of both stores; the bound keeps a full store from filling the operator's memory.
NEWEST = 200
_READ = r"""
import base64, json, os, sys
wanted = json.loads(sys.stdin.readline())
found = []
for kind, folder in (("mail", "/var/lib/deploy-catch/mail"), ("sms", "/var/lib/deploy-catch/sms")):
    if kind not in wanted["kinds"]:
        continue
    for top, _, names in os.walk(folder):
        if os.path.basename(top) == "tmp":
            continue
        for name in names:
            path = os.path.join(top, name)
            try:
                found.append((os.stat(path).st_mtime, kind, path))
            except OSError:
                pass
found.sort()
out = []
for at, kind, path in found[-wanted["newest"]:]:
    try:
        with open(path, "rb") as file:
            out.append([kind, at, base64.b64encode(file.read(1 << 20)).decode()])
    except OSError:
        pass
print(json.dumps(out))
"""


def inbox(
    request: Request, sink: Sink, kind: str | None, to: str | None, last: int | None, wait: float
) -> list[dict[str, Any]]:
    """Kept messages, oldest first: kind, at (UTC), sender, to, subject, text.

    kind: "mail", "sms" or None for both; to: part of an address or number; last: only the newest N;
    wait: seconds to wait until at least one matches.
    """
    import shlex

    with Session.open(request, sink, make_secrets=False, vendors=False) as session:
        if not session.project.inventory.catch:
            raise InputError(
                "reading the inbox",
                f"{session.project.deployment} sends its mail and SMS instead of keeping them",
                "set `catch: true` in the inventory and run deploy up, if that is what you want",
            )
        machines = session.running()
        roles = provision.roles(session.project)
        kinds = {"mail": "mail", "sms": "sms"}
        places: dict[str, list[str]] = {}
        for one, role in kinds.items():
            if kind in (None, one) and role in roles:
                places.setdefault(roles[role][0], []).append(one)
        if not places:
            raise InputError("reading the inbox", "no machine of the inventory plays the role")
        session.connected(session.connect({name: machines[name] for name in places}, SSH), SSH)
        deadline = time.monotonic() + wait
        while True:
            found = []
            for name, wanted in places.items():
                ask = json.dumps({"kinds": wanted, "newest": NEWEST}) + "\n"
                code, out, err = session.engine.run(
                    name, "python3 -c " + shlex.quote(_READ), stdin=ask, timeout=30
                )
                if code != 0:
                    raise InputError("reading the inbox", err.strip()[-300:], machine=name)
                found += [_message(*entry) for entry in json.loads(out)]
            found = sorted((m for m in found if not to or to in m["to"]), key=lambda m: str(m["at"]))
            if found or time.monotonic() > deadline:
                return found[-last:] if last else found
            time.sleep(0.5)


def _message(kind: str, at: float, data: str) -> dict[str, Any]:
    import base64

    raw = base64.b64decode(data)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    if kind == "sms":
        try:
            sms = json.loads(raw)
        except ValueError:
            sms = {}
        return {
            "kind": kind, "at": str(sms.get("at", when)), "sender": str(sms.get("from", "")),
            "to": str(sms.get("to", "")), "subject": "", "text": str(sms.get("text", "")),
        }  # fmt: skip
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    return {
        "kind": kind,
        "at": when,
        "sender": str(mail.get("From", "")),
        "to": str(mail.get("X-Original-To") or mail.get("Delivered-To") or mail.get("To", "")),
        "subject": str(mail.get("Subject", "")),
        "text": _text(mail),
    }


def _text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain", "html"))
    if body is None:
        return ""
    try:
        return str(body.get_content()).strip()
    except (KeyError, LookupError, UnicodeError):
        return ""
