"""A database on a real machine with its backups, made from the specs themselves but without a whole deployment."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployer.components.backups import database as backups
from deployer.components.backups import spec as backups_spec
from deployer.components.database import operations
from deployer.components.database import spec as database_spec
from deployer.core import generation
from deployer.core.component import Context, File
from deployer.core.generation import Generation
from deployer.core.model import BackupPolicy, Repository
from deployer.flow.wanted import render
from tests.components.base.world import context
from tests.rig.remote import Remote

PROGRAMS = backups.PROGRAMS
PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d postgres"
UNIT = "postgresql@17-main.service"
# What an operator's restore stops before it begins.
STOPPED = f"{backups.WATCH} {backups.HEARTBEAT} {UNIT}"
RESTORE = "deploy-restore-database.service"


def live(repositories: Sequence[Repository], number: int = 1, policy: BackupPolicy | None = None) -> Context:
    """A deployment that holds a generation, with a cipher for each repository."""
    ctx = context()
    stack = replace(ctx.project.stack, backup=policy or BackupPolicy())
    inventory = replace(ctx.project.inventory, repositories=tuple(repositories))
    project = replace(ctx.project, stack=stack, inventory=inventory)
    claim = Generation(number, str(project.deployment), "2026-11-24T20:00:00Z", "ann")
    secrets = {**ctx.secrets, claim.entry: claim.to_json()}
    for one in repositories:
        for secret in generation.ciphers(number, one.name):
            secrets[secret.name] = f"cipher-{secret.name}"
    return replace(ctx, project=project, secrets=secrets)


class Database:
    def __init__(self, shell: Remote, ctx: Context) -> None:
        self.shell, self.ctx = shell, ctx
        held = generation.held(ctx.secrets, str(ctx.project.deployment))
        self.settings: dict[str, Any] = backups_spec.settings(ctx, (), held)

    # --- as `up` would ---

    def install(self) -> None:
        """Packages, files, the cluster, units: in the order of an `up`."""
        part = backups.part(self.ctx)
        for file in database_spec.spec(self.ctx).files:
            if file.early:
                self.shell.write(file.path, render(file, Path("/nonexistent")).decode())
        self.shell.run(
            "export DEBIAN_FRONTEND=noninteractive; printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d;"
            " chmod 755 /usr/sbin/policy-rc.d; apt-get -q update && apt-get -q -y install --no-install-recommends"
            f" postgresql-17 postgresql-client-17 openssl {' '.join(part.packages)}",
            timeout=300,
        )
        self.shell.run(
            "mkdir -p /etc/deploy/pki/leaves /var/lib/deploy; cd /etc/deploy/pki; openssl req -x509 -newkey ec"
            " -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost -keyout leaves/postgresql.key"
            " -out leaves/postgresql.crt 2>/dev/null; cp leaves/postgresql.crt root.crt; chown postgres leaves/*"
        )
        self.files()
        self.cluster()
        self.program("configure")
        self.shell.run(f"systemctl daemon-reload; systemctl restart {UNIT}; {PSQL} -c 'SELECT 1'")
        self.units()

    def files(self) -> None:
        """The managed files of both components, and the settings as they are now."""
        part = backups.part(self.ctx)
        own = [
            file
            for file in database_spec.spec(self.ctx).files
            if not file.early and not file.path.startswith("/etc/deploy/pki")
        ]
        folders = " ".join(
            ["/etc/deploy/backups", PROGRAMS, backups_spec.STATE, *(one.path for one in part.directories)]
        )
        self.shell.run(f"install -d -m 755 {folders}")
        for folder in part.directories:
            self.shell.run(
                f"chown {folder.owner}:{folder.group} {folder.path}; chmod {folder.mode:o} {folder.path}"
            )
        text = json.dumps(self.settings, indent=1)
        settings = File(backups_spec.SETTINGS, content=text, mode=0o600)
        certificates = [
            File(backups_spec.ca_file(one), content=one.trusted_ca)
            for one in self.ctx.project.inventory.repositories
            if one.trusted_ca
        ]
        for file in (*own, *part.files, settings, *certificates):
            self.shell.write(file.path, render(file, Path("/nonexistent")).decode())
            self.shell.run(f"chown {file.owner}:{file.group} {file.path}; chmod {file.mode:o} {file.path}")

    def cluster(self) -> None:
        command = next(iter(operations.cluster._inner()))  # type: ignore[attr-defined]
        self.shell.run("bash -s", stdin=command.connector_arguments["_stdin"], timeout=120)

    def units(self) -> None:
        self.shell.run(
            f"systemctl daemon-reload; systemctl enable --now {backups.WATCH} {backups.HEARTBEAT} {backups.TIMER};"
            f" systemctl restart {backups.WATCH} {backups.HEARTBEAT}"
        )
        self.program("prepare", timeout=120)

    # --- what a test does with it ---

    def program(self, *words: str, stdin: str = "", timeout: float = 120) -> dict[str, Any]:
        """The answer of database.py, whatever its exit code."""
        command = " ".join(["python3", f"{PROGRAMS}/database.py", *words])
        code, output = self.shell.attempt(command, stdin=stdin, timeout=timeout)
        try:
            found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise AssertionError(f"{command} ended with {code}: {output}") from None
        return found

    def sql(self, text: str, timeout: float = 60) -> str:
        return self.shell.run(PSQL, stdin=text, timeout=timeout).strip()

    def status(self, name: str) -> dict[str, Any]:
        return next(one for one in self.program("status")["repositories"] if one["name"] == name)

    def state(self, name: str) -> dict[str, Any]:
        """What the watch thinks of a repository; asks no repository."""
        text = self.shell.run("cat /var/lib/deploy/backups/archiving.json")
        found: dict[str, Any] = json.loads(text)["repositories"][name]
        return found

    def repository(self, name: str) -> dict[str, Any]:
        return next(dict(one) for one in self.settings["repositories"] if one["name"] == name)

    def restore(
        self,
        name: str,
        at: str = "",
        *,
        id: str,
        timeout: float = 120,
        until_phase: str = "",
        **other: object,
    ) -> dict[str, Any]:
        """Restore from a repository to the end: done or failed. at: "" is the latest. until_phase: killed there."""
        target = {"kind": "time", "time": at} if at else {"kind": "latest"}
        request = {"id": id, "repository": self.repository(name), "target": target, "amcheck": False}
        self.shell.run(f"systemctl stop {STOPPED}")
        answer = self.program("restore", stdin=json.dumps({**request, **other}))
        if until_phase:
            state = "/var/lib/deploy/backups/restore-database.json"
            self.shell.run(
                f"""timeout 60 sh -c 'until grep -q "phase.*{until_phase}" {state}; do :; done';"""
                f" systemctl kill --kill-whom=all --signal=KILL {RESTORE}; sleep 0.2"
            )
            return self.restored(timeout)
        assert "error" not in answer or not answer["error"], answer
        return self.restored(timeout)

    def restored(self, timeout: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while (found := self.program("restore-status"))["state"] == "running":
            assert time.monotonic() < deadline, found
            time.sleep(0.3)
        return found

    def serve(self) -> None:
        self.shell.run(f"systemctl start {UNIT} {backups.HEARTBEAT} {backups.WATCH}")


def wait(what: str, look: Callable[[], object], timeout: float = 60) -> Any:
    """Until look() gives something true."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(0.3)
    return found
