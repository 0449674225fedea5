"""The section `dns` of an inventory: who serves the stack's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deployer.core.model import DnsService
from deployer.project.document import Document
from deployer.project.fields import domain as check_domain
from deployer.project.fields import host as check_host
from deployer.project.mistakes import Mistakes, Place, did_you_mean

# Keys that every entry may have, and those of each vendor.
COMMON = ("provider", "zone", "nameservers", "limit")
VENDORS: Mapping[str, tuple[str, ...]] = {
    "hetzner": ("token", "endpoint"),
    "route53": ("access_key_id", "secret_access_key", "session_token", "profile", "endpoint"),
    "rfc2136": ("host", "port", "key_name", "key_secret", "key_algorithm"),
}
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+\Z")
_SECRET = re.compile(r"token|secret|password|passwd|credential|api_?key|private", re.IGNORECASE)
_SERVER = re.compile(r"\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?\Z|[0-9.]+(:[0-9]{1,5})?\Z")


def secret(key: str) -> bool:
    """A key whose value nobody may see."""
    return bool(_SECRET.search(key))


def services(document: Document, domain: str, mistakes: Mistakes) -> tuple[DnsService, ...]:
    """The entries. `dns: none`, or nothing, means that the operator enters the records by hand."""
    given = document.data.get("dns")
    if given in (None, "none"):
        return ()
    if not isinstance(given, list):
        mistakes.add(
            document.mark(("dns",)),
            ("dns",),
            'must be a list ("- provider: ..." lines), or none for records entered by hand',
        )
        return ()
    found = [_service(document, index, item, domain, mistakes) for index, item in enumerate(given)]
    return tuple(service for service in found if service)


def _service(document: Document, index: int, item: Any, domain: str, mistakes: Mistakes) -> DnsService | None:
    here: Place = ("dns", index)
    if not isinstance(item, dict):
        mistakes.add(document.mark(here), here, 'must be a section of keys ("provider: hetzner" and so on)')
        return None
    entry = {key: value for key, value in document.settle(here).items() if value is not None}

    def wrong(key: str, why: str) -> None:
        mistakes.add(document.mark((*here, key)), (*here, key), why)

    provider = entry.get("provider")
    if not isinstance(provider, str):
        wrong("provider", "is missing" if provider is None else "must be a text")
        return None
    own = VENDORS.get(provider)
    if own is None and not _CLASS.match(provider):
        near = did_you_mean(provider, VENDORS)
        wrong(
            "provider", f'"{provider}" is no vendor{near}; or the class of an octoDNS provider (module.Class)'
        )
        return None
    options = {key: value for key, value in entry.items() if key not in COMMON}
    for key in options:
        if own is not None and key not in own:
            wrong(key, "unknown key" + did_you_mean(key, (*COMMON, *own)))
        elif secret(key) and not document.mark((*here, key)).source.startswith("${"):
            wrong(key, "is a secret, and must come from the environment: write ${NAME}")
    if provider == "rfc2136":
        _rfc2136(options, wrong)
    return DnsService(
        provider,
        _zone(entry.get("zone"), domain, wrong),
        options,
        _nameservers(entry.get("nameservers"), wrong),
        _limit(entry.get("limit", 30), wrong),
    )


def _rfc2136(options: Mapping[str, object], wrong: Any) -> None:
    if "host" not in options:
        wrong("host", "is missing: the server that takes the updates")
    else:
        try:
            check_host(str(options["host"]))
        except ValueError as error:
            wrong("host", f'"{options["host"]}" {error}')
    port = options.get("port", 53)
    if not isinstance(port, int) or not 1 <= port <= 65535:
        wrong("port", "is not a port; ports are 1 to 65535")
    if ("key_name" in options) != ("key_secret" in options):
        absent = "key_secret" if "key_name" in options else "key_name"
        wrong(absent, "is missing; key_name and key_secret go together")


def _zone(given: object, domain: str, wrong: Any) -> str:
    if given is None:
        return ""
    try:
        zone = check_domain(str(given))
    except ValueError as error:
        wrong("zone", f'"{given}" {error}')
        return ""
    if domain and domain != zone and not domain.endswith("." + zone) and not zone.endswith("." + domain):
        wrong("zone", f'"{zone}" has nothing to do with the stack\'s domain {domain}')
    return zone


def _nameservers(given: object, wrong: Any) -> tuple[str, ...]:
    servers = given if isinstance(given, list) else [] if given is None else [given]
    for server in servers:
        if not _SERVER.match(str(server)):
            wrong("nameservers", f'"{server}" is not an address, or address:port (an IPv6 one in brackets)')
    return tuple(map(str, servers))


def _limit(given: object, wrong: Any) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 100:
        return given
    wrong("limit", "must be a percentage, 0 to 100")
    return 30
