"""restic, for one repository: whom to ask, with which keys, and what its answers mean."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ground import Failure, last, run

CACHE = Path("/var/cache/deploy-backups")
# Bytes of the cache (lists of contents, never contents) beyond which it begins anew.
CACHE_BOUND = 1 << 30
# Seconds: an answer to a small question; and without any progress before a transfer counts as stuck.
ANSWER, STUCK = 60, 600
NEXT = "see `deploy backup list`; the other repositories go on"


class Restic:
    """All machines of a stack share one restic repository in each place; a snapshot's host is the machine's name."""

    def __init__(self, repository: dict[str, Any], cache: Path | None = None) -> None:
        self.name = str(repository["name"])
        self.cache = cache or CACHE / self.name
        self._options = ["--cache-dir", str(self.cache), "--cleanup-cache"]
        environment = {
            "RESTIC_PASSWORD": str(repository["files_password"]),
            "RESTIC_PROGRESS_FPS": "1",
        }
        parts = [repository["prefix"], repository["files_key"]]
        below = "/".join(str(part).strip("/") for part in parts if part)
        if repository["kind"] == "s3":
            self.folder = None
            environment["RESTIC_REPOSITORY"] = (
                f"s3:{str(repository['endpoint']).rstrip('/')}/{repository['bucket']}/{below}"
            )
            environment["AWS_ACCESS_KEY_ID"] = str(repository["key"])
            environment["AWS_SECRET_ACCESS_KEY"] = str(repository["secret"])
            self._options += ["-o", f"s3.region={repository['region']}", "-o", "s3.bucket-lookup=path"]
            if repository["ca_file"]:
                self._options += ["--cacert", str(repository["ca_file"])]
        else:
            self.folder = Path(str(repository["path"]))
            environment["RESTIC_REPOSITORY"] = str(self.folder / below)
        self.environment = environment

    def argv(self, words: Sequence[str]) -> list[str]:
        return ["restic", *self._options, *words]

    def ask(self, what: str, *words: str, timeout: float = ANSWER, codes: Sequence[int] = (0,)) -> str:
        """Output of restic. Raises Failure."""
        self.bound_cache()
        try:
            done = run(
                f"{what} ({self.name})",
                self.argv(words),
                timeout=timeout,
                environment=self.environment,
                codes=(*codes, 10, 12),
                next=NEXT,
            )
        except Failure as failure:
            # With --json its last words are JSON too.
            if message := _message(failure.body["why"]):
                failure.body["why"] = _words(message, failure.body["why"]).partition("\n")[0]
            raise
        self.refuse(what, done.returncode, codes)
        return done.stdout

    def refuse(self, what: str, code: int, codes: Sequence[int]) -> None:
        """Raises Failure for what restic says by its exit code."""
        if code in codes:
            return
        if code == 10:
            raise Failure(
                f"{what} ({self.name})",
                "there are no backups of files in it",
                "compare bucket and prefix; a new one is set up by the first backup",
            )
        raise Failure(
            f"{what} ({self.name})",
            "the password does not fit: these backups were encrypted with another",
            "use the secrets bundle that lies beside the backups of this generation",
        )

    def transfer(
        self, what: str, words: Sequence[str], told: Callable[[dict[str, Any]], None], bound: float
    ) -> tuple[int, list[str]]:
        """A long run with --json. told: gets each message. Returns the exit code and the last words on standard error.

        Ends what moves nothing for STUCK seconds: a vendor that hangs must not hold up the next run for hours.
        """
        self.bound_cache()
        # A backup leaves the processors to those who serve; a restore is what all wait for.
        gentle = {"GOMAXPROCS": "2"} if words[0] == "backup" else {}
        process = subprocess.Popen(
            self.argv([*words, "--json"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **self.environment, **gentle},
        )
        assert process.stdout and process.stderr
        errors: list[str] = []
        moved, before, end = time.monotonic(), "", time.monotonic() + bound
        held = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
        try:
            with selectors.DefaultSelector() as ready:
                ready.register(process.stdout, selectors.EVENT_READ)
                ready.register(process.stderr, selectors.EVENT_READ)
                while ready.get_map():
                    for key, _ in ready.select(1):
                        chunk = os.read(key.fd, 1 << 16)
                        if not chunk:
                            ready.unregister(key.fileobj)
                        *lines, held[key.fd] = (held[key.fd] + chunk).split(b"\n")
                        for line in lines:
                            text = line.decode(errors="replace").strip()
                            message = _message(text)
                            if message is None or message.get("message_type") in ("error", "exit_error"):
                                errors.append(_words(message, text))
                            if message is None:
                                continue
                            told(message)
                            progress = _progress(message)
                            if progress != before:
                                before, moved = progress, time.monotonic()
                    now = time.monotonic()
                    if now - moved > STUCK or now > end:
                        why = f"nothing moved for {STUCK} s" if now <= end else f"no end after {bound:.0f} s"
                        raise Failure(f"{what} ({self.name})", why + last("\n".join(errors), ": "), NEXT)
            return process.wait(60), [word for word in errors if word][-20:]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def ready(self, first: bool) -> None:
        """The repository answers and is set up. first: this machine is the one that may set it up; were there two at
        the same time, each would make a key of its own."""
        if self.folder is not None and not self.folder.is_dir():
            raise Failure(
                f"opening the repository {self.name}", f"the folder {self.folder} is not there", "mount it"
            )
        what = f"opening the repository ({self.name})"
        done = run(
            what,
            self.argv(["cat", "config"]),
            timeout=ANSWER,
            environment=self.environment,
            codes=(0, 10, 12),
            next=NEXT,
        )
        if done.returncode == 10 and first:
            self.ask("setting up the repository", "init")
            return
        if done.returncode == 10:
            raise Failure(what, "it is not set up yet", "the first machine of the stack does that in minutes")
        self.refuse("opening the repository", done.returncode, (0,))

    def snapshots(self, *words: str) -> list[dict[str, Any]]:
        """The oldest first."""
        found = json.loads(
            self.ask("listing the snapshots", "snapshots", "--no-lock", "--json", *words) or "[]"
        )
        return sorted(found or [], key=lambda one: str(one["time"]))

    def bound_cache(self) -> None:
        self.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        size = sum(path.lstat().st_size for path in self.cache.rglob("*") if path.is_file())
        if size > CACHE_BOUND:
            shutil.rmtree(self.cache, ignore_errors=True)
            self.cache.mkdir(parents=True, exist_ok=True, mode=0o700)


def point_of(snapshot: dict[str, Any]) -> str:
    """The recovery point that a snapshot belongs to; "" for that of a release."""
    return tagged(snapshot, "point")


def tagged(snapshot: dict[str, Any], name: str) -> str:
    found = [tag.partition("=")[2] for tag in snapshot.get("tags") or [] if tag.startswith(f"{name}=")]
    return found[0] if found else ""


def _message(text: str) -> dict[str, Any] | None:
    try:
        message = json.loads(text)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _words(message: dict[str, Any] | None, text: str) -> str:
    if message is None:
        return text
    error = message.get("error") or {}
    words = error.get("message", "") if isinstance(error, dict) else str(error)
    return " ".join(
        filter(None, [str(message.get("item") or ""), words or str(message.get("message") or "")])
    )


def _progress(message: dict[str, Any]) -> str:
    keys = ("message_type", "bytes_done", "files_done", "bytes_restored", "files_restored")
    return "/".join(str(message.get(key, "")) for key in keys)
