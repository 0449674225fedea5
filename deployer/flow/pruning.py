"""`deploy backup prune`: delete what the policy does not keep, with keys that no machine of the stack has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from deployer.components.backups import actions
from deployer.components.backups import spec as backups
from deployer.core import generation
from deployer.core.errors import DeployError, InputError
from deployer.core.events import Event, Sink
from deployer.core.model import Repository
from deployer.flow.backups import choose, needed
from deployer.flow.generations import confirm_newest
from deployer.flow.request import Request
from deployer.flow.session import SSH, Session
from deployer.flow.workbench import LONGEST, PACKAGES, workbench

# What runs a program with its request on standard input: exit code, standard output, standard error.
Runner = Callable[[str, Mapping[str, Any]], tuple[int, str, str]]
PARTS = ("database", "files")
# The first versions that can do what service/prune.py asks of them.
OLDEST = {"pgbackrest": (2, 45), "restic": (0, 16)}


def prune(
    request: Request,
    sink: Sink,
    repository: str | None,
    on: str | None,
    generations: Sequence[int] = (),
) -> dict[str, Any]:
    """Apply keep_full and keep_files to each repository, and remove the generations that are named.

    repository: only this one. on: the inventory (name or file) where a throw-away machine is made when this computer
    lacks the programs. ok, where, repositories (what went and what is left), failed (in words).
    """
    with Session.open(request, sink, make_secrets=False) as session:
        try:
            return _prune(session, choose(needed(session), repository), on, generations)
        except DeployError as error:
            session.mask.error(error)
            raise


def _prune(
    session: Session, chosen: Sequence[Repository], on: str | None, generations: Sequence[int]
) -> dict[str, Any]:
    live = generation.current(session.secrets)
    if live is None:
        raise InputError(
            "pruning", "no generation was ever claimed, so there are no backups", "run deploy up"
        )
    check(chosen, live.number, generations)
    # With old secrets the generation that is live would count as over.
    confirm_newest(session)
    stack = session.project.stack
    words = f"keep {stack.backup.keep_full} full backups and {stack.backup.keep_files} days of files"
    if generations:
        words += f", and delete all of generation {', '.join(map(str, sorted(generations)))} for ever"
    if not session.request.confirm(f"prune {', '.join(one.name for one in chosen)}: {words}. Go on?"):
        raise InputError("pruning", "stopped before anything was deleted", "run it again and say yes")
    remote = [one for one in chosen if one.kind == "s3"]
    failed: list[str] = []
    found: list[dict[str, Any]] = []
    where = ""
    if remote:
        with _place(session, on) as (where, run):
            for one in remote:
                found.append(_one(session, one, live.number, where, run, PARTS, failed))
    for one in chosen:
        if one.kind == "path":
            found += _folder(session, one, live.number, failed)
    for one in chosen:
        for number in sorted(generations):
            found += _generation(session, one, number, failed)
    return {
        "deployment": str(session.project.deployment),
        "generation": live.number,
        "ok": not failed,
        "where": where,
        "repositories": found,
        "failed": failed,
    }


def check(chosen: Sequence[Repository], live: int, generations: Sequence[int]) -> None:
    """Raises InputError for a repository without a key that may delete, and for a generation that must stay."""
    lacking = [one.name for one in chosen if one.kind == "s3" and not one.prune_key]
    if lacking:
        raise InputError(
            "pruning",
            f"{', '.join(lacking)}: no prune_key and prune_secret in the inventory",
            "make a key that may delete (docs/backups.md), and name it there as ${VARIABLE}; the machines' own must not",
        )
    for number in generations:
        if not 0 < number < live:
            raise InputError(
                "choosing a generation",
                f"{number} is not older than {live}, which is the newest",
                "only generations that are over can be deleted",
            )


@contextmanager
def _place(session: Session, on: str | None) -> Iterator[tuple[str, Runner]]:
    """Where the programs run, in words, and how."""
    lacking = [text for name in PACKAGES if (text := lacks(name))] if on is None else []
    if on is None and not lacking:
        yield "this computer", _here
        return
    if lacking:
        text = f"this computer lacks {', '.join(lacking)}, so a throw-away machine does it"
        session.sink(Event("notice", text))
    with workbench(session.request, session.project, session.sink, on=on) as bench:
        yield bench.machine.name, bench.run


def lacks(name: str) -> str:
    """What has to be installed here of a program, in words; "" when it is good as it is."""
    path = shutil.which(name)
    if not path:
        return name
    done = subprocess.run([path, "version"], capture_output=True, text=True, timeout=20)
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    good = found is not None and (int(found[1]), int(found[2])) >= OLDEST[name]
    return "" if good else f"{name} {'.'.join(map(str, OLDEST[name]))}"


def _here(program: str, asked: Mapping[str, Any]) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", program],
            input=json.dumps(asked) + "\n",
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        raise DeployError("pruning", f"no end after {LONGEST} s", "run it again: it goes on") from None
    return done.returncode, done.stdout, done.stderr


def asked(session: Session, one: Repository, number: int, parts: Sequence[str]) -> dict[str, Any]:
    """The request of service/prune.py."""
    settings = backups.repository(session.project.stack.name, one, number, session.secrets)
    settings |= {"key": one.prune_key, "secret": one.prune_secret}
    settings |= {"ca_file": "", "trusted_ca": one.trusted_ca}
    policy = session.project.stack.backup
    return {
        "repository": settings,
        "keep_full": policy.keep_full,
        "keep_files": policy.keep_files,
        "parts": list(parts),
    }


def _one(
    session: Session,
    one: Repository,
    number: int,
    where: str,
    run: Runner,
    parts: Sequence[str],
    failed: list[str],
) -> dict[str, Any]:
    """Prune one repository at one place. A failure is noted, and stops no other."""
    began, text = time.monotonic(), f"prune {one.name}"
    session.sink(Event("stage", text, status="start"))
    body: Mapping[str, Any] = {}
    try:
        answer = run(actions.prune_program(), asked(session, one, number, parts))
        body = actions.answer(f"pruning {one.name}", where, *answer)
    except DeployError as error:
        session.mask.error(error)
        failed.append(f"{one.name}: {error.why}")
        session.sink(Event("warning", str(error)))
    seconds = round(time.monotonic() - began, 2)
    session.sink(Event("stage", text, status="ok" if body else "failed", seconds=seconds))
    return {"repository": one.name, "where": where, **body, "seconds": seconds}


def _folder(session: Session, one: Repository, number: int, failed: list[str]) -> list[dict[str, Any]]:
    """A folder is on the stack's machines and nowhere else: they prune it themselves."""
    machines = session.running()
    session.connected(session.connect(machines, SSH), SSH)
    found = []
    for name in machines:
        entry = next(item for item in session.project.inventory.machines if item.name == name)
        parts = PARTS if "database" in entry.roles else ("files",)

        def run(program: str, body: Mapping[str, Any], name: str = name) -> tuple[int, str, str]:
            import shlex

            command = f"python3 -I -c {shlex.quote(program)}"
            return session.engine.run(name, command, stdin=json.dumps(body) + "\n", timeout=LONGEST)

        found.append(_one(session, one, number, name, run, parts, failed))
    return found


def _generation(session: Session, one: Repository, number: int, failed: list[str]) -> list[dict[str, Any]]:
    """Delete a generation's backups. Its claim stays: a number is never used twice."""
    from deployer.storage import open_store

    if one.kind == "path":
        failed.append(
            f"{one.name}: generation {number} lies in a folder on the machines; delete it there: "
            f"{one.path}/{session.project.stack.name}/{number:06d}"
        )
        return []
    began, text = time.monotonic(), f"delete generation {number} in {one.name}"
    session.sink(Event("stage", text, status="start"))
    gone, status = 0, "ok"
    try:
        store = open_store(one, prune=True)
        for key in list(store.list(f"{session.project.stack.name}/{number:06d}/")):
            store.delete(key)
            gone += 1
    except DeployError as error:
        session.mask.error(error)
        failed.append(f"{one.name}, generation {number}: {error.why}")
        session.sink(Event("warning", str(error)))
        status = "failed"
    seconds = round(time.monotonic() - began, 2)
    session.sink(Event("stage", text, status=status, seconds=seconds))
    return [{"repository": one.name, "generation": number, "objects": gone, "seconds": seconds}]
