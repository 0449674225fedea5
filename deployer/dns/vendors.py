"""octoDNS's providers, made from an inventory's entry, for the three that keep others' values byte for byte.

octoDNS decides what changes, guards its extent and knows some forty vendors. But its modules read values into a
form of their own and write whole sets back from it (a TXT of two strings comes back as one; octodns-hetzner also
takes a failed reading for an empty zone). So for the vendors that our tests run against, what is read are the
values as the vendor gives them, and what is written are the values that differ, and only where the set is still
the one that was read. Any other provider of octoDNS is used as it is, and sets with others' values stay untouched.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.core.errors import CredentialError, DeployError, InputError
from deployer.core.model import DnsService
from deployer.dns.rrset import Key, Rrset, View

# Seconds that one call to a vendor may take.
CALL = 20
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Exact:
    """What the three have in common. view: the zone as it was read; goal: each set that is written, as it shall be."""

    view: dict[Key, Rrset]
    goal: Mapping[Key, Rrset | None]

    def read(self, zone: str) -> list[Rrset] | None:
        """All sets of the zone, values as the vendor writes them; None where there is no such zone."""
        raise NotImplementedError

    def populate(self, zone: Any, target: bool = False, lenient: bool = False) -> bool:
        """octoDNS's reading. Records that are nobody's business of ours never become objects of octoDNS."""
        found = self.read(zone.name.rstrip("."))
        self.view = {}
        for rrset in found or ():
            old = self.view.get(rrset.key)
            values = tuple(dict.fromkeys((*(old.values if old else ()), *rrset.values)))
            self.view[rrset.key] = Rrset(*rrset.key, rrset.ttl, values)
        return found is not None

    def steps(self, plan: Any) -> list[tuple[Key, Rrset | None, Rrset | None]]:
        """Each change of octoDNS's plan: key, as it was read, as it shall be."""
        keys = [(change.record.fqdn.rstrip(".").lower(), change.record._type) for change in plan.changes]
        return [(key, self.view.get(key), self.goal[key]) for key in keys]

    def done(self, key: Key, after: Rrset | None) -> None:
        if after:
            self.view[key] = after
        else:
            self.view.pop(key, None)


def make(service: DnsService, environment: Mapping[str, str] | None = None) -> Any:
    """The octoDNS provider of an entry. No network. Raises InputError, CredentialError, or DeployError for what is
    not installed."""
    # Warnings of octoDNS (no NS record is configured, a type is not supported) are no business of the operator's.
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())
    found = os.environ if environment is None else environment
    options = {key: _expanded(service, value, found) for key, value in service.options.items()}
    try:
        if service.provider == "hetzner":
            return _hetzner(options, found)
        if service.provider == "route53":
            return _route53(options)
        if service.provider == "rfc2136":
            return _rfc2136(options)
        return _other(service.provider, options)
    except ModuleNotFoundError as error:
        module = str(error.name or "").split(".")[0]
        raise DeployError(
            f"loading the DNS vendor {service.provider}",
            f"the Python package of {module!r} is not installed here",
            "pip install 'deploy-toolkit[dns]'" if "octodns" in module else "install it beside deploy",
        ) from None


def _expanded(service: DnsService, value: Any, environment: Mapping[str, str]) -> Any:
    """${NAME}, where the project was read without the vendors' secrets, as verbs do that seldom need one."""
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if not environment.get(match[1]):
            raise CredentialError(
                f"talking to the DNS vendor {service.provider}",
                f"the environment variable {match[1]} is not set",
                f"export {match[1]}; the inventory's entry under dns names it",
            )
        return environment[match[1]]

    return _VARIABLE.sub(replace, value)


def _hetzner(options: dict[str, Any], environment: Mapping[str, str]) -> Any:
    from deployer.dns.hetzner import Hetzner

    token = str(options.get("token") or environment.get("HCLOUD_TOKEN", ""))
    if not token:
        raise CredentialError(
            "talking to the DNS vendor hetzner",
            "HCLOUD_TOKEN is not set",
            "export the API token of the project that holds the zone (Hetzner Console, Security, API tokens)",
        )
    return Hetzner(token, str(options.get("endpoint", "")))


def _route53(options: dict[str, Any]) -> Any:
    from deployer.dns.route53 import Route53

    return Route53(**{key: str(value) for key, value in options.items()})


def _rfc2136(options: dict[str, Any]) -> Any:
    from deployer.dns.rfc2136 import Rfc2136

    return Rfc2136(**options)


def _other(path: str, options: dict[str, Any]) -> Any:
    from octodns.provider.base import BaseProvider

    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name, None)
    if not (isinstance(found, type) and issubclass(found, BaseProvider)):
        raise InputError(
            "reading the inventory",
            f"{path} is not a provider of octoDNS",
            "name its class, such as octodns_powerdns.PowerDnsProvider",
        )
    try:
        made = found("deploy", **options)
    except TypeError as error:
        raise InputError(
            "reading the inventory", f"{path}: {error}", "see the module's README for its keys"
        ) from None
    made.root_ns_warnings = False
    return made


def zones_of(provider: Any, domain: str) -> Sequence[str]:
    """Names of the zones there; those near `domain` at least."""
    if hasattr(provider, "zones_near"):
        found: Sequence[str] = provider.zones_near(domain)
        return found
    try:
        return [str(name).rstrip(".") for name in provider.list_zones()]
    except (NotImplementedError, AttributeError):
        return [domain]


def view_of(existing: Any) -> dict[Key, Rrset]:
    """A zone as octoDNS read it, for a provider that is used as it is."""
    found = {}
    for record in existing.records:
        name = record.fqdn.rstrip(".").lower()
        found[(name, record._type)] = Rrset(name, record._type, record.ttl, tuple(record.to_rrset().rdatas))
    return found


def readable(provider: Any) -> View | None:
    return provider.view if isinstance(provider, Exact) else None
