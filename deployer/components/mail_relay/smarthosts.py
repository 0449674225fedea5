"""Mail vendors, in order of preference, in Postfix's words.

Postfix tries the hosts of `relayhost` one after another within one delivery. Port 465 (TLS from the first
byte) needs a client of its own in Postfix, which could not stand in the same list; so stunnel speaks TLS for
it and Postfix talks to stunnel on loopback.
"""

from __future__ import annotations

from collections.abc import Sequence

from deployer.core.model import Smarthost

WRAPPED = 465
# Loopback ports of stunnel: this one for the first smarthost, and so on.
FIRST_TUNNEL_PORT = 10465


def next_hop(position: int, smarthost: Smarthost) -> str:
    """How Postfix reaches it; its password and TLS policy are keyed by this very text."""
    if smarthost.port == WRAPPED:
        return f"[127.0.0.1]:{FIRST_TUNNEL_PORT + position}"
    return f"[{smarthost.host}]:{smarthost.port}"


def next_hops(smarthosts: Sequence[Smarthost]) -> list[str]:
    return [next_hop(position, smarthost) for position, smarthost in enumerate(smarthosts)]


def passwords(smarthosts: Sequence[Smarthost]) -> str:
    """Text of smtp_sasl_password_maps (texthash)."""
    lines = [
        f"{next_hop(position, smarthost)} {smarthost.user}:{smarthost.password}\n"
        for position, smarthost in enumerate(smarthosts)
        if smarthost.user
    ]
    return "".join(lines)


def tls_policies(smarthosts: Sequence[Smarthost]) -> dict[str, str]:
    """smtp_tls_policy_maps: a password goes only to a host whose certificate names it."""
    found = {}
    for position, smarthost in enumerate(smarthosts):
        if smarthost.port == WRAPPED:
            policy = "none"
        elif smarthost.user:
            policy = "secure match=nexthop"
        else:
            policy = "may"
        found[next_hop(position, smarthost)] = policy
    return found


def tunnels(smarthosts: Sequence[Smarthost]) -> list[dict[str, object]]:
    """One for each smarthost on port 465: values of the stunnel template."""
    return [
        {
            "name": smarthost.name,
            "accept": FIRST_TUNNEL_PORT + position,
            "host": smarthost.host,
            "port": WRAPPED,
        }
        for position, smarthost in enumerate(smarthosts)
        if smarthost.port == WRAPPED
    ]
