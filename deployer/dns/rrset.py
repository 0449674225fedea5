"""Sets of records as plain data, and when two values of a record are the same.

Values are presentation text (RFC 1035, 5.1), kept as they were read: what we did not write is never written
in another form.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployer.core.component import DnsRecord

# A name without the last dot, in lower case, and a type.
Key = tuple[str, str]


@dataclass(frozen=True)
class Rrset:
    """All records of one name and type. values: presentation text, each once."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]

    @property
    def key(self) -> Key:
        return self.name, self.type


View = Mapping[Key, Rrset]


def wanted(records: Iterable[DnsRecord]) -> dict[Key, Rrset]:
    """Our records as sets; the shortest TTL of a set holds."""
    found: dict[Key, Rrset] = {}
    for record in records:
        key = (record.name.rstrip(".").lower(), record.type)
        text = txt(record.value) if record.type == "TXT" else record.value
        old = found.get(key)
        values = tuple(dict.fromkeys((*(old.values if old else ()), text)))
        found[key] = Rrset(*key, min(record.ttl, old.ttl) if old else record.ttl, values)
    return found


def txt(text: str) -> str:
    """Presentation text of a TXT record: quoted strings of at most 255 bytes."""
    data = text.encode()
    parts = [data[i : i + 255] for i in range(0, len(data), 255)] or [b""]
    return " ".join(f'"{_escaped(part)}"' for part in parts)


def _escaped(data: bytes) -> str:
    """As DNS servers and all vendors read it: backslash and quote escaped, what is not ASCII as \\DDD."""
    return "".join(
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte < 127 else f"\\{byte:03d}"
        for byte in data
    )


def strings(text: str) -> bytes:
    """The bytes of a TXT record, its strings joined."""
    import dns.exception
    import dns.rdata
    from dns.rdtypes.ANY.TXT import TXT

    try:
        found = dns.rdata.from_text("IN", "TXT", text)
        assert isinstance(found, TXT)
        return b"".join(found.strings)
    except (dns.exception.DNSException, UnicodeError):
        # Some vendors hand out a TXT value without quotes.
        return text.encode()


def canonical(type: str, text: str, zone: str = "") -> bytes:
    """Equal for values that mean the same: one string or several, upper or lower case of a host's name."""
    if type == "TXT":
        return strings(text)
    if type in ("A", "AAAA"):
        try:
            return ipaddress.ip_address(text.strip()).packed
        except ValueError:
            return text.encode()
    import dns.exception
    import dns.name
    import dns.rdata

    try:
        origin = dns.name.from_text(zone)
        data = dns.rdata.from_text("IN", type, text, origin=origin, relativize=False)
        return bytes(data.to_digestable(origin))
    except (dns.exception.DNSException, UnicodeError, ValueError):
        return text.encode()


def digest(type: str, text: str, zone: str = "") -> str:
    """Twelve hex digits that stand for a value in an ownership record."""
    return hashlib.sha256(type.encode() + b" " + canonical(type, text, zone)).hexdigest()[:12]
