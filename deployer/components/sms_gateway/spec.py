"""The SMS gateway: Kannel to any number of SMPP carriers, and in front of it a service that speaks the APIs which
apps already speak (service/). The service keeps each message on disk until a carrier has taken it.
"""

from __future__ import annotations

import ipaddress
import json

from deployer.components.sms_gateway import layout
from deployer.components.sms_gateway.settings import settings
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
from deployer.core.model import Carrier, Project
from deployer.core.resources import service_file


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
        "user": layout.API_USER,
        "password": ctx.secret("sms_gateway/password"),
        "sender": layout.sender(ctx.project),
        "openmarket_url": f"{url}/sms/v4/mt",
        "twilio_url": url,
        "rolodex_url": url,
        "account_sid": layout.account_sid(ctx.project),
        "auth_token": ctx.secret("sms_gateway/auth_token"),
    }


def spec(ctx: Context) -> ComponentSpec:
    inventory = ctx.project.inventory
    tunnels = bool(tls_carriers(ctx.project))
    remote = bool(layout.remote_apps(ctx)) or layout.alarms(ctx)
    sources = ("stack",) if layout.alarms(ctx) else ("app",)
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
        files=(*settings(ctx, remote), *_programs(), *_units_files(ctx, tunnels)),
        units=_units(tunnels),
        ports=(Port(layout.TLS_PORT, sources=sources, why="the app and the proxy hand in SMS"),)
        if remote
        else (),
        probes=_probes(ctx),
        data=(
            Data("sms gateway's spool", "sqlite", f"{layout.STATE}/spool.db"),
            Data("kannel's spool", "files", layout.SPOOL),
        ),
        warnings=warnings,
    )


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


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


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
    if layout.remote_apps(ctx) or layout.alarms(ctx):
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
    names = (layout.CATCH_NAME,) if inventory.catch else tuple(item.name for item in inventory.carriers)
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
            "user": layout.API_USER,
            "password": ctx.secret("sms_gateway/password"),
        },
        unit="sms-gateway.service",
    )
    gateway = Probe("sms gateway", "script", {"script": service}, unit="sms-gateway.service")
    return (gateway, *carriers, outside)
