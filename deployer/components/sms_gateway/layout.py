"""Names, ports and folders of the SMS gateway on its machine."""

from __future__ import annotations

import hashlib

from deployer.core.component import Context
from deployer.core.model import Carrier, Project

USER = "sms-gateway"
# The account of the dialects that have no account names of their own, and the smsc-id of the catch.
API_USER = "app"
CATCH_NAME = "catch"
FOLDER = "/etc/deploy/sms_gateway"
CONFIG = f"{FOLDER}/config.json"
KANNEL_CONFIG = f"{FOLDER}/kannel.conf"
PROGRAMS = "/usr/local/lib/deploy/sms_gateway"
STATE = "/var/lib/sms-gateway"
SPOOL = "/var/spool/kannel"
CATCH_HOME = "/var/lib/deploy-catch"
CATCH = f"{CATCH_HOME}/sms"
LEAF = "/etc/deploy/pki/leaves/sms"

# Ours: loopback, the stack's other machines (TLS), and Kannel's way back to us (loopback).
PORT, TLS_PORT, INTERNAL_PORT = 8070, 8071, 8072
# Kannel's, all for this machine only.
ADMIN_PORT, SMSBOX_PORT, SENDSMS_PORT, CATCH_PORT = 13000, 13001, 13013, 13020
# The first port of the TLS tunnels to carriers; one each.
FIRST_TUNNEL = 13100

# What the service is made of; a test sees that none is forgotten.
MODULES = (
    "__init__.py",
    "__main__.py",
    "app.py",
    "app_state.py",
    "bind.py",
    "config.py",
    "guard.py",
    "kannel.py",
    "openmarket.py",
    "phone.py",
    "policy.py",
    "records.py",
    "reports.py",
    "sender.py",
    "store.py",
    "text.py",
    "twilio.py",
    "verification.py",
    "webhooks.py",
)


def account_sid(project: Project) -> str:
    """Twilio's name for an account: AC and 32 hex digits. No secret; it stands in every URL."""
    return "AC" + hashlib.sha256(f"sms {project.stack.name}".encode()).hexdigest()[:32]


def sender(project: Project) -> str:
    """What messages are sent as when neither app nor carrier says: the stack's sender, or its name."""
    carriers = (carrier.sender for carrier in project.inventory.carriers)
    letters = "".join(char for char in project.stack.name if char.isalnum())[:11]
    return project.stack.sms.sender or next(filter(None, carriers), "") or letters


def tunnel_port(project: Project, carrier: Carrier) -> int:
    """The loopback port whose other end is this carrier, over TLS."""
    return FIRST_TUNNEL + project.inventory.carriers.index(carrier)


def remote_apps(ctx: Context) -> tuple[str, ...]:
    """Internal addresses of the other machines whose app or proxy may use the gateway."""
    names = ctx.roles.get("app", ())
    return tuple(ctx.machines[name].internal for name in names if name != ctx.machine.name)


def alarms(ctx: Context) -> bool:
    """Other machines tell by SMS what is wrong with their backups."""
    wanted = bool(ctx.project.stack.backup.sms and ctx.project.inventory.repositories)
    return wanted and len(ctx.machines) > 1
