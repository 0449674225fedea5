"""Where things of the relay lie, and which addresses of the domain it knows."""

from __future__ import annotations

from deployer.core.model import Project

FOLDER = "/etc/deploy/mail"
PROGRAMS = "/usr/local/lib/deploy/mail_relay"

SIGNER_UNIT = "deploy-dkim.service"
SIGNER_USER = "deploy-dkim"
SIGNER_SOCKET = "/run/deploy-dkim/milter.sock"
KEY = f"{FOLDER}/dkim.key"

# Bounces, reports and (unless somebody else takes it) the postmaster's mail: a Maildir of its own user.
MAILBOX_USER = "deploy-mail"
MAILBOX_HOME = "/var/lib/deploy-mail"
MAILBOX = f"{MAILBOX_HOME}/Maildir"

# The store of `catch: true`. The folder above is shared with the SMS gateway.
CATCH_USER = "deploy-catch"
CATCH_HOME = "/var/lib/deploy-catch"
CATCH = f"{CATCH_HOME}/mail"

# What is sent there has gone the whole way and is thrown away; .invalid never exists (RFC 2606).
DISCARD_DOMAIN = "discard.invalid"

# A person reads these (RFC 2142); the first one is what the others lead to.
PERSON = ("postmaster", "abuse", "hostmaster", "root", "security", "webmaster")
# Programs write to these. They stay on the machine even when the postmaster is elsewhere: much of it is
# backscatter, and passing that on would spoil our name with the postmaster's vendor.
MACHINE = ("dmarc", "mailer-daemon", "owner-postmaster", "tlsrpt")

# seconds, days, bytes: bounds of the two stores
MAILBOX_DAYS, MAILBOX_BYTES = 30, 100 << 20
CATCH_DAYS, CATCH_BYTES = 7, 200 << 20
# Mail from strangers is bounces and reports: they need no more.
STRANGER_SIZE = 2 << 20


def mail_host(project: Project) -> str:
    """Name of the relay in the world: EHLO, MX, and the reverse name."""
    return f"mail.{project.stack.domain}"


def sender_parts(project: Project) -> tuple[str, str]:
    """Local part and domain of the app's sender."""
    local, _, domain = project.stack.mail.sender.lower().rpartition("@")
    return local, domain


def local_domains(project: Project) -> tuple[str, ...]:
    """Domains whose listed addresses end here; the sender's may be a subdomain."""
    domain = project.stack.domain
    known = [domain, mail_host(project)]
    sender = sender_parts(project)[1]
    if sender.endswith("." + domain) and sender not in known:
        known.append(sender)
    return tuple(known)


def aliases(project: Project) -> dict[str, str]:
    """Local part -> where its mail goes: another local part, the mailbox's user, or the postmaster's address."""
    postmaster = project.stack.mail.postmaster or MAILBOX_USER
    found = dict.fromkeys(PERSON[1:], "postmaster")
    found["postmaster"] = postmaster
    found.update(dict.fromkeys(MACHINE, MAILBOX_USER))
    # Bounces of the app's mail, unless the operator made a person the sender.
    found.setdefault(sender_parts(project)[0], MAILBOX_USER)
    return dict(sorted(found.items()))
