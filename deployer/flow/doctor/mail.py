"""Checks of how other mail servers see us: port 25, reverse names, blocklists. Pure: answers in, findings out."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from deployer.core.finding import Finding, Status

# What Spamhaus ZEN answers, by kind (https://www.spamhaus.org/faqs/dnsbl-usage/).
_ZEN = {
    2: "SBL: spam was sent from it",
    3: "CSS: bulk mail of bad repute was sent from it",
    4: "XBL: the machine looks taken over",
    5: "XBL: the machine looks taken over",
    6: "XBL: the machine looks taken over",
    7: "XBL: the machine looks taken over",
    9: "DROP: the whole network is listed",
    10: "PBL: the vendor says that no mail is sent from it directly",
    11: "PBL: an address from which no mail is sent directly",
}
# Answers about the asking, not about the address.
_ASKED_WRONGLY = {
    "127.255.255.252": "the list's name is mistyped",
    "127.255.255.254": "the list refuses the machine's DNS resolver: it is a public one, or the vendor's",
    "127.255.255.255": "the list refuses the machine's DNS resolver: it asks too often",
}
# They know IPv4 only; whatever they say about IPv6 means nothing.
IPV4_ONLY = ("bl.spamcop.net",)


@dataclass(frozen=True)
class Route:
    """How mail leaves. grave: what a fault of direct delivery counts as."""

    smarthosts: tuple[str, ...] = ()

    @property
    def grave(self) -> Status:
        return "warn" if self.smarthosts else "fail"


def port25(machine: str, tries: Sequence[tuple[str, bool, str]], route: Route) -> Finding:
    """tries: (mail server, whether it greeted us, what happened)."""
    id, what = "mail.port25", "port 25 out"
    good = [server for server, ok, _ in tries if ok]
    if not tries:
        return Finding(id, "skipped", what, machine, "no mail server to try: doctor.mail_servers is empty")
    if good:
        text = f"open: {len(good)} of {len(tries)} mail servers answered"
        return Finding(id, "ok", what, machine, text)
    reasons = "; ".join(dict.fromkeys(f"{server}: {why}" for server, _, why in tries[:2]))
    if route.smarthosts:
        text = f"closed, and not needed: mail leaves by {', '.join(route.smarthosts)} ({reasons})"
        return Finding(id, "ok", what, machine, text)
    return Finding(
        id,
        "fail",
        what,
        machine,
        f"closed: none of {len(tries)} mail servers answered ({reasons})",
        "ask the machines' vendor to open it, or name a smarthost in the inventory (port 587 or 465)",
    )


def reverse(
    address: str,
    helo: str,
    pointers: Sequence[str] | None,
    forward: Sequence[str] | None,
    route: Route,
    settable: bool,
) -> Finding:
    """Forward-confirmed reverse DNS: the address's name is the EHLO name, which leads back to the address.

    pointers: names of the address; forward: addresses of the EHLO name, of the same kind; None: no answer.
    settable: `deploy up` sets reverse names at this vendor.
    """
    id, what = "mail.reverse", "EHLO = PTR = A"
    own = "set it where the address comes from (the vendor's panel, or its support)"
    if settable:
        own = "deploy up sets it; resolvers may show the old one for a while"
    if pointers is None:
        return Finding(
            id, "skipped", what, address, "the DNS resolver did not answer for its reverse name", "try again"
        )
    names = [name.rstrip(".").lower() for name in pointers]
    if helo.lower() not in names:
        found = f"its name is {', '.join(names)}, not {helo}" if names else "it has no name"
        return Finding(id, route.grave, what, address, found, f"its reverse name must be {helo}: {own}")
    if len(names) > 1:
        found = f"it has {len(names)} names: {', '.join(names)}"
        return Finding(
            id, "warn", what, address, found, f"some receivers look at one only: leave {helo} alone"
        )
    if forward is None:
        return Finding(
            id, "skipped", what, address, f"the DNS resolver did not answer for {helo}", "try again"
        )
    if ipaddress.ip_address(address) not in {ipaddress.ip_address(one) for one in forward}:
        kind = "AAAA" if ":" in address else "A"
        found = f"{helo} leads to {', '.join(forward) or 'nothing'}"
        return Finding(
            id,
            route.grave,
            what,
            address,
            found,
            f"its {kind} record must be {address} (deploy up, or by hand)",
        )
    return Finding(id, "ok", what, address, f"{helo} both ways")


def greeting(machine: str, wanted: str, configured: str) -> Finding:
    """The name that Postfix says (smtp_helo_name) against the one that everything else is made for."""
    id, what = "mail.ehlo", "EHLO name"
    if not configured:
        return Finding(id, "skipped", what, machine, "Postfix is not installed yet")
    if configured.lower() == wanted.lower():
        return Finding(id, "ok", what, machine, configured)
    return Finding(
        id, "fail", what, machine, f"Postfix says {configured}, not {wanted}", "deploy up puts it right"
    )


def query(address: str, zone: str) -> str:
    """The name to ask a blocklist about an address (RFC 5782)."""
    pointer = ipaddress.ip_address(address).reverse_pointer
    return f"{pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}"


def control(zone: str) -> str:
    """An entry that every list has for trying it out (RFC 5782, section 5)."""
    return query("127.0.0.2", zone)


def blocklist(
    address: str, zone: str, answer: Sequence[str] | None, tried: Sequence[str] | None, route: Route
) -> Finding:
    """answer: the list's for the address, () when it is not listed, None when nothing came; tried: for its own
    test entry, without which "not listed" may only mean that the list does not talk to our resolver."""
    id, what = "mail.blocklist", f"blocklist {zone}"
    codes = list(answer or ())
    for code in (*codes, *(tried or ())):
        if code in _ASKED_WRONGLY or code.startswith("127.255.255."):
            why = _ASKED_WRONGLY.get(code, "the list does not answer the machine's DNS resolver")
            next = "ask in a browser (https://check.spamhaus.org), or give the machine a resolver of its own"
            return Finding(id, "skipped", what, address, f"{why} ({code})", next)
    if any(not code.startswith("127.") for code in (*codes, *(tried or ()))):
        text = f"the machine's DNS resolver invents answers ({(*codes, *(tried or ()))[0]})"
        return Finding(id, "skipped", what, address, text, "give the machine another resolver")
    if codes:
        kinds = "; ".join(dict.fromkeys(_kind(code, zone) for code in codes))
        next = _remedy(codes, zone)
        return Finding(id, route.grave, what, address, f"listed: {kinds}", next)
    if answer is None or not tried:
        text = (
            "no answer to the machine's DNS resolver"
            if answer is None
            else "it does not know its own test entry"
        )
        return Finding(id, "skipped", what, address, text, f"ask in a browser about {address}")
    return Finding(id, "ok", what, address, "not listed")


def _kind(code: str, zone: str) -> str:
    last = int(code.rpartition(".")[2])
    if zone.endswith("spamhaus.org") and code.startswith("127.0.0.") and last in _ZEN:
        return f"{_ZEN[last]} ({code})"
    return code


def _remedy(codes: Sequence[str], zone: str) -> str:
    if zone.endswith("spamhaus.org"):
        if all(code in ("127.0.0.10", "127.0.0.11") for code in codes):
            return "remove it at https://check.spamhaus.org (a matter of minutes), or send by a smarthost"
        return "ask why at https://check.spamhaus.org; a fresh address of the vendor is often faster; or a smarthost"
    return f"ask the operator of {zone} why; a fresh address of the vendor is often faster; or send by a smarthost"
