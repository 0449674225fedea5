"""A project with this component and little else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from deployer.core.component import Context
from deployer.core.machine import Machine
from deployer.core.manifest import Manifest
from deployer.core.model import Carrier, Inventory, MachineEntry, MailPolicy, Project, SmsPolicy, Stack

SECRETS = {
    "sms_gateway/password": "canary-password",
    "sms_gateway/auth_token": "canary-token",
    "sms_gateway/kannel": "canary-kannel",
    "sms_gateway/internal": "canary-internal",
    "database/sms_gateway": "canary-database",
}
FIRST = Carrier("first", "smpp.first.example", 2775, "user1", 'pa"ss\\1', sender="4900001")
SECOND = Carrier("second", "smpp.second.example", 3550, "user2", "pass2", tls=True, msg_id_type=1)


def context(*, apart: bool = False, policy: SmsPolicy | None = None, **inventory: Any) -> Context:
    """One machine for all, or with the gateway on one of its own."""
    stack = Stack(
        name="demo",
        domain="demo.example",
        app="chat",
        operators=(),
        mail=MailPolicy("chat@demo.example"),
        sms=policy or SmsPolicy(),
    )
    names = {"demo-all-1": ("app", "database", "mail", "sms")}
    if apart:
        names = {"demo-app-1": ("app", "database", "mail"), "demo-sms-1": ("sms",)}
    machines = {
        name: Machine(name, name, "running", f"203.0.113.{number}", private_address=f"10.0.0.{number}")
        for number, name in enumerate(names, start=1)
    }
    roles = {
        role: tuple(name for name, played in names.items() if role in played)
        for role in ("app", "database", "mail", "sms")
    }
    manifest = Manifest(
        name="chat",
        version="1",
        folder=Path("/nowhere"),
        runtimes=(),
        processes=(),
        files=(),
        routes=(),
        probes=(),
    )
    entries = tuple(MachineEntry(name, played) for name, played in names.items())
    made = replace(Inventory("local", "local", entries), **inventory)
    project = Project(Path("/nowhere"), stack, made, manifest)
    return Context(project, machines[roles["sms"][0]], machines, roles, SECRETS)
