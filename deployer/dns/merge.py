"""What a zone shall hold: ours beside theirs. Pure: data in, data out.

Only values that an ownership record names as ours are ever changed or removed. Where somebody else's record of
the same name and type is there already:

- A, AAAA, CNAME, and a delegation above: a conflict. Half the visitors elsewhere would be worse than none.
- MX: theirs stays, and ours is not put beside it: mail for the domain has a home already.
- TXT of which there may be one only (SPF, DKIM, DMARC, MTA-STS, TLSRPT): theirs stays alone; two make both void.
- other TXT, and CAA: ours is added, theirs stays as it is, and so does the set's TTL.

Of the first three we never share a set. Where the ownership says that we had it, and another value stands there in
place of ours, somebody has changed ours by hand: it is put back (and left as it is when we go).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deployer.dns import owners
from deployer.dns.rrset import Key, Rrset, View, digest, strings

# TXT records that make one another void (RFC 7208 4.5, 7489 6.6.3, 8461 3.1, 8460 3; two DKIM keys: RFC 6376 3.6.2.2).
_ALONE = (b"v=spf1", b"v=DMARC1", b"v=STSv1", b"v=TLSRPTv1", b"v=DKIM1")
_HOSTS = ("A", "AAAA", "CNAME")


@dataclass
class Decision:
    """after: each set that must change, as it shall be (None: away). owners: the ownership sets, likewise.

    notes: what is left as it is, for the operator; refused: of which sets; conflicts: what stops us;
    view: the zone that was read.
    """

    after: dict[Key, Rrset | None] = field(default_factory=dict)
    owners: dict[Key, Rrset | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refused: set[Key] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)
    view: dict[Key, Rrset] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Owned:
    """What the ownership records of a zone say. ours and others: digests of the values of each set."""

    ours: Mapping[Key, frozenset[str]]
    others: Mapping[Key, frozenset[str]]
    names: Mapping[Key, str]

    @classmethod
    def read(cls, view: View, us: frozenset[str]) -> Owned:
        ours: dict[Key, frozenset[str]] = {}
        others: dict[Key, frozenset[str]] = {}
        names: dict[Key, str] = {}
        for entry in owners.entries(owners.sets(view)):
            side = ours if entry.owner in us else others
            side[entry.key] = side.get(entry.key, frozenset()) | entry.digests
            if side is others:
                names[entry.key] = entry.owner
        return cls(ours, others, names)


def decide(
    zone: str,
    view: View,
    wanted: Mapping[Key, Rrset],
    owner: str,
    home: str,
    *,
    takes: frozenset[str] = frozenset(),
    exact: bool = True,
) -> Decision:
    """zone: its name; view: all that it holds; owner: our deployment; home: name of our ownership set.

    takes: other deployments whose records become ours; exact: others' values in a set can be kept byte for byte
    (else sets that hold any are left alone).
    """
    us = takes | {owner}
    known = Owned.read(view, us)
    decision = Decision()
    own: dict[Key, frozenset[str]] = {}
    for key in sorted({*wanted, *known.ours}):
        own[key] = _one(zone, view, wanted, key, known, exact, decision)
    decision.owners = owners.rewritten(view, home, us, owner, own)
    return decision


def _one(
    zone: str,
    view: View,
    wanted: Mapping[Key, Rrset],
    key: Key,
    known: Owned,
    exact: bool,
    decision: Decision,
) -> frozenset[str]:
    """Decide on one set; the digests of what is ours in it afterwards."""
    type = key[1]
    wish, there = wanted.get(key), view.get(key)
    found = {digest(type, value, zone): value for value in (there.values if there else ())}
    # A value that another deployment of ours put there too (the DKIM key, for one) stays for its sake.
    shared = known.others.get(key, frozenset())
    removable = known.ours.get(key, frozenset()) - shared
    theirs = {mark: value for mark, value in found.items() if mark not in removable}
    wishes = {digest(type, value, zone): value for value in (wish.values if wish else ())}
    if wish:
        edited = _edited(wish, found, wishes, known.ours.get(key, frozenset()), known.others.get(key))
        theirs = {mark: value for mark, value in theirs.items() if mark not in edited}
    strangers = {mark: value for mark, value in theirs.items() if mark not in wishes}
    if wish:
        conflict = _conflict(zone, view, wanted, key, strangers, known)
        if conflict:
            decision.conflicts.append(conflict)
            return known.ours.get(key, frozenset())
        refusal = _refusal(view, wanted, key, wish, strangers, known)
        if refusal:
            decision.notes.append(refusal)
            decision.refused.add(key)
            wishes = {}
    missing = {mark: value for mark, value in wishes.items() if mark not in theirs}
    # Our values in the form in which the vendor gave them back: another form alone is no change.
    after = tuple(theirs.values()) + tuple(found.get(mark, value) for mark, value in missing.items())
    touched = set(after) != set(found.values())
    if touched and strangers and not exact:
        decision.refused.add(key)
        decision.notes.append(
            f"{_words(key)}: others' values are there, and this vendor's module may not keep them as they are;"
            " enter or remove ours by hand"
        )
        return known.ours.get(key, frozenset())
    ttl = there.ttl if there and theirs else wish.ttl if wish else there.ttl if there else 0
    if touched or (there and after and ttl != there.ttl):
        decision.after[key] = Rrset(*key, ttl, after) if after else None
    return frozenset(missing) | (frozenset(wishes) & shared)


def _edited(
    wish: Rrset,
    found: Mapping[str, str],
    wishes: Mapping[str, str],
    ours: frozenset[str],
    others: frozenset[str] | None,
) -> set[str]:
    """Marks of the values that stand in place of ours, which are all gone; none while the set is another's, too."""
    if not ours or others or ours & found.keys():
        return set()
    if wish.type in (*_HOSTS, "MX"):
        return set(found) - set(wishes)
    tags = {tag for value in wish.values for tag in _ALONE if strings(value).startswith(tag)}
    return {
        mark
        for mark, value in found.items()
        if mark not in wishes and any(strings(value).startswith(tag) for tag in tags)
    }


def _conflict(
    zone: str,
    view: View,
    wanted: Mapping[Key, Rrset],
    key: Key,
    strangers: Mapping[str, str],
    known: Owned,
) -> str:
    """Why we must not go on; "" when nothing stands in the way."""
    name, type = key
    for above in _above(name, zone):
        if (above, "NS") in view:
            return (
                f"{_words(key)}: {above} is delegated to other name servers; name that zone in the inventory"
            )
    alias = view.get((name, "CNAME"))
    if alias and type != "CNAME":
        return f"{_words(key)}: {name} is an alias (CNAME {alias.values[0]}) that is not ours"
    if type not in _HOSTS:
        return ""
    if strangers:
        return f"{_words(key)}: {_whose(key, known)} {', '.join(strangers.values())}"
    other = (name, "AAAA" if type == "A" else "A")
    if other in view and other not in wanted:
        ours = known.ours.get(other, frozenset())
        foreign = [value for value in view[other].values if digest(other[1], value) not in ours]
        if foreign:
            return f"{_words(other)}: {_whose(other, known)} {', '.join(foreign)}, and leads elsewhere"
    return ""


def _whose(key: Key, known: Owned) -> str:
    owner = known.names.get(key)
    return f"belongs to the deployment {owner}:" if owner else "is there already and not ours:"


def _refusal(
    view: View,
    wanted: Mapping[Key, Rrset],
    key: Key,
    wish: Rrset,
    strangers: Mapping[str, str],
    known: Owned,
) -> str:
    """Why ours is not put there, in words for the operator; "" to go on."""
    name, type = key
    if type == "MX" and strangers:
        return f"{_words(key)} stays {', '.join(strangers.values())}, which is not ours; ours would be {wish.values[0]}"
    if type == "TXT":
        for value in wish.values:
            tag = next((tag for tag in _ALONE if strings(value).startswith(tag)), None)
            rival = tag and next((v for v in strangers.values() if strings(v).startswith(tag)), None)
            if rival:
                return (
                    f"{_words(key)} stays {rival}, which is not ours, and there may be one only;"
                    f" ours would be {value}: put what it says into that one"
                )
    if type == "CAA" and not strangers:
        below = [
            other
            for other, kind in view
            if kind in (*_HOSTS, "NS")
            and other.endswith("." + name)
            and (other, kind) not in wanted
            and (other, kind) not in known.ours
        ]
        if below:
            return (
                f"{_words(key)} is not set: it would bind others' names below to our certificate authorities"
                f" ({', '.join(sorted(set(below))[:3])})"
            )
    return ""


def _above(name: str, zone: str) -> list[str]:
    """The name and its parents, down to but without the zone."""
    found = []
    while name != zone and name.endswith("." + zone):
        found.append(name)
        name = name.split(".", 1)[1]
    return found


def _words(key: Key) -> str:
    return f"{key[1]} of {key[0]}"
