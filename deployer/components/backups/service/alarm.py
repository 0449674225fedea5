#!/usr/bin/python3 -B
"""Every minute: what is late or has failed is mailed and texted, at most once an hour a cause, and once when well again.

It goes by the stack's own relay and gateway. Those can be what died, so services outside (policy.pings) are pinged
while all is well, and call when that ends. `alarm.py status` prints what is known.
"""

from __future__ import annotations

import base64
import email.message
import email.utils
import json
import smtplib
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from typing import Any

from ground import FOLDER, PROGRAMS, STATE, Failure, alone, iso, last, read, seconds, settings, write

RECORD = STATE / "alarm.json"
# Seconds: between two messages about one cause; a service that answers a ping; a program that tells its status.
AGAIN, PING, TELL = 3600, 10, 45


def causes(config: dict[str, Any], now: float, tell: Any) -> dict[str, str]:
    """What is wrong: a key that stays the same, and words. tell: runs a program of ours and returns its JSON."""
    found: dict[str, str] = {}
    late = int(config["policy"]["late"]) * 60
    if config["generation"]:
        for entry in tell("files.py"):
            name, error = entry["name"], entry.get("error")
            at = seconds(entry["last_at"])
            if entry.get("failed_since") and now - seconds(entry["failed_since"]) < late and at:
                continue
            began = at or seconds(read(STATE / "alarm-began.json", {}).get("at", "")) or now
            if now - began > late:
                why = f": {error['why']}" if error else ""
                found[f"files/{name}"] = f"no backup of files at {name} since {_when(at)}{why}"
        if config["database"]:
            for entry in tell("database.py"):
                name = entry["name"]
                if entry.get("error"):
                    error = entry["error"]
                    why = error["why"] if isinstance(error, dict) else str(error)
                    found[f"database/{name}"] = f"the database's backup at {name}: {why}"
                elif not entry.get("archiving", True):
                    why = entry.get("out_why") or "no reason is known"
                    found[f"database/{name}"] = f"{name} is out of the archiving: {why}"
                elif (entry.get("lag_seconds") or 0) > late:
                    found[f"database/{name}"] = (
                        f"{name} lags {entry['lag_seconds']:.0f} s behind the database"
                    )
    guard = read(STATE / "guard.json", {}) or {}
    if guard.get("verdict") == "blind" and now - seconds(guard.get("since", "")) > 180:
        found["guard"] = str(guard["why"])
    if guard.get("verdict") == "superseded":
        found["guard"] = f"nothing is served: {guard['why']}"
    return found


def _when(at: float) -> str:
    return iso(at) if at else "the beginning"


def tell(program: str) -> list[dict[str, Any]]:
    """The status that a program of ours prints; a program that fails is a cause itself."""
    argv = ["/usr/bin/python3", "-B", str(PROGRAMS / program), "status"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TELL)
        found = json.loads(done.stdout)
        if isinstance(found, list):
            return found
        if "repositories" in found:
            return list(found["repositories"])
        why = str((found.get("error") or {}).get("why") or done.stdout[:200])
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if program == "database.py":
        return [{"name": "this machine", "error": {"why": why}}]
    return []


def decide(
    known: dict[str, Any], found: dict[str, str], now: float
) -> tuple[dict[str, Any], list[str], list[str]]:
    """The new memory; what to tell as wrong, what to tell as well again."""
    memory: dict[str, Any] = {}
    wrong, well = [], []
    for key, words in found.items():
        old = known.get(key, {})
        told = float(old.get("told", 0))
        memory[key] = {"since": old.get("since") or iso(now), "words": words, "told": told}
        if now - told >= AGAIN:
            wrong.append(words)
            memory[key]["told"] = now
    for key, old in known.items():
        if key not in found and old.get("told"):
            well.append(f"well again: {old['words']} (since {old['since']})")
    return memory, wrong, well


def mail(config: dict[str, Any], how: dict[str, Any], subject: str, lines: list[str]) -> None:
    message = email.message.EmailMessage()
    message["From"] = how["mail"]["sender"]
    message["To"] = ", ".join(config["policy"]["mail"])
    message["Subject"] = subject
    message["Date"] = email.utils.localtime()
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join([*lines, "", f"{config['deployment']}, machine {config['machine']}", ""]))
    with smtplib.SMTP(how["mail"]["host"], int(how["mail"]["port"]), timeout=20) as server:
        if how["mail"]["tls"]:
            server.starttls(context=ssl.create_default_context(cafile=how["ca"]))
        server.send_message(message)


def text(config: dict[str, Any], how: dict[str, Any], words: str) -> None:
    """By the gateway, in Twilio's words."""
    sms = how["sms"]
    url = f"{sms['url']}/2010-04-01/Accounts/{sms['account_sid']}/Messages.json"
    login = base64.b64encode(f"{sms['account_sid']}:{sms['auth_token']}".encode()).decode()
    context = ssl.create_default_context(cafile=how["ca"]) if url.startswith("https") else None
    handlers: list[Any] = [urllib.request.ProxyHandler({})]
    if context:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    for number in config["policy"]["sms"]:
        form = urllib.parse.urlencode({"To": number, "From": sms["sender"], "Body": words[:300]}).encode()
        request = urllib.request.Request(url, form, {"Authorization": f"Basic {login}"})
        opener.open(request, timeout=20).read()


def ping(urls: list[str]) -> dict[str, str]:
    """ "" for each service that answered, else why not. Their URLs are secrets of a kind: not among arguments."""
    answers = {}
    for url in urls:
        words = ["curl", "-q", "-sS", "--fail", "-o", "/dev/null", "--max-time", str(PING), "-K", "-"]
        done = subprocess.run(
            words, input=f'url = "{url}"\n', capture_output=True, text=True, timeout=PING + 5
        )
        host = urllib.parse.urlsplit(url).hostname or url
        answers[host] = last(done.stderr) or "no answer" if done.returncode else ""
    return answers


def look(config: dict[str, Any], how: dict[str, Any], now: float) -> dict[str, Any]:
    """One look. Returns the record."""
    known = read(RECORD, {}) or {}
    began = STATE / "alarm-began.json"
    if read(began, {}).get("generation") != config["generation"]:
        write(began, {"generation": config["generation"], "at": iso(now)}, 0o644)
    found = causes(config, now, tell)
    memory, wrong, well = decide(known.get("causes", {}), found, now)
    failed: dict[str, str] = {}
    if wrong or well:
        stack = config["stack"]
        subject = f"[{stack}] backups: " + (f"{len(found)} wrong" if found else "well again")
        asked = [kind for kind in ("mail", "sms") if config["policy"][kind] and how.get(kind)]
        for kind in asked:
            try:
                if kind == "mail":
                    mail(config, how, subject, [*wrong, *well])
                else:
                    text(config, how, f"{stack}: {'; '.join([*wrong, *well])}")
            except (OSError, smtplib.SMTPException, ValueError) as error:
                failed[kind] = f"{type(error).__name__}: {error}"[:300]
        if asked and len(failed) == len(asked):
            # Nobody has heard of it: the next round tries again.
            for key in memory:
                memory[key]["told"] = float(known.get("causes", {}).get(key, {}).get("told", 0))
    pings = known.get("pings", {})
    if config["policy"]["pings"] and config["generation"]:
        pings = {} if found else ping(list(config["policy"]["pings"]))
    record = {"at": iso(now), "well": not found, "causes": memory, "failed": failed, "pings": pings}
    write(RECORD, record, 0o644)
    for line in (*wrong, *well, *(f"{kind} could not be sent: {why}" for kind, why in failed.items())):
        print(line, file=sys.stderr)
    return record


def main() -> int:
    if sys.argv[1:] == ["status"]:
        print(json.dumps(read(RECORD, {}) or {}, indent=1))
        return 0
    with alone("alarm") as free:
        if not free:
            return 0
        try:
            look(settings(), read(FOLDER / "alarm.json", {}) or {}, time.time())
        except Failure as failure:
            print(f"{failure} -> {failure.body['next']}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
