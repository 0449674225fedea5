"""The files that hold the gateway's settings and secrets."""

from __future__ import annotations

import json

from deployer.components.database import spec as database
from deployer.components.sms_gateway import layout
from deployer.core.component import Context, File
from deployer.core.errors import InputError
from deployer.core.model import Carrier, Project


def settings(ctx: Context, remote: bool) -> tuple[File, ...]:
    """The service's settings, Kannel's, and curl's for the probes. remote: other machines use the gateway."""
    inventory, policy = ctx.project.inventory, ctx.project.stack.sms
    kannel_password = ctx.secret("sms_gateway/kannel")
    internal = ctx.secret("sms_gateway/internal")
    config = {
        "account_sid": layout.account_sid(ctx.project),
        "auth_token": ctx.secret("sms_gateway/auth_token"),
        "user": layout.API_USER,
        "password": ctx.secret("sms_gateway/password"),
        "sender": layout.sender(ctx.project),
        "carriers": [{"name": item.name, "sender": item.sender} for item in inventory.carriers],
        "kannel": {
            "status_url": f"http://127.0.0.1:{layout.ADMIN_PORT}",
            "sendsms_url": f"http://127.0.0.1:{layout.SENDSMS_PORT}/cgi-bin/sendsms",
            "user": "gateway",
            "password": kannel_password,
            "catch_port": layout.CATCH_PORT if inventory.catch else 0,
        },
        "internal_token": internal,
        "state": layout.STATE,
        "catch_dir": layout.CATCH if inventory.catch else None,
        "policy": {
            "countries": list(policy.countries),
            "per_number": policy.per_number,
            "per_prefix": policy.per_prefix,
            "per_day": policy.per_day,
            "prefix_digits": policy.prefix_digits,
            "callback_hosts": list(policy.callback_hosts),
            "keep_reports": policy.keep_reports,
            "inbound_url": policy.inbound_url,
        },
        "database": _libpq(database.connection(ctx, "sms_gateway")),
        "port": layout.PORT,
        "internal_port": layout.INTERNAL_PORT,
        "tls": {
            "host": "",
            "port": layout.TLS_PORT,
            "certificate": f"{layout.LEAF}.crt",
            "key": f"{layout.LEAF}.key",
        }
        if remote
        else None,
        "trusted_proxies": ["127.0.0.1", "::1", *layout.remote_apps(ctx)],
    }
    values = {
        "password": quoted("the gateway's password", kannel_password),
        "store": f"{layout.SPOOL}/store",
        "reports": f"{layout.SPOOL}/reports",
        "ports": {
            "admin": layout.ADMIN_PORT,
            "smsbox": layout.SMSBOX_PORT,
            "sendsms": layout.SENDSMS_PORT,
            "catch": layout.CATCH_PORT,
        },
        "internal": f"http://127.0.0.1:{layout.INTERNAL_PORT}/{internal}",
        "catch": inventory.catch,
        "carriers": [] if inventory.catch else [_carrier(ctx.project, item) for item in inventory.carriers],
    }
    # For the probes: a password must not stand in an argument list.
    curl = f'user = "{layout.API_USER}:{ctx.secret("sms_gateway/password")}"\n'
    return (
        File(
            layout.CONFIG,
            content=json.dumps(config, indent=2) + "\n",
            mode=0o640,
            group=layout.USER,
            secret=True,
        ),
        File(
            layout.KANNEL_CONFIG,
            template="sms_gateway/kannel.conf.j2",
            values=values,
            mode=0o400,
            owner="kannel",
            secret=True,
        ),
        File(f"{layout.FOLDER}/probe.curl", content=curl, mode=0o600, secret=True, on_change="none"),
    )


def _libpq(connection: dict[str, object]) -> dict[str, object]:
    """The database component's words in libpq's."""
    names = {"host": "host", "port": "port", "user": "user", "password": "password", "name": "dbname"}
    words = {libpq: connection[name] for name, libpq in names.items()}
    words["sslmode"] = connection["sslmode"]
    if connection["sslmode"] != "disable":
        words["sslrootcert"] = connection["ca"]
    return words


def _carrier(project: Project, item: Carrier) -> dict[str, object]:
    if item.name == layout.CATCH_NAME:
        raise InputError(
            "reading the inventory's carriers", f"a carrier cannot be named {layout.CATCH_NAME}", "rename it"
        )
    return {
        "name": quoted("name", item.name),
        "host": "127.0.0.1" if item.tls else item.host,
        "port": layout.tunnel_port(project, item) if item.tls else item.port,
        "system_id": quoted(f"{item.name}: system_id", item.system_id),
        "password": quoted(f"{item.name}: password", item.password),
        "system_type": quoted(f"{item.name}: system_type", item.system_type),
        "msg_id_type": f"0x{item.msg_id_type:02x}",
    }


def quoted(what: str, value: str) -> str:
    """A value as kannel.conf takes it. Raises InputError for what its format cannot hold."""
    if not value.isprintable():
        raise InputError("writing Kannel's settings", f"{what} holds a control character", "take it out")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
