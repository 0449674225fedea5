"""MTA-STS (RFC 8461) and TLS reports (RFC 8460): what other servers are told about TLS on our port 25.

The policy lies on a web page whose certificate a public CA must have signed, so there is none with our own CA.
"""

from __future__ import annotations

import hashlib

from deployer.components.mail_relay.layout import mail_host
from deployer.core.component import DnsRecord
from deployer.core.model import Project

PATH = "/.well-known/mta-sts.txt"
# Seconds that others keep the policy: a week, the least that the RFC calls sensible.
MAX_AGE = 604_800


def published(project: Project) -> bool:
    return project.stack.mail.mta_sts != "none" and bool(project.inventory.acme.directories)


def host(project: Project) -> str:
    """Name of the web page's host; the proxy serves it."""
    return f"mta-sts.{project.stack.domain}"


def policy(project: Project) -> str:
    lines = (
        "version: STSv1",
        f"mode: {project.stack.mail.mta_sts}",
        f"mx: {mail_host(project)}",
        f"max_age: {MAX_AGE}",
    )
    return "".join(f"{line}\n" for line in lines)


def records(project: Project) -> tuple[DnsRecord, ...]:
    """Another policy has another id, or nobody would fetch it before the old one is out of date."""
    if not published(project):
        return ()
    domain = project.stack.domain
    mark = hashlib.sha256(policy(project).encode()).hexdigest()[:20]
    return (
        DnsRecord(f"_mta-sts.{domain}", "TXT", f"v=STSv1; id={mark}", 3600),
        DnsRecord(f"_smtp._tls.{domain}", "TXT", f"v=TLSRPTv1; rua=mailto:tlsrpt@{domain}", 3600),
    )
