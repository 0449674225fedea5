# What is there on this machine? Runs on it, as root, from standard input; standard library only.
# Request (one JSON line): files, packages, users, units, steps, probes, scripts, lease; see deployer/flow/observe.py.
# Answer (one JSON line). Changes nothing but the lease.
from __future__ import annotations

import fcntl
import grp
import hashlib
import json
import os
import pwd
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

STATE = "/var/lib/deploy"


def name_of(table: Any, number: int) -> str:
    try:
        return str(table(number)[0])
    except KeyError:
        return str(number)


def stat_of(path: str) -> list[Any] | None:
    """[mode, owner, group, sha256 or "dir"], or None when nothing is there."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    owner, group = name_of(pwd.getpwuid, info.st_uid), name_of(grp.getgrgid, info.st_gid)
    mode = info.st_mode & 0o7777
    if os.path.islink(path):
        return [mode, owner, group, "link"]
    if os.path.isdir(path):
        return [mode, owner, group, "dir"]
    try:
        with open(path, "rb") as file:
            return [mode, owner, group, hashlib.sha256(file.read()).hexdigest()]
    except OSError as error:
        return [mode, owner, group, f"unreadable: {error}"]


def run(argv: list[str], stdin: str = "", timeout: float = 20.0) -> tuple[int, str]:
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            errors="replace",
        )
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {timeout:g} s"
    except OSError as error:
        return 127, str(error)


def script(text: str, timeout: float) -> tuple[int, str]:
    return run(["bash", "-s"], text, timeout)


def packages(names: list[str]) -> dict[str, str]:
    if not names:
        return {}
    _, out = run(["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n", *names])
    found = {}
    for line in out.splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[2].startswith("ii"):
            found[parts[0]] = parts[1]
    return found


def units(names: list[str]) -> dict[str, Any]:
    if not names:
        return {}
    _, out = run(
        [
            "systemctl",
            "show",
            "-p",
            "Id,Names,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,NRestarts",
            "--",
            *names,
        ]
    )
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in out.strip().split("\n\n")
    ]
    found = {}
    for name, block in zip(names, blocks, strict=False):
        found[name] = {
            "load": block.get("LoadState", ""),
            "active": block.get("ActiveState", ""),
            "sub": block.get("SubState", ""),
            "enabled": block.get("UnitFileState", ""),
            "reload": block.get("NeedDaemonReload", "") == "yes",
            "restarts": int(block.get("NRestarts") or 0),
        }
    return found


def read_json(path: str) -> Any:
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def step(key: str, check: str) -> dict[str, Any]:
    marker = read_json(os.path.join(STATE, "steps", key))
    code, out = script(check, 30.0)
    return {"marker": (marker or {}).get("digest", ""), "ok": code == 0, "detail": out.strip()[-300:]}


def probe(text: str, timeout: float) -> dict[str, Any]:
    start = time.monotonic()
    code, out = script(text, timeout)
    lines = out.strip().splitlines()
    return {
        "ok": code == 0,
        "detail": lines[-1][:300] if lines else "",
        "seconds": round(time.monotonic() - start, 3),
    }


def lease(wanted: dict[str, Any]) -> dict[str, Any]:
    """Take or renew the lease; flow/leasing.py gives it back. The rule comes with the request, from its only place."""
    rule: dict[str, Any] = {}
    exec(wanted["rule"], rule)
    os.makedirs(STATE, mode=0o755, exist_ok=True)
    with open(os.path.join(STATE, "lease.lock"), "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        path = os.path.join(STATE, "lease.json")
        existing, now = read_json(path), time.time()
        verdict = rule["decide"](existing, wanted["lease"], now, wanted["ours"])
        if verdict["granted"]:
            with open(path + ".new", "w") as file:
                json.dump(verdict["lease"], file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + ".new", path)
    return dict(verdict, existing=existing)


def facts() -> dict[str, Any]:
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) * 1024
    system = {}
    with open("/etc/os-release") as file:
        for line in file:
            key, _, value = line.strip().partition("=")
            system[key] = value.strip('"')
    machine = os.uname().machine
    return {
        "cores": os.cpu_count() or 1,
        "memory": memory,
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "system": f"{system.get('ID', '?')} {system.get('VERSION_ID', '?')}",
        "now": time.time(),
    }


def main() -> None:
    wanted = json.loads(sys.stdin.readline())
    answer: dict[str, Any] = {"facts": facts()}
    if wanted.get("lease"):
        answer["lease"] = lease(wanted["lease"])
        if not answer["lease"]["granted"]:
            print(json.dumps(answer))
            return
    with ThreadPoolExecutor(max_workers=16) as pool:
        waiting = {
            "packages": pool.submit(packages, wanted.get("packages", [])),
            "units": pool.submit(units, wanted.get("units", [])),
        }
        steps = {key: pool.submit(step, key, check) for key, check in wanted.get("steps", {}).items()}
        probes = {
            key: pool.submit(probe, text, timeout)
            for key, (text, timeout) in wanted.get("probes", {}).items()
        }
        scripts = {key: pool.submit(script, text, 20.0) for key, text in wanted.get("scripts", {}).items()}
        answer["files"] = {path: found for path in wanted.get("files", []) if (found := stat_of(path))}
        answer["users"] = {}
        for user in wanted.get("users", []):
            try:
                pwd.getpwnam(user)
            except KeyError:
                continue
            answer["users"][user] = sorted(g.gr_name for g in grp.getgrall() if user in g.gr_mem)
        answer["managed"] = read_json(os.path.join(STATE, "managed.json")) or {}
        answer["applied"] = {
            name: read_json(os.path.join(STATE, "applied", name)) or {}
            for name in wanted.get("components", [])
        }
        for key, future in waiting.items():
            answer[key] = future.result()
        answer["steps"] = {key: future.result() for key, future in steps.items()}
        answer["probes"] = {key: future.result() for key, future in probes.items()}
        answer["scripts"] = {key: future.result() for key, future in scripts.items()}
    print(json.dumps(answer))


main()
