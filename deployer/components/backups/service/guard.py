#!/usr/bin/python3 -B
"""Who may serve: `guard.py check` (before anything serves), `watch` (every minute), `allow`, `status`.

The newest generation is live, and a claim of it lies in every repository. A machine whose generation is not the
newest, or that can ask none, serves nothing. A running one that loses sight of all goes on; the alarm tells.

allow: serve all the same, until the next boot. For an operator who knows that no other deployment of the stack
is live, when no repository answers or the claims are wrong.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ground import STATE, Failure, iso, last, read, settings, write

UNIT = "deploy-guard.service"
# Both are gone after a reboot.
ALLOWED = Path("/run/deploy-guard/allowed")
REFUSED = Path("/run/deploy-guard/refused")
RECORD = STATE / "guard.json"
# Written while a move keeps this machine from serving; see components/moving.
CLOSED = Path("/var/lib/deploy/moving/closed")
# Folders in which our claim was seen: {name: generation}.
CLAIMED = STATE / "guard-claimed.json"
# Seconds: one question; how long the others are waited for once one has answered; how long a boot tries.
ASK, GRACE, PATIENCE, PAUSE = 10, 8, 50, 3
CLAIM = re.compile(r"generations/(\d{6})\.json\Z")
# Exit codes of `check`.
SUPERSEDED, BLIND = 3, 4


@dataclass
class Answer:
    """Of one repository. claim: the highest; deployment: who made it. error: why there is no answer.

    unclaimed: a folder that may lack our claim: only this machine reaches it, so it puts it there. Not one in which
    there was a claim once and is none now.
    """

    name: str
    claim: int = 0
    deployment: str = ""
    error: str = ""
    unclaimed: bool = False


def ask(repository: dict[str, Any]) -> Answer:
    answer = Answer(repository["name"])
    try:
        keys = _list(repository)
        numbers = sorted(int(found[1]) for key in keys if (found := CLAIM.search(key)))
        known = repository["name"] in (read(CLAIMED, {}) or {})
        # A side that is closed by a move claims nothing by itself: it would end the live one.
        free = bool(numbers) or not known
        answer.unclaimed = repository["kind"] == "path" and free and not CLOSED.exists()
        if numbers:
            answer.claim = numbers[-1]
            body = json.loads(_get(repository, f"{repository['claims_key']}{numbers[-1]:06d}.json"))
            answer.deployment = str(body["deployment"])
    except (Failure, OSError, ValueError, KeyError, TypeError) as error:
        answer.error = str(error)
        # What a claim says is told only once: its number alone is enough to stand back.
    return answer


def _below(repository: dict[str, Any], key: str) -> str:
    prefix = str(repository["prefix"]).strip("/")
    return f"{prefix}/{key}" if prefix else key


def _list(repository: dict[str, Any]) -> list[str]:
    key = _below(repository, str(repository["claims_key"]))
    if repository["kind"] == "path":
        top = Path(repository["path"])
        if not top.is_dir():
            raise Failure("reading claims", f"the folder {top} is not there", "mount it")
        folder = top / key
        return [f"generations/{path.name}" for path in folder.iterdir()] if folder.is_dir() else []
    text = _curl(repository, f"?list-type=2&prefix={urllib.parse.quote(key, safe='')}")
    return [found[1] for found in re.finditer(r"<Key>([^<]+)</Key>", text)]


def _get(repository: dict[str, Any], key: str) -> str:
    key = _below(repository, key)
    if repository["kind"] == "path":
        return (Path(repository["path"]) / key).read_text(encoding="utf-8")
    return _curl(repository, f"/{urllib.parse.quote(key)}")


def _curl(repository: dict[str, Any], rest: str) -> str:
    """The request is signed by curl; the key goes to it by standard input."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    url = f"{str(repository['endpoint']).rstrip('/')}/{repository['bucket']}{rest}"
    lines = {
        "url": url,
        "aws-sigv4": f"aws:amz:{repository['region']}:s3",
        "user": f"{repository['key']}:{repository['secret']}",
    }
    if repository["ca_file"]:
        lines["cacert"] = str(repository["ca_file"])
    config = "".join(f"{name} = {quoted(value)}\n" for name, value in lines.items())
    words = ["curl", "-q", "-sS", "--fail", "--globoff", "--max-time", str(ASK), "-K", "-"]
    done = subprocess.run(words, input=config, capture_output=True, text=True, timeout=ASK + 5)
    if done.returncode:
        raise Failure(
            f"asking {repository['name']}", last(done.stderr) or f"curl ended with {done.returncode}"
        )
    return done.stdout


def ask_all(repositories: list[dict[str, Any]]) -> list[Answer]:
    """All at the same time. Once one has answered, the others have GRACE seconds more."""
    answers: dict[str, Answer] = {}
    news = threading.Condition()

    def one(repository: dict[str, Any]) -> None:
        answer = ask(repository)
        with news:
            answers[answer.name] = answer
            news.notify_all()

    for repository in repositories:
        threading.Thread(target=one, args=(repository,), daemon=True).start()
    end = time.monotonic() + 2 * ASK + 5
    with news:
        while len(answers) < len(repositories) and (left := end - time.monotonic()) > 0:
            if any(not answer.error for answer in answers.values()):
                end = min(end, time.monotonic() + GRACE)
                left = end - time.monotonic()
                answered = len(answers)
                news.wait_for(lambda: len(answers) >= len(repositories), left)
                if len(answers) == answered or left <= 0:
                    break
            else:
                news.wait(left)
        late = "no answer in time"
        return [answers.get(one["name"]) or Answer(one["name"], error=late) for one in repositories]


def judge(config: dict[str, Any], answers: list[Answer]) -> tuple[str, str]:
    """("serve", why), ("superseded", why) or ("blind", why)."""
    mine, deployment = int(config["generation"]), str(config["deployment"])
    newest = max(answers, key=lambda answer: answer.claim, default=None)
    if newest and newest.claim > mine:
        who = newest.deployment or "another deployment"
        return "superseded", (
            f"{who} holds generation {newest.claim} (claim in {newest.name}); "
            + (f"this machine is of generation {mine}" if mine else "this deployment holds none")
        )
    if mine:
        for answer in answers:
            if answer.claim == mine and answer.deployment and answer.deployment != deployment:
                return "superseded", f"generation {mine} belongs to {answer.deployment} in {answer.name}"
    # One that holds no claim at all, though we made one there, proves nothing: its history is gone.
    good = [one for one in answers if not one.error and (one.claim >= mine or one.unclaimed)]
    if answers and not good:
        words = "; ".join(f"{one.name}: {one.error or 'holds no claim of ours'}" for one in answers)
        return "blind", f"no repository tells who is live ({words})"
    return "serve", f"generation {mine} is the newest" if mine else "no generation is claimed"


def claim(config: dict[str, Any], answers: list[Answer]) -> None:
    """Put our claim into folders that only this machine reaches, and remember where it is: a folder that lacks it
    later is a share that is not mounted."""
    mine, known = int(config["generation"]), read(CLAIMED, {}) or {}
    for repository, answer in zip(config["repositories"], answers, strict=True):
        if not mine or repository["kind"] != "path" or answer.error or known.get(answer.name) == mine:
            continue
        if answer.claim < mine:
            if not answer.unclaimed:
                continue
            key = _below(repository, f"{repository['claims_key']}{mine:06d}.json")
            body = {"generation": mine, "deployment": config["deployment"], "at": iso(time.time())}
            try:
                write(Path(repository["path"]) / key, {**body, "by": config["machine"]}, 0o644)
            except OSError as error:
                print(f"no claim in {answer.name}: {error}", file=sys.stderr)
                continue
        known[answer.name] = mine
        write(CLAIMED, known, 0o644)


def note(config: dict[str, Any], verdict: str, why: str, answers: list[Answer]) -> None:
    known = read(RECORD, {}) or {}
    since = known.get("since") if known.get("verdict") == verdict else ""
    body = {"verdict": verdict, "why": why, "at": iso(time.time()), "since": since or iso(time.time())}
    body["generation"] = config["generation"]
    body["repositories"] = [
        {"name": one.name, "claim": one.claim, "deployment": one.deployment, "error": one.error}
        for one in answers
    ]
    body["allowed"] = ALLOWED.exists()
    write(RECORD, body, 0o644)


def check() -> int:
    """At boot, before anything serves. Tries for about a minute to reach one."""
    config = settings()
    if not config["repositories"] or ALLOWED.exists():
        why = (
            "an operator allowed it until the next boot" if ALLOWED.exists() else "there are no repositories"
        )
        note(config, "serve", why, [])
        return _serve(why)
    # A second try of the unit comes after its pause: one question each time is enough then.
    end = time.monotonic() + (0 if REFUSED.exists() else PATIENCE)
    while True:
        answers = ask_all(config["repositories"])
        verdict, why = judge(config, answers)
        if verdict != "blind" or time.monotonic() > end:
            break
        time.sleep(PAUSE)
    note(config, verdict, why, answers)
    if verdict == "serve":
        claim(config, answers)
        return _serve(why)
    REFUSED.parent.mkdir(exist_ok=True)
    REFUSED.write_text(why)
    print(
        f"NOTHING IS SERVED: {why}. To serve all the same until the next boot: {__file__} allow",
        file=sys.stderr,
    )
    return SUPERSEDED if verdict == "superseded" else BLIND


def _serve(why: str) -> int:
    print(f"may serve: {why}")
    if REFUSED.exists():
        REFUSED.unlink()
        # What was refused before comes up now; it waits for this unit, which is about to be active.
        subprocess.run(["systemctl", "start", "--no-block", "multi-user.target"], timeout=30, check=False)
    return 0


def watch() -> int:
    """Every minute: a newer generation ends the service of this one."""
    config = settings()
    if not config["repositories"] or ALLOWED.exists():
        return 0
    answers = ask_all(config["repositories"])
    verdict, why = judge(config, answers)
    note(config, verdict, why, answers)
    if verdict == "serve":
        claim(config, answers)
    if verdict == "superseded" and _active():
        REFUSED.parent.mkdir(exist_ok=True)
        REFUSED.write_text(why)
        print(f"STOPPING EVERYTHING: {why}", file=sys.stderr)
        # What requires the guard stops with it; nothing that wants to start meanwhile takes that back.
        mode = "--job-mode=replace-irreversibly"
        subprocess.run(["systemctl", "stop", "--no-block", mode, UNIT], timeout=30, check=False)
        return SUPERSEDED
    if verdict == "blind":
        print(f"going on, blindly: {why}", file=sys.stderr)
    return 0


def _active() -> bool:
    return subprocess.run(["systemctl", "is-active", "--quiet", UNIT], timeout=30).returncode == 0


def allow() -> int:
    """Nothing happens to what runs; what was refused, or is being stopped, starts."""
    ALLOWED.parent.mkdir(exist_ok=True)
    ALLOWED.write_text(iso(time.time()))
    print("this machine may serve until its next boot, whatever the repositories say", file=sys.stderr)
    if not REFUSED.exists() and _active():
        return 0
    REFUSED.write_text("allowed since")
    # A stop that is under way must end first.
    subprocess.run(["systemctl", "stop", UNIT], timeout=300, check=False)
    return subprocess.run(["systemctl", "start", UNIT], timeout=120).returncode


def status() -> int:
    print(json.dumps(read(RECORD, {}) or {}, indent=1))
    return 0


def main() -> int:
    verbs = {"check": check, "watch": watch, "allow": allow, "status": status}
    if len(sys.argv) != 2 or sys.argv[1] not in verbs:
        print(f"usage: guard.py {'|'.join(verbs)}", file=sys.stderr)
        return 2
    try:
        return verbs[sys.argv[1]]()
    except Failure as failure:
        print(f"{failure} -> {failure.body['next']}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
