"""The claim of this side's generation, into every repository at once: after it no other side serves, wherever it is."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from ground import Failure, iso, last, read, write

# Seconds that one repository has; after which the others are not waited for, once one has it.
PUT, OTHERS = 10, 2


def settings(generation: int) -> dict[str, Any]:
    """Of backups; {} without repositories. Raises Failure when they are of another generation."""
    found = read(Path("/etc/deploy/backups/settings.json"), {}) or {}
    if found.get("repositories") and int(found["generation"]) != generation:
        why = f"the backups of this machine are of generation {found['generation']}, the move makes it {generation}"
        raise Failure("claiming the generation", why, "run `deploy migrate` again")
    return found


def look(generation: int) -> list[str]:
    """Who else holds this generation or a newer one. What does not answer says nothing here."""
    # Here, and not above: a rehearsal's machine has no guard.
    import guard

    config = settings(generation)
    found = []
    for answer in guard.ask_all(config.get("repositories", [])):
        if answer.claim > generation or (
            answer.claim == generation and answer.deployment and answer.deployment != config["deployment"]
        ):
            who = answer.deployment or "another deployment"
            found.append(f"{who} holds generation {answer.claim} in {answer.name}")
    return found


def put(generation: int, needed: bool) -> list[dict[str, Any]]:
    """[{"name", "good", "text"}] of each repository, as far as it is known when this returns.

    needed: raises Failure unless one has it. There are no repositories: [].
    """
    config = settings(generation)
    repositories = list(config.get("repositories", []))
    body = {"generation": generation, "deployment": config.get("deployment", ""), "at": iso(time.time())}
    body["by"] = config.get("machine", "")
    found: dict[str, dict[str, Any]] = {}
    news = threading.Condition()

    def one(repository: dict[str, Any]) -> None:
        name = str(repository["name"])
        try:
            _put(repository, generation, body)
            told = {"name": f"claim in {name}", "good": True, "text": f"generation {generation}"}
        except (Failure, OSError, ValueError, subprocess.TimeoutExpired) as error:
            told = {"name": f"claim in {name}", "good": False, "text": str(error)}
        with news:
            found[name] = told
            news.notify_all()

    for repository in repositories:
        threading.Thread(target=one, args=(repository,), daemon=True).start()
    end = time.monotonic() + PUT + 5
    with news:
        while len(found) < len(repositories) and (left := end - time.monotonic()) > 0:
            news.wait(left)
            if any(told["good"] for told in found.values()):
                end = min(end, time.monotonic() + OTHERS)
        late = {"good": False, "text": "no answer in time"}
        names = [str(one["name"]) for one in repositories]
        answers = [found.get(name) or {"name": f"claim in {name}", **late} for name in names]
    if needed and repositories and not any(told["good"] for told in answers):
        why = "; ".join(f"{told['name']}: {told['text']}" for told in answers)
        raise Failure("claiming the generation", why, "reach one repository, then run it again")
    return answers


def _put(repository: dict[str, Any], generation: int, body: dict[str, Any]) -> None:
    """An existing claim is never overwritten. Raises Failure when it is another's."""
    import guard

    key = guard._below(repository, f"{repository['claims_key']}{generation:06d}.json")
    # Looked at first: not every vendor knows the condition below.
    known = guard.ask(repository)
    if known.error:
        raise Failure("claiming", known.error, "")
    if known.claim > generation or (known.claim == generation and known.deployment != body["deployment"]):
        who = known.deployment or "another deployment"
        raise Failure(
            "claiming", f"generation {known.claim} is another's there: {who}", "see `deploy status`"
        )
    if known.claim == generation:
        return
    if repository["kind"] == "path":
        path = Path(repository["path"]) / key
        if not Path(repository["path"]).is_dir():
            raise Failure("claiming", f"the folder {repository['path']} is not there", "mount it")
        if not path.exists():
            write(path, body, 0o644)
    else:
        code, words = _curl(repository, key, body, ("If-None-Match: *",))
        if code in (400, 501):
            # A vendor that does not know the condition.
            code, words = _curl(repository, key, body, ())
        if code == 412:
            pass
        elif code >= 300 or not code:
            raise Failure("claiming", f"it answers {code} {words}".strip(), "")
    if generation_of(repository, key) != body["deployment"]:
        raise Failure("claiming", f"generation {generation} is another's there", "see `deploy status`")


def generation_of(repository: dict[str, Any], key: str) -> str:
    import guard

    prefix = str(repository["prefix"]).strip("/")
    below = key[len(prefix) + 1 :] if prefix else key
    return str(json.loads(guard._get(repository, below))["deployment"])


def _curl(
    repository: dict[str, Any], key: str, body: dict[str, Any], headers: tuple[str, ...]
) -> tuple[int, str]:
    """HTTP status and words. The key of the vendor goes by standard input."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = json.dumps(body, sort_keys=True)
    url = f"{str(repository['endpoint']).rstrip('/')}/{repository['bucket']}/{urllib.parse.quote(key)}"
    lines = [
        ("url", url),
        ("aws-sigv4", f"aws:amz:{repository['region']}:s3"),
        ("user", f"{repository['key']}:{repository['secret']}"),
        ("request", "PUT"),
        ("data-raw", text),
        # Not every curl sends what it signed.
        ("header", f"x-amz-content-sha256: {hashlib.sha256(text.encode()).hexdigest()}"),
        ("header", "Content-Type: application/json"),
        *(("header", header) for header in headers),
    ]
    if repository["ca_file"]:
        lines.append(("cacert", str(repository["ca_file"])))
    config = "".join(f"{name} = {quoted(value)}\n" for name, value in lines)
    words = [
        "curl",
        "-q",
        "-sS",
        "--globoff",
        "--max-time",
        str(PUT),
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ]
    done = subprocess.run([*words, "-K", "-"], input=config, capture_output=True, text=True, timeout=PUT + 5)
    if done.returncode:
        raise Failure("claiming", last(done.stderr) or f"curl ended with {done.returncode}", "")
    return int(done.stdout.strip() or 0), ""
