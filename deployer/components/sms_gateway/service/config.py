"""The service's settings, written by the toolkit as JSON and checked once, at start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Carrier:
    """An SMPP account of Kannel, by its smsc-id. sender: what it must be sent as; "" = what the app asked for."""

    name: str
    sender: str = ""


@dataclass(frozen=True)
class Policy:
    """Bounds against SMS pumping; the caps count messages a UTC day. keep_reports: days."""

    countries: tuple[str, ...] = ()
    per_number: int = 10
    per_prefix: int = 100
    per_day: int = 1000
    prefix_digits: int = 7
    callback_hosts: tuple[str, ...] = ()
    keep_reports: int = 30
    inbound_url: str = ""


@dataclass(frozen=True)
class Kannel:
    """Where bearerbox and smsbox listen, all on loopback. catch_port: of its HTTP carrier, 0 without catch."""

    status_url: str
    sendsms_url: str
    user: str
    password: str = field(repr=False)
    catch_port: int = 0


@dataclass(frozen=True)
class Tls:
    """The listener for other machines of the stack. host "" means every address, IPv4 and IPv6."""

    host: str
    port: int
    certificate: str
    key: str


@dataclass(frozen=True)
class Config:
    """Everything the service knows at start. database: libpq's keywords; empty = no PostgreSQL (tests)."""

    account_sid: str
    auth_token: str = field(repr=False)
    user: str
    password: str = field(repr=False)
    sender: str
    carriers: tuple[Carrier, ...]
    kannel: Kannel
    internal_token: str = field(repr=False)
    state: Path
    policy: Policy = Policy()
    catch_dir: Path | None = None
    database: Mapping[str, object] = field(default_factory=dict, repr=False)
    port: int = 8070
    internal_port: int = 8072
    tls: Tls | None = None
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")


def parse(raw: Mapping[str, object]) -> Config:
    """Settings from decoded JSON. Raises KeyError or TypeError for what is missing or unknown."""

    def section(name: str) -> dict[str, object]:
        value = raw.get(name) or {}
        if not isinstance(value, dict):
            raise TypeError(f"{name} must be an object")
        return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}

    carriers = raw["carriers"]
    if not isinstance(carriers, list):
        raise TypeError("carriers must be a list")
    proxies = raw.get("trusted_proxies") or ["127.0.0.1", "::1"]
    if not isinstance(proxies, list):
        raise TypeError("trusted_proxies must be a list")
    tls = section("tls")
    catch = raw.get("catch_dir")
    return Config(
        account_sid=str(raw["account_sid"]),
        auth_token=str(raw["auth_token"]),
        user=str(raw["user"]),
        password=str(raw["password"]),
        sender=str(raw["sender"]),
        carriers=tuple(Carrier(**item) for item in carriers),
        kannel=Kannel(**section("kannel")),  # type: ignore[arg-type]
        internal_token=str(raw["internal_token"]),
        state=Path(str(raw["state"])),
        policy=Policy(**section("policy")),  # type: ignore[arg-type]
        catch_dir=Path(str(catch)) if catch else None,
        database=section("database"),
        port=int(str(raw.get("port", 8070))),
        internal_port=int(str(raw.get("internal_port", 8072))),
        tls=Tls(**tls) if tls else None,  # type: ignore[arg-type]
        trusted_proxies=tuple(str(item) for item in proxies),
    )


def load(path: Path) -> Config:
    """Read the settings' file."""
    return parse(json.loads(path.read_text(encoding="utf-8")))
