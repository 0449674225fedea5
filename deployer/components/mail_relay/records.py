"""DNS records of the mail: who takes it, who may send it, and how it is signed."""

from __future__ import annotations

import ipaddress

from deployer.components.mail_relay import mta_sts
from deployer.components.mail_relay.dkim import public_record
from deployer.components.mail_relay.layout import mail_host
from deployer.core import moving
from deployer.core.component import Context, DnsRecord

HOUR = 3600


def records(ctx: Context) -> tuple[DnsRecord, ...]:
    """A, AAAA, MX, SPF (RFC 7208), DKIM (RFC 6376), DMARC (RFC 7489), MTA-STS and TLSRPT.

    What moves with the machine is kept for a minute by resolvers, the others for an hour.
    """
    stack, machine = ctx.project.stack, ctx.machine
    domain, host = stack.domain, mail_host(ctx.project)
    found = [DnsRecord(host, "A", machine.address)]
    if machine.address6:
        found.append(DnsRecord(host, "AAAA", machine.address6))
    found += [
        DnsRecord(domain, "MX", f"10 {host}.", HOUR),
        DnsRecord(domain, "TXT", spf(ctx)),
        # Bounces of ours have an empty sender: the receiver then checks the EHLO name.
        DnsRecord(host, "TXT", "v=spf1 a -all", HOUR),
        DnsRecord(
            f"{stack.mail.dkim_selector}._domainkey.{domain}",
            "TXT",
            public_record(ctx.secret("mail_relay/dkim")),
            HOUR,
        ),
        # All mail is signed or held, so what fails is not ours.
        DnsRecord(f"_dmarc.{domain}", "TXT", f"v=DMARC1; p=quarantine; rua=mailto:dmarc@{domain}", HOUR),
        *mta_sts.records(ctx.project),
    ]
    return tuple(found)


def spf(ctx: Context) -> str:
    """The machine itself and what the smarthosts say to include (`spf:` in the inventory). From before a move until its
    way back ends, the other side's machine too: who has kept the record for a while accepts mail of both."""
    addresses = [ctx.machine.address, ctx.machine.address6]
    if move := moving.concerning(ctx.secrets, ctx.project.deployment):
        other = "new" if move.side(ctx.project.deployment) == "old" else "old"
        if peer := move.player(other, "mail"):
            addresses += sorted(peer.addresses)
    terms = [f"ip{_version(address)}:{address}" for address in addresses if _version(address)]
    terms += [smarthost.spf for smarthost in ctx.project.inventory.smarthosts if smarthost.spf]
    return " ".join(["v=spf1", *dict.fromkeys(terms), "~all"])


def _version(address: str) -> int:
    """4 or 6; 0 for none and for what is no address yet."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return 0
    return found.version
