"""A small stack to ask the machines' own spec about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from deployer.core.component import Context
from deployer.core.machine import ROLES, Machine
from deployer.core.manifest import Manifest
from deployer.core.model import Inventory, MailPolicy, Operator, Project, SmsPolicy, Stack
from deployer.pki import authority, keys

ONE = Machine("demo-all-1", "1", "running", "192.0.2.1", "2001:db8::1", private_address="10.0.0.1")
TWO = Machine("demo-app-1", "2", "running", "192.0.2.2", "2001:db8::2", private_address="10.0.0.2")
OPERATORS = (
    Operator("ann", "ssh-ed25519 AAAAann ann@desk", ""),
    Operator("bob", "", "age1bob"),
)


@cache
def secrets() -> Mapping[str, str]:
    root = authority.root("demo")
    issuers = {
        f"pki/issuer/{machine.name}": authority.issuer(root, machine.name, "example.test")
        for machine in (ONE, TWO)
    }
    passwords = {f"database/{name}": f"password-of-{name}" for name in ("notes", "sms_gateway")}
    hosts = {f"ssh/host/{machine.name}": keys.ssh() for machine in (ONE, TWO)}
    return {"pki/ca": root, **issuers, **hosts, "ssh/deploy": keys.ssh(), **passwords}


def context(
    *,
    apart: bool = False,
    on: Machine = ONE,
    window: str = "04:00",
    machine: Machine | None = None,
    locale: str = "C.UTF-8",
) -> Context:
    """All roles on ONE, or everything but the database on TWO. machine: ONE with other values."""
    stack = Stack(
        "demo", "example.test", "notes", OPERATORS, MailPolicy("a@example.test"), SmsPolicy(),
        upgrade_window=window, timezone="Europe/Vienna",
    )  # fmt: skip
    app = Manifest("notes", "1", Path("/nonexistent"), (), (), (), (), (), databases=("notes",))
    app = replace(app, database_locale=locale)
    first = machine or ONE
    machines = {first.name: first, TWO.name: TWO} if apart else {first.name: first}
    roles = {role: (TWO.name if apart and role != "database" else first.name,) for role in ROLES}
    return Context(
        project=Project(Path("/nonexistent"), stack, Inventory("local", "local", ()), app),
        machine=first if on is ONE else on,
        machines=machines,
        roles=roles,
        secrets=secrets(),
    )
