"""A peer's agent over SSH: one connection for many words, and never a host that is not known."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from ground import Failure, last
from state import FOLDER, RUN

# (machine, verb): agents that were started beforehand.
_WAITING: dict[tuple[str, str], subprocess.Popen[str]] = {}


class Unreachable(Failure):
    """No answer: whether the peer did it is not known."""


class Told(Failure):
    """The peer's own words."""


def peer(config: dict[str, Any], name: str) -> dict[str, Any]:
    for one in config["machines"]:
        if one["name"] == name:
            found: dict[str, Any] = one
            return found
    raise Failure("moving", f"the settings know no machine {name}", "run `deploy migrate` again")


def words(one: dict[str, Any], *options: str) -> list[str]:
    """ssh to it, without the command."""
    fixed = {
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f"{FOLDER}/known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "5",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
    }
    line = ["ssh", "-F", "none", "-i", f"{FOLDER}/key"]
    for name, value in fixed.items():
        line += ["-o", f"{name}={value}"]
    return [*line, *options, "-p", str(one.get("port") or 22), f"root@{one['address']}"]


def _socket(one: dict[str, Any]) -> str:
    return f"{RUN}/{str(one['name']).replace('/', '-')}.ssh"


def connect(one: dict[str, Any]) -> None:
    """A connection that stays for those to come. Without one they connect by themselves."""
    RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _socket(one)
    quiet: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    try:
        if subprocess.run(words(one, "-S", path, "-O", "check"), **quiet, timeout=5).returncode:
            # Its own process: nothing of ours waits for it, and no pipe of ours stays open in it.
            master = words(one, "-S", path, "-M", "-N", "-f", "-o", "ControlPersist=60")
            subprocess.run(master, **quiet, timeout=10)
    except subprocess.TimeoutExpired:
        disconnect(one)


def standing(one: dict[str, Any]) -> list[str]:
    """ssh by the connection that stands."""
    return words(one, "-S", _socket(one), "-o", "ControlMaster=no")


def disconnect(one: dict[str, Any]) -> None:
    """After a silence: the next word goes by a new connection."""
    try:
        exit = words(one, "-S", _socket(one), "-O", "exit")
        subprocess.run(exit, capture_output=True, timeout=5)
    except subprocess.TimeoutExpired:
        pass


def _begun(one: dict[str, Any], verb: str) -> subprocess.Popen[str]:
    """Its agent, which waits for its words."""
    connect(one)
    pipe = subprocess.PIPE
    return subprocess.Popen([*standing(one), "agent", verb], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def beforehand(one: dict[str, Any], *verbs: str) -> None:
    """Start its agents for these now: who waits for their answers later need not wait for their start too.

    Each is a session of the one connection, of which sshd allows ten. They end by themselves when this process does.
    """
    for verb in verbs:
        if (key := (str(one["name"]), verb)) not in _WAITING:
            _WAITING[key] = _begun(one, verb)


def call(one: dict[str, Any], verb: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
    """What its agent answers. Raises Unreachable or Told."""
    what = f"asking {one['name']} to {verb}"
    agent = _WAITING.pop((str(one["name"]), verb), None) or _begun(one, verb)
    try:
        out, err = agent.communicate(json.dumps(body), timeout)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.communicate()
        disconnect(one)
        raise Unreachable(
            what, f"no answer within {timeout:.0f} s", "see whether it runs and is reached"
        ) from None
    try:
        answer = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        disconnect(one)
        why = last(err) or f"ssh ended with {agent.returncode}"
        raise Unreachable(what, why, "see whether it runs and is reached") from None
    if error := answer.get("error"):
        told = Told(str(error["what"]), str(error["why"]), str(error["next"]))
        told.body["machine"] = one["name"]
        raise told
    result: dict[str, Any] = answer
    return result


def side_by_side(work: dict[str, Any]) -> dict[str, Any]:
    """{name: function} all at once; {name: result}. Raises the first Failure, after all have ended."""
    if len(work) == 1:
        [(name, one)] = work.items()
        return {name: one()}
    # Here: it takes half as long to read as all else that serves a peer, which starts once for each copy in the pause.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max(len(work), 1)) as pool:
        begun = {name: pool.submit(one) for name, one in work.items()}
    return {name: future.result() for name, future in begun.items()}
