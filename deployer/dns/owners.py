"""Who owns what, written in the zone itself, so that every operator's computer knows.

One TXT set at `_deploy.DOMAIN` holds one value for each set of records that we have a share in:

    v=deploy1 owner=demo@hetzner name=mail.example.org type=A own=0123456789ab,ba9876543210

`own` are digests of the values that are ours. What no such value names is somebody else's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployer.dns.rrset import Key, Rrset, View, strings, txt

LABEL = "_deploy"
TTL = 3600
_ENTRY = re.compile(r"v=deploy1 owner=(\S+) name=(\S+) type=([A-Z0-9]+) own=([0-9a-f,]*)\Z")


@dataclass(frozen=True)
class Entry:
    """owner: a deployment, written stack@inventory."""

    owner: str
    key: Key
    digests: frozenset[str]

    def __str__(self) -> str:
        own = ",".join(sorted(self.digests))
        return f"v=deploy1 owner={self.owner} name={self.key[0]} type={self.key[1]} own={own}"


def parse(text: str) -> Entry | None:
    """The entry in one TXT value; None for a value that is something else."""
    match = _ENTRY.match(strings(text).decode("ascii", "replace"))
    if not match:
        return None
    return Entry(match[1], (match[2], match[3]), frozenset(filter(None, match[4].split(","))))


def sets(view: View) -> list[Rrset]:
    """The ownership sets of a zone, of whatever stack."""
    return [rrset for (name, type), rrset in view.items() if type == "TXT" and name.split(".", 1)[0] == LABEL]


def entries(rrsets: Iterable[Rrset]) -> list[Entry]:
    return [entry for rrset in rrsets for value in rrset.values if (entry := parse(value))]


def rewritten(
    view: View, home: str, ours: frozenset[str], owner: str, owned: Mapping[Key, frozenset[str]]
) -> dict[Key, Rrset | None]:
    """Every ownership set as it shall be: values of others as they stand, ours anew, all of them at `home`.

    ours: owners whose entries are replaced; None: the set goes away.
    """
    found: dict[Key, Rrset | None] = {}
    own = [txt(str(Entry(owner, key, digests))) for key, digests in sorted(owned.items()) if digests]
    places = {rrset.key: rrset for rrset in sets(view)}
    for key in {(home, "TXT"), *places}:
        there = places.get(key)
        before = there.values if there else ()
        after = [value for value in before if not ((entry := parse(value)) and entry.owner in ours)]
        if key == (home, "TXT"):
            written = {strings(value): value for value in before}
            # In the form in which the vendor gave it back, so that nothing is written for the form's sake.
            after += [written.get(strings(value), value) for value in own]
        if set(after) != set(before):
            ttl = there.ttl if there else TTL
            found[key] = Rrset(*key, ttl, tuple(after)) if after else None
    return found
