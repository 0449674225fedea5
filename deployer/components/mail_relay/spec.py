"""The mail relay: Postfix takes the app's mail, a signer signs it, and it leaves directly or by a mail vendor.

Port 587 is for the app's machines, by address. Port 25 is for the world and takes bounces, reports and the
postmaster's mail only; it relays for nobody, not even for this machine.
"""

from __future__ import annotations

import json
import shlex

from deployer.components.mail_relay import layout, mta_sts, smarthosts
from deployer.components.mail_relay.records import records
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
from deployer.core.model import Inventory, Project
from deployer.core.resources import service_file

LEAF = "/etc/deploy/pki/leaves/mail"
# Deferred messages from which on the queue counts as stuck. One mistyped address also waits for days.
MANY_DEFERRED = 50


def secrets(project: Project) -> tuple[Secret, ...]:
    return (Secret("mail_relay/dkim", "rsa"),)


def connection(ctx: Context) -> dict[str, object]:
    """What an app needs to send: no log-in, its address is known. tls: STARTTLS, checked against our CA."""
    here = ctx.plays("mail")
    return {
        # Not "localhost": the loopback listener is IPv4 only, and some programs try ::1 alone.
        "host": "127.0.0.1" if here else ctx.address_of("mail"),
        "port": 587,
        "tls": not here,
        "sender": ctx.project.stack.mail.sender,
        "hostname": layout.mail_host(ctx.project),
    }


def spec(ctx: Context) -> ComponentSpec:
    inventory = ctx.project.inventory
    tunnels = () if inventory.catch else tuple(smarthosts.tunnels(inventory.smarthosts))
    warnings: tuple[str, ...] = ()
    if not inventory.catch and not inventory.smarthosts:
        warnings = ("no smarthost: mail leaves directly, and many vendors block port 25 until asked",)
    if ctx.project.stack.mail.mta_sts == "enforce" and mta_sts.published(ctx.project):
        # The leaf on port 25 is of our own CA, which nobody else trusts.
        warnings += (
            "mail.mta_sts is enforce, and port 25 shows a certificate of the stack's own CA: servers that honour it"
            " keep bounces and reports back",
        )
    ports = [Port(25, why="bounces, reports and postmaster's mail")]
    if alarms(ctx):
        ports.append(
            Port(587, sources=("stack",), why="the app hands in its mail, and each machine its alarms")
        )
    elif remote_apps(ctx):
        ports.append(Port(587, sources=("app",), why="the app hands in its mail"))
    return ComponentSpec(
        name="mail_relay",
        packages=(
            "postfix",
            # SASL's PLAIN and LOGIN, without which no smarthost lets us in.
            "libsasl2-modules",
            "python3-dkim",
            "python3-milter",
            *(["stunnel4"] if tunnels else []),
        ),
        users=_users(inventory.catch),
        directories=_directories(inventory.catch),
        files=(*_postfix_files(ctx), *_own_files(ctx, tunnels)),
        units=_units(tunnels),
        ports=tuple(ports),
        probes=_probes(ctx),
        dns=records(ctx),
        data=(
            Data("mail queue", "files", "/var/spool/postfix"),
            Data("mailbox", "files", layout.MAILBOX_HOME),
        ),
        warnings=warnings,
    )


def remote_apps(ctx: Context) -> tuple[str, ...]:
    """Internal addresses of the other machines whose app may hand in mail."""
    names = ctx.roles.get("app", ())
    return tuple(ctx.machines[name].internal for name in names if name != ctx.machine.name)


def alarms(ctx: Context) -> tuple[str, ...]:
    """Internal addresses of all other machines, where each tells by mail what is wrong with its backups."""
    if not (ctx.project.stack.backup.mail and ctx.project.inventory.repositories):
        return ()
    return tuple(one.internal for name, one in sorted(ctx.machines.items()) if name != ctx.machine.name)


def _users(catch: bool) -> tuple[User, ...]:
    own = (User(layout.SIGNER_USER), User(layout.MAILBOX_USER, layout.MAILBOX_HOME))
    return (*own, User(layout.CATCH_USER, layout.CATCH_HOME)) if catch else own


def _directories(catch: bool) -> tuple[Directory, ...]:
    mailbox = Directory(layout.MAILBOX_HOME, 0o700, layout.MAILBOX_USER, layout.MAILBOX_USER)
    own = (Directory(layout.FOLDER), Directory(layout.PROGRAMS), mailbox)
    if not catch:
        return own
    return (
        *own,
        Directory(layout.CATCH_HOME),
        Directory(layout.CATCH, 0o700, layout.CATCH_USER, layout.CATCH_USER),
    )


def _postfix_files(ctx: Context) -> tuple[File, ...]:
    project, inventory = ctx.project, ctx.project.inventory
    hosts = () if inventory.catch else inventory.smarthosts
    remote = alarms(ctx) or remote_apps(ctx)
    return (
        File(
            "/etc/postfix/main.cf",
            template="mail_relay/main.cf.j2",
            values={
                "domain": project.stack.domain,
                "hostname": layout.mail_host(project),
                "local_domains": layout.local_domains(project),
                "networks": [f"[{address}]" if ":" in address else address for address in remote],
                "message_size": project.stack.mail.message_size,
                "catch": inventory.catch,
                "next_hops": smarthosts.next_hops(hosts),
                "tunnelled": bool(smarthosts.tunnels(hosts)),
                "discard_domain": layout.DISCARD_DOMAIN,
                "signer": layout.SIGNER_SOCKET,
                "leaf": LEAF,
            },
            on_change="reload",
        ),
        File(
            "/etc/postfix/master.cf",
            template="mail_relay/master.cf.j2",
            values={
                "remote": bool(remote),
                "catch": inventory.catch,
                "catch_user": layout.CATCH_USER,
                "catch_program": f"{layout.PROGRAMS}/catch.py",
                "catch_folder": layout.CATCH,
                "stranger_size": layout.STRANGER_SIZE,
                # Without an address that we know (and that SPF names), IPv6 would only harm our name.
                "ipv6_out": bool(ctx.machine.address6),
            },
        ),
        File("/etc/postfix/aliases", content=_table(layout.aliases(project)), on_change="reload"),
        File(
            "/etc/postfix/smarthost_passwords",
            content=smarthosts.passwords(hosts),
            mode=0o600,
            secret=True,
            on_change="reload",
        ),
        File(
            "/etc/postfix/smarthost_tls",
            content=_table(smarthosts.tls_policies(hosts)),
            on_change="reload",
        ),
        File(
            "/etc/postfix/smarthost_replies", template="mail_relay/smarthost_replies.j2", on_change="reload"
        ),
    )


def _own_files(ctx: Context, tunnels: tuple[dict[str, object], ...]) -> tuple[File, ...]:
    """The signer, the stores, their bounds, and what our CA shall issue."""
    project = ctx.project
    units = "/etc/systemd/system"
    leaf = {
        "names": [layout.mail_host(project), ctx.fqdn(ctx.machine)],
        "owner": "root",
        "reload": ["postfix.service"],
    }
    stores = [(layout.MAILBOX, layout.MAILBOX_DAYS, layout.MAILBOX_BYTES)]
    if project.inventory.catch:
        stores.append((layout.CATCH, layout.CATCH_DAYS, layout.CATCH_BYTES))
    files = [
        File("/etc/deploy/pki/leaves.d/mail.json", content=json.dumps(leaf, indent=2) + "\n"),
        File(
            layout.KEY,
            content=ctx.secret("mail_relay/dkim"),
            mode=0o400,
            owner=layout.SIGNER_USER,
            group=layout.SIGNER_USER,
            secret=True,
        ),
        File(f"{layout.PROGRAMS}/dkim_signer.py", content=service_file("mail_relay", "dkim_signer.py")),
        # Started anew for each use: nothing to restart.
        *(
            File(f"{layout.PROGRAMS}/{name}", content=service_file("mail_relay", name), on_change="none")
            for name in ("catch.py", "prune.py", "probe.py", "smarthost.py")
        ),
        File(
            f"{units}/{layout.SIGNER_UNIT}",
            template="mail_relay/deploy-dkim.service.j2",
            values={
                "user": layout.SIGNER_USER,
                "program": f"{layout.PROGRAMS}/dkim_signer.py",
                "domain": project.stack.domain,
                "selector": project.stack.mail.dkim_selector,
                "key": layout.KEY,
                "socket": layout.SIGNER_SOCKET,
            },
        ),
        File(
            f"{units}/deploy-mail-prune.service",
            template="mail_relay/deploy-mail-prune.service.j2",
            values={
                "program": f"{layout.PROGRAMS}/prune.py",
                "stores": [{"folder": folder, "days": days, "bytes": size} for folder, days, size in stores],
            },
            on_change="none",
        ),
        File(f"{units}/deploy-mail-prune.timer", template="mail_relay/deploy-mail-prune.timer.j2"),
        File(
            f"{units}/postfix.service.d/deploy.conf",
            template="mail_relay/postfix.service.j2",
            values={"signer": layout.SIGNER_UNIT},
        ),
    ]
    if tunnels:
        files += [
            File(
                f"{layout.FOLDER}/stunnel.conf",
                template="mail_relay/stunnel.conf.j2",
                values={"tunnels": tunnels},
            ),
            File(
                f"{units}/deploy-smarthost-tls.service", template="mail_relay/deploy-smarthost-tls.service.j2"
            ),
        ]
    return tuple(files)


def _units(tunnels: tuple[dict[str, object], ...]) -> tuple[Unit, ...]:
    # In this order: Postfix would hold mail (4xx) until the signer is there.
    return (
        Unit(layout.SIGNER_UNIT),
        *([Unit("deploy-smarthost-tls.service")] if tunnels else []),
        Unit("postfix.service", reload=True),
        Unit("deploy-mail-prune.timer"),
        Unit("deploy-mail-prune.service", resident=False),
    )


def _probes(ctx: Context) -> tuple[Probe, ...]:
    project = ctx.project
    sender, discard = project.stack.mail.sender, f"probe@{layout.DISCARD_DOMAIN}"
    return (
        Probe(
            "mail: takes mail for postmaster",
            "smtp",
            {
                "address": ctx.machine.address,
                "port": 25,
                "hostname": layout.mail_host(project),
                "recipient": f"postmaster@{project.stack.domain}",
            },
            unit="postfix.service",
        ),
        Probe(
            "mail: submitted, signed, delivered to discard",
            "script",
            {"script": _program("probe.py", sender, discard)},
            unit="postfix.service",
        ),
        Probe(
            "mail: queue",
            "script",
            {
                "script": "deferred=$(find /var/spool/postfix/deferred -type f | wc -l)\n"
                'echo "$deferred messages wait for another try"\n'
                f'[ "$deferred" -le {MANY_DEFERRED} ]\n'
            },
            degrades=True,
            unit="postfix.service",
        ),
        *_smarthost_probes(project.inventory),
    )


def _smarthost_probes(inventory: Inventory) -> list[Probe]:
    """Each vendor is asked: one that has dropped us costs no mail while another is left, so nobody would notice."""
    if inventory.catch:
        return []
    hops = zip(smarthosts.next_hops(inventory.smarthosts), inventory.smarthosts, strict=True)
    return [
        Probe(
            f"mail: smarthost {smarthost.name}",
            "script",
            {"script": _program("smarthost.py", hop, smarthost.host, str(smarthost.port))},
            degrades=True,
            unit="postfix.service",
        )
        for hop, smarthost in hops
    ]


def _program(name: str, *arguments: str) -> str:
    return f"exec python3 -I {layout.PROGRAMS}/{name} {shlex.join(arguments)}\n"


def _table(entries: dict[str, str]) -> str:
    """A texthash file: Postfix reads it as it stands."""
    return "".join(f"{key} {value}\n" for key, value in entries.items())
