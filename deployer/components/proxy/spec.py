"""The proxy: Caddy, which the public reaches. It ends TLS, holds requests while the app restarts, and hides the rest.

What we want lies in WANTED; a step makes it LIVE once Caddy has accepted it, so that neither a mistake in a
manifest nor a reboot in the middle of a deployment leaves a proxy that does not start.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from deployer.components.mail_relay import mta_sts
from deployer.components.proxy import routes
from deployer.components.proxy.authorities import caa
from deployer.components.sms_gateway import spec as sms_gateway
from deployer.core.component import (
    ComponentSpec,
    Context,
    Data,
    DnsRecord,
    File,
    Port,
    Probe,
    Secret,
    Step,
    Unit,
)
from deployer.core.model import Acme, Project
from deployer.core.resources import find_template, service_file

TEMPLATE = "proxy/Caddyfile.j2"
WANTED = "/etc/caddy/wanted.Caddyfile"
LIVE = "/etc/caddy/Caddyfile"
ACME_ROOTS = "/etc/caddy/acme-roots.pem"
OPEN_SOCKET = "/run/caddy/open.sock"
HOLD = "/usr/local/lib/deploy/proxy/hold"
LEAF = "/etc/deploy/pki/leaves/proxy"

# Seconds that a request waits for the app before it is answered with 503.
PATIENCE = 30
# Seconds that requests in flight have when Caddy itself stops; a reload ends none.
GRACE = 5
# Seconds that one request may take with its body. Go counts it from the start of the request.
LONGEST = 900
# Seconds that getting the first certificates may take: a second try of Caddy's included, and for each name and
# each CA but the last the 91 that Caddy 2.6 needs to give up one that does not answer at all, one after another.
CERTIFICATES, SILENT_CA = 180, 91

# What the world may ask of the SMS gateway: Twilio's API, OpenMarket's, inbound messages, health.
SMS_PATHS = ("/2010-04-01", "/sms/v4/mt", "/inbound", "/health")


def secrets(project: Project) -> tuple[Secret, ...]:
    return ()


def sms_host(project: Project) -> str:
    """Public name of the SMS gateway."""
    return f"sms.{project.stack.domain}"


def names(project: Project) -> tuple[str, ...]:
    """Every name that the service cannot do without, each once."""
    return tuple(dict.fromkeys((*routes.hosts(project.app, project.stack.domain), sms_host(project))))


def all_names(project: Project) -> tuple[str, ...]:
    """With those that nothing waits for: names that stand for many, the page that tells mail servers about our TLS."""
    many = routes.wild(project.app, project.stack.domain)
    return (*names(project), *many, *((mta_sts.host(project),) if mta_sts.published(project) else ()))


def spec(ctx: Context) -> ComponentSpec:
    project = ctx.project
    acme = project.inventory.acme
    values = _values(ctx)
    return ComponentSpec(
        name="proxy",
        # openssl: the step that waits for certificates looks at them.
        packages=("caddy", "curl", "openssl"),
        files=_files(project, values),
        units=(Unit("caddy.service", reload=True),),
        ports=(
            Port(80, why="sends browsers to HTTPS; ACME's challenges"),
            Port(443, why="the app, and the SMS gateway's API"),
        ),
        steps=_steps(project, values),
        probes=_probes(ctx),
        dns=_dns(ctx),
        # Accounts and certificates: a move carries them over, so that no CA is asked in the middle of it.
        data=(Data("proxy's certificates", "files", "/var/lib/caddy/.local/share/caddy", "/var/lib/caddy"),)
        if acme.directories
        else (),
    )


def _files(project: Project, values: Mapping[str, object]) -> tuple[File, ...]:
    acme = project.inventory.acme
    files = [
        File(WANTED, template=TEMPLATE, values=values, on_change="reload"),
        File(
            "/etc/systemd/system/caddy.service.d/deploy.conf",
            template="proxy/caddy.service.conf.j2",
            values={"stop": GRACE + 10},
        ),
        File(HOLD, content=service_file("proxy", "hold"), mode=0o755, on_change="none"),
    ]
    if acme.directories:
        if acme.trusted_ca:
            files.append(File(ACME_ROOTS, content=acme.trusted_ca, on_change="reload"))
    else:
        many = routes.wild(project.app, project.stack.domain)
        leaf = {"names": [*names(project), *many], "owner": "caddy", "reload": ["caddy.service"]}
        content = json.dumps(leaf, indent=2) + "\n"
        files.append(File("/etc/deploy/pki/leaves.d/proxy.json", content=content, on_change="none"))
    return tuple(files)


def _values(ctx: Context) -> dict[str, object]:
    project = ctx.project
    acme = project.inventory.acme
    gateway = str(sms_gateway.connection(ctx)["url"])
    sites = routes.app_sites(project.app, project.stack.domain)
    sites.append(routes.sms_site(sms_host(project), gateway, SMS_PATHS, "/etc/deploy/pki/root.crt"))
    if mta_sts.published(project):
        sites.append(routes.page_site(mta_sts.host(project), mta_sts.PATH, mta_sts.policy(project)))
    return {
        "wanted_path": WANTED,
        "live_path": LIVE,
        "open_socket": OPEN_SOCKET,
        "grace": GRACE,
        "hold": PATIENCE,
        "longest": LONGEST,
        "email": routes.quote(acme.email) if acme.email else "",
        "issuers": _issuers(acme),
        "trusted_ca": ACME_ROOTS if acme.trusted_ca else "",
        "ask": routes.quote(url) if (url := routes.ask(project.app)) else "",
        "leaf": f"{LEAF}.crt",
        "key": f"{LEAF}.key",
        "sites": sites,
    }


def _issuers(acme: Acme) -> list[dict[str, object]]:
    """zerossl: that CA wants an account bound by e-mail, which only Caddy's issuer of that name sees to."""
    return [
        {"directory": routes.quote(url), "zerossl": urlsplit(url).hostname == "acme.zerossl.com"}
        for url in acme.directories
    ]


def _digest(project: Project, values: Mapping[str, object]) -> str:
    """Of all that the Caddyfile is made of: the step's test looks at the machine before the file is written."""
    template = find_template(TEMPLATE, project.root).read_text(encoding="utf-8")
    return hashlib.sha256(json.dumps([template, values], sort_keys=True).encode()).hexdigest()[:32]


def _steps(project: Project, values: Mapping[str, object]) -> tuple[Step, ...]:
    steps = [
        Step(
            "Caddy's configuration is valid",
            "accept_configuration",
            check=f"cmp -s {WANTED} {LIVE}",
            args={"wanted": WANTED, "live": LIVE, "digest": _digest(project, values)},
            stage="configure",
        )
    ]
    if project.inventory.acme.directories:
        every, directories = names(project), project.inventory.acme.directories
        seconds = CERTIFICATES + SILENT_CA * len(every) * (len(directories) - 1)
        steps.append(
            Step(
                "certificates are there",
                "await_certificates",
                check="\n".join(certificate_check(name) for name in every),
                args={"names": list(every), "directories": list(directories), "seconds": seconds},
                timeout=seconds + 60,
                progress=_progress(every, directories),
            )
        )
    return tuple(steps)


def certificate_check(name: str) -> str:
    """A line of bash that fails unless Caddy on this machine shows a certificate for `name`."""
    show = f"openssl s_client -connect 127.0.0.1:443 -servername {name} </dev/null 2>/dev/null"
    return f"{show} | openssl x509 -noout -checkhost {name} 2>/dev/null | grep -q 'does match' || exit 1"


# What Caddy said last about certificates that it did not get.
CA_ANSWERS = (
    "journalctl -u caddy.service --since=-15min -n 500 --no-pager -o cat"
    " | grep -E 'could not get certificate|HTTP request failed|creating new order'"
)


def _progress(every: Sequence[str], directories: Sequence[str]) -> str:
    """Bash that says which names have no certificate yet, and why."""
    looks = "\n".join(f'({certificate_check(name)}) || missing="$missing {name}"' for name in every)
    return f"""
missing=
{looks}
[ -n "$missing" ] || exit 0
said=$({CA_ANSWERS} | tail -n 1 | sed -n 's/.*"error": *"\\(.*\\)".*/\\1/p' |
    sed 's/.*performing request: //; s/\\\\"/"/g' | cut -c 1-200)
echo waiting for a certificate of$missing from {shlex.quote(", ".join(directories))}: "${{said:-no answer yet}}"
"""


def _probes(ctx: Context) -> tuple[Probe, ...]:
    domain, app = ctx.project.stack.domain, ctx.project.app
    found = []
    for host in routes.hosts(app, domain):
        args = {**routes.outside_probe(app, host, domain), "address": ctx.machine.address}
        found.append(Probe(f"https {host}", "https", args, unit="caddy.service"))
    return tuple(found)


def _dns(ctx: Context) -> tuple[DnsRecord, ...]:
    addresses: Sequence[tuple[str, str]] = (("A", ctx.machine.address), ("AAAA", ctx.machine.address6))
    project = ctx.project
    authorities = caa(project.inventory.acme)
    return tuple(
        DnsRecord(name, type, address)
        for name in all_names(project)
        for type, address in addresses
        if address
    ) + tuple(DnsRecord(name, "CAA", value, 3600) for name in all_names(project) for value in authorities)
