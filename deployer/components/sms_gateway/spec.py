"""The SMS gateway: Kannel to any number of SMPP carriers, and in front of it a service that speaks the APIs which
apps already speak (service/). The service keeps each message on disk until a carrier has taken it.
"""

from __future__ import annotations

import ipaddress
import json

from deployer.components.database import spec as database
from deployer.components.sms_gateway import layout
from deployer.core.component import (
    ComponentSpec,
    Context,
    Data,
    Directory,
    File,
    Port,
    Probe,
    Secret,
    Unit,
    User,
)
from deployer.core.errors import InputError
from deployer.core.model import Carrier, Project
from deployer.core.resources import service_file

API_USER = "app"
# Leaves the carriers' messages to us after a change of the machine; smsbox and the service need no other.
CATCH_NAME = "catch"


def secrets(project: Project) -> tuple[Secret, ...]:
    return (
        Secret("sms_gateway/password"),
        Secret("sms_gateway/auth_token"),
        # Between Kannel and the service; never leaves the machine.
        Secret("sms_gateway/kannel"),
        Secret("sms_gateway/internal"),
    )


def connection(ctx: Context) -> dict[str, object]:
    """What an app needs to send messages in any of the dialects. https is signed by our CA."""
    here = ctx.plays("sms")
    url = f"http://127.0.0.1:{layout.PORT}" if here else f"https://{ctx.address_of('sms')}:{layout.TLS_PORT}"
    return {
        "url": url,
        "user": API_USER,
        "password": ctx.secret("sms_gateway/password"),
        "sender": layout.sender(ctx.project),
        "openmarket_url": f"{url}/sms/v4/mt",
        "twilio_url": url,
        "account_sid": layout.account_sid(ctx.project),
        "auth_token": ctx.secret("sms_gateway/auth_token"),
    }


def spec(ctx: Context) -> ComponentSpec:
    inventory = ctx.project.inventory
    tunnels = bool(tls_carriers(ctx.project))
    remote = bool(remote_apps(ctx))
    warnings: tuple[str, ...] = ()
    if not inventory.catch and not inventory.carriers:
        warnings = (
            "no SMS carrier in the inventory: messages wait in the gateway until they expire (10 hours)",
        )
    packages = (
        "curl",
        "kannel",
        "python3-httpx",
        "python3-phonenumbers",
        "python3-psycopg",
        "python3-starlette",
        "python3-uvicorn",
        *(("stunnel4",) if tunnels else ()),
    )
    return ComponentSpec(
        name="sms_gateway",
        packages=packages,
        users=(User(layout.USER, layout.STATE),),
        directories=_directories(inventory.catch),
        files=(*_settings(ctx, remote), *_programs(), *_units_files(ctx, tunnels)),
        units=_units(tunnels),
        ports=(Port(layout.TLS_PORT, sources=("app",), why="the app and the proxy hand in SMS"),)
        if remote
        else (),
        probes=_probes(ctx),
        data=(
            Data("sms gateway's spool", "sqlite", f"{layout.STATE}/spool.db"),
            Data("kannel's spool", "files", layout.SPOOL),
        ),
        warnings=warnings,
    )


def remote_apps(ctx: Context) -> tuple[str, ...]:
    """Internal addresses of the other machines whose app or proxy may use the gateway."""
    names = ctx.roles.get("app", ())
    return tuple(ctx.machines[name].internal for name in names if name != ctx.machine.name)


def tls_carriers(project: Project) -> tuple[Carrier, ...]:
    """Carriers that are reached over TLS. Kannel's own TLS checks no host name, so stunnel carries it."""
    return () if project.inventory.catch else tuple(item for item in project.inventory.carriers if item.tls)


def _directories(catch: bool) -> tuple[Directory, ...]:
    own = (
        Directory(layout.FOLDER),
        Directory(layout.PROGRAMS),
        Directory(layout.STATE, 0o700, layout.USER, layout.USER),
        Directory(layout.SPOOL, 0o700, "kannel", "root"),
        Directory(f"{layout.SPOOL}/store", 0o700, "kannel", "root"),
        Directory(f"{layout.SPOOL}/reports", 0o700, "kannel", "root"),
    )
    if not catch:
        return own
    return (*own, Directory(layout.CATCH_HOME), Directory(layout.CATCH, 0o700, layout.USER, layout.USER))


def _settings(ctx: Context, remote: bool) -> tuple[File, ...]:
    inventory, policy = ctx.project.inventory, ctx.project.stack.sms
    kannel_password = ctx.secret("sms_gateway/kannel")
    internal = ctx.secret("sms_gateway/internal")
    config = {
        "account_sid": layout.account_sid(ctx.project),
        "auth_token": ctx.secret("sms_gateway/auth_token"),
        "user": API_USER,
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
            "host": "::",
            "port": layout.TLS_PORT,
            "certificate": f"{layout.LEAF}.crt",
            "key": f"{layout.LEAF}.key",
        }
        if remote
        else None,
        "trusted_proxies": ["127.0.0.1", "::1", *remote_apps(ctx)],
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
    curl = f'user = "{API_USER}:{ctx.secret("sms_gateway/password")}"\n'
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
    if item.name == CATCH_NAME:
        raise InputError(
            "reading the inventory's carriers", f"a carrier cannot be named {CATCH_NAME}", "rename it"
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


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def quoted(what: str, value: str) -> str:
    """A value as kannel.conf takes it. Raises InputError for what its format cannot hold."""
    if not value.isprintable():
        raise InputError("writing Kannel's settings", f"{what} holds a control character", "take it out")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _programs() -> tuple[File, ...]:
    return tuple(
        File(f"{layout.PROGRAMS}/{name}", content=service_file("sms_gateway", name))
        for name in layout.MODULES
    )


def _units_files(ctx: Context, tunnels: bool) -> tuple[File, ...]:
    values = {
        "config": layout.CONFIG,
        "kannel_config": layout.KANNEL_CONFIG,
        "user": layout.USER,
        "state": layout.STATE,
        "spool": layout.SPOOL,
        "catch": layout.CATCH if ctx.project.inventory.catch else "",
        "tunnels": tunnels,
        "smsbox_port": layout.SMSBOX_PORT,
    }
    names = ["kannel-bearerbox.service", "kannel-smsbox.service", "sms-gateway.service"]
    files = [
        File(
            "/etc/tmpfiles.d/deploy-kannel.conf",
            template="sms_gateway/tmpfiles.conf.j2",
            values=values,
            on_change="none",
        )
    ]
    if tunnels:
        names.append("kannel-tls.service")
        carriers = [
            {
                "name": item.name,
                "accept": layout.tunnel_port(ctx.project, item),
                "host": f"[{item.host}]" if ":" in item.host else item.host,
                "port": item.port,
                "address": _is_address(item.host),
            }
            for item in tls_carriers(ctx.project)
        ]
        files.append(
            File(
                f"{layout.FOLDER}/stunnel.conf",
                template="sms_gateway/stunnel.conf.j2",
                values={"carriers": carriers},
            )
        )
    if remote_apps(ctx):
        leaf = {
            "names": [ctx.fqdn(ctx.machine)],
            "owner": layout.USER,
            "reload": ["sms-gateway.service"],
        }
        files.append(File("/etc/deploy/pki/leaves.d/sms.json", content=json.dumps(leaf) + "\n"))
    return (
        *files,
        *(
            File(f"/etc/systemd/system/{name}", template=f"sms_gateway/{name}.j2", values=values)
            for name in names
        ),
    )


def _units(tunnels: bool) -> tuple[Unit, ...]:
    return (
        # Debian's init script would run a Kannel of its own from /etc/kannel.
        Unit("kannel.service", wanted=False),
        *((Unit("stunnel4.service", wanted=False), Unit("kannel-tls.service")) if tunnels else ()),
        Unit("kannel-bearerbox.service"),
        Unit("sms-gateway.service", reload=True),
        Unit("kannel-smsbox.service"),
    )


def _probes(ctx: Context) -> tuple[Probe, ...]:
    inventory, domain = ctx.project.inventory, ctx.project.stack.domain
    ask = f"curl -sS --max-time 1.8 -K {layout.FOLDER}/probe.curl http://127.0.0.1:{layout.PORT}/health"
    service = f"""answer=$({ask}) || exit 1
case $answer in
  '{{"status":"ok"'*|'{{"status":"degraded"'*) echo accepting ;;
  *) echo "$answer"; exit 1 ;;
esac"""
    names = (CATCH_NAME,) if inventory.catch else tuple(item.name for item in inventory.carriers)
    carriers = tuple(
        Probe(
            name=f"sms carrier {name}",
            kind="script",
            args={
                "script": f"""answer=$({ask}) || exit 1
case $answer in
  *'{{"name":"{name}","online":true}}'*) echo online ;;
  *) echo "carrier {name} is not bound"; exit 1 ;;
esac"""
            },
            degrades=True,
            unit="kannel-bearerbox.service",
        )
        for name in names
    )
    outside = Probe(
        name="sms api",
        kind="sms_api",
        args={
            "url": f"https://sms.{domain}/health",
            "address": ctx.player("app").address,
            "user": API_USER,
            "password": ctx.secret("sms_gateway/password"),
        },
        unit="sms-gateway.service",
    )
    gateway = Probe("sms gateway", "script", {"script": service}, unit="sms-gateway.service")
    return (gateway, *carriers, outside)
