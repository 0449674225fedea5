"""What is done beside other people's records, as data in and data out."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from deployer.core.component import DnsRecord
from deployer.dns import owners
from deployer.dns.merge import Decision, decide
from deployer.dns.rrset import Key, Rrset, canonical, digest, strings, txt, wanted

ZONE, DOMAIN, HOME = "example.org", "chat.example.org", "_deploy.chat.example.org"
US = "demo@here"


def view(*rrsets: Rrset) -> dict[Key, Rrset]:
    return {rrset.key: rrset for rrset in rrsets}


def owned(owner: str, *rrsets: Rrset) -> Rrset:
    """An ownership set that says all of these are `owner`'s."""
    marks = {rrset.key: frozenset(digest(rrset.type, value) for value in rrset.values) for rrset in rrsets}
    values = tuple(txt(str(owners.Entry(owner, key, found))) for key, found in marks.items())
    return Rrset(HOME, "TXT", owners.TTL, values)


def judge(there: Mapping[Key, Rrset], *records: DnsRecord, owner: str = US, **how: object) -> Decision:
    return decide(ZONE, there, wanted(records), owner, HOME, **how)  # type: ignore[arg-type]


A = Rrset(DOMAIN, "A", 60, ("192.0.2.1",))
WANT_A = DnsRecord(DOMAIN, "A", "192.0.2.1")
NEW_A = DnsRecord(DOMAIN, "A", "192.0.2.2")


# --- values ---


def test_long_texts_are_cut_at_255_bytes_and_joined_again() -> None:
    text = "v=DKIM1; p=" + "A" * 500 + '"\\é'
    assert [len(part) for part in txt("A" * 600).strip('"').split('" "')] == [255, 255, 90]
    assert strings(txt(text)) == text.encode()


@pytest.mark.parametrize(
    ("type", "one", "other"),
    [
        ("TXT", '"ab" "cd"', '"abcd"'),
        ("TXT", "abcd", '"abcd"'),
        ("MX", "10 Mail.Example.org.", "10 mail.example.org."),
        ("MX", "10 mail", "10 mail.example.org."),
        ("AAAA", "2001:db8:0::1", "2001:db8::1"),
        ("CAA", '0 issue "letsencrypt.org"', "0 issue letsencrypt.org"),
    ],
)
def test_the_same_value_in_two_forms(type: str, one: str, other: str) -> None:
    assert canonical(type, one, ZONE) == canonical(type, other, ZONE)


# --- ours alone ---


def test_what_is_missing_is_created_and_owned() -> None:
    decision = judge({}, WANT_A)
    assert decision.after == {A.key: A}
    assert owners.entries([decision.owners[(HOME, "TXT")] or A]) == [
        owners.Entry(US, A.key, frozenset([digest("A", "192.0.2.1")]))
    ]


def test_what_is_as_wanted_is_no_change() -> None:
    decision = judge(view(A, owned(US, A)), WANT_A)
    assert (decision.after, decision.owners, decision.notes, decision.conflicts) == ({}, {}, [], [])


def test_another_form_of_our_value_is_no_change() -> None:
    long = "v=DKIM1; p=" + "A" * 300
    there = Rrset(f"k.{DOMAIN}", "TXT", 60, (f'"{long[:100]}" "{long[100:]}"',))
    assert judge(view(there, owned(US, there)), DnsRecord(there.name, "TXT", long)).after == {}


def test_what_moved_is_changed_and_what_is_not_wanted_goes() -> None:
    old = Rrset(f"old.{DOMAIN}", "A", 60, ("192.0.2.1",))
    decision = judge(view(A, old, owned(US, A, old)), NEW_A)
    assert decision.after == {A.key: Rrset(DOMAIN, "A", 60, ("192.0.2.2",)), old.key: None}


def test_a_ttl_of_ours_is_put_right() -> None:
    there = Rrset(DOMAIN, "A", 3600, ("192.0.2.1",))
    assert judge(view(there, owned(US, there)), WANT_A).after == {A.key: A}


def test_nothing_of_ours_stays_and_neither_does_the_ownership() -> None:
    decision = judge(view(A, owned(US, A)))
    assert decision.after == {A.key: None} and decision.owners == {(HOME, "TXT"): None}


# --- others ---


def test_others_txt_values_stay_as_they_are_with_their_ttl() -> None:
    there = Rrset(DOMAIN, "TXT", 77, ('"a" "b"', '"\\195\\164"'))
    [(key, after)] = judge(view(there), DnsRecord(DOMAIN, "TXT", "v=spf1 -all", 3600)).after.items()
    assert after == Rrset(*key, 77, ('"a" "b"', '"\\195\\164"', '"v=spf1 -all"'))


@pytest.mark.parametrize(
    ("record", "theirs"),
    [
        (DnsRecord(DOMAIN, "TXT", "v=spf1 ip4:192.0.2.1 ~all"), '"v=spf1 include:theirs.example -all"'),
        (DnsRecord(f"_dmarc.{DOMAIN}", "TXT", "v=DMARC1; p=quarantine"), '"v=DMARC1; p=none"'),
        (DnsRecord(DOMAIN, "MX", "10 mail.chat.example.org."), "5 mx.theirs.example."),
    ],
)
def test_where_two_would_harm_theirs_stays_alone(record: DnsRecord, theirs: str) -> None:
    there = Rrset(record.name, record.type, 300, (theirs,))
    decision = judge(view(there), record)
    assert (decision.after, decision.owners) == ({}, {})
    [note] = decision.notes
    assert decision.refused == {there.key}
    assert theirs in note and record.value.split()[-1].rstrip('"') in note


def test_ours_leaves_when_somebody_elses_spf_came() -> None:
    ours, theirs = '"v=spf1 ip4:192.0.2.1 ~all"', '"v=spf1 include:theirs.example -all"'
    there = Rrset(DOMAIN, "TXT", 300, (ours, theirs))
    marks = owned(US, Rrset(DOMAIN, "TXT", 300, (ours,)))
    decision = judge(view(there, marks), DnsRecord(DOMAIN, "TXT", "v=spf1 ip4:192.0.2.1 ~all"))
    assert decision.after == {there.key: Rrset(DOMAIN, "TXT", 300, (theirs,))}


def test_caa_is_added_to_theirs_and_put_only_where_it_binds_nobody_else() -> None:
    record = DnsRecord(DOMAIN, "CAA", '0 issue "letsencrypt.org"')
    theirs = Rrset(DOMAIN, "CAA", 300, ('0 issue "digicert.com"',))
    [after] = judge(view(theirs), record).after.values()
    assert after and after.values == ('0 issue "digicert.com"', '0 issue "letsencrypt.org"')
    neighbour = Rrset(f"shop.{DOMAIN}", "CNAME", 60, ("shops.example.",))
    decision = judge(view(neighbour), record)
    assert decision.after == {} and "bind others' names below" in decision.notes[0]


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (Rrset(DOMAIN, "A", 60, ("203.0.113.1",)), "not ours: 203.0.113.1"),
        (Rrset(DOMAIN, "A", 60, ("192.0.2.1", "203.0.113.1")), "not ours: 203.0.113.1"),
        (Rrset(DOMAIN, "AAAA", 60, ("2001:db8::9",)), "leads elsewhere"),
        (Rrset(DOMAIN, "CNAME", 60, ("elsewhere.example.",)), "is an alias (CNAME elsewhere.example.)"),
        (Rrset(DOMAIN, "NS", 60, ("ns.elsewhere.example.",)), "is delegated to other name servers"),
    ],
)
def test_a_name_that_leads_elsewhere_is_a_conflict(there: Rrset, words: str) -> None:
    decision = judge(view(there), WANT_A)
    assert decision.after == {}
    [conflict] = decision.conflicts
    assert words in conflict


@pytest.mark.parametrize(
    ("ours", "record", "changed"),
    [
        (A, WANT_A, "192.0.2.66"),
        (A, NEW_A, "192.0.2.66"),
        (
            Rrset(DOMAIN, "MX", 3600, ("10 mail.example.org.",)),
            DnsRecord(DOMAIN, "MX", "10 mail.example.org.", 3600),
            "10 mx.example.net.",
        ),
        (
            Rrset(f"_dmarc.{DOMAIN}", "TXT", 3600, ('"v=DMARC1; p=quarantine"',)),
            DnsRecord(f"_dmarc.{DOMAIN}", "TXT", "v=DMARC1; p=quarantine", 3600),
            '"v=DMARC1; p=none"',
        ),
    ],
)
def test_ours_changed_by_hand_is_put_back(ours: Rrset, record: DnsRecord, changed: str) -> None:
    there = Rrset(ours.name, ours.type, 300, (changed,))
    decision = judge(view(there, owned(US, ours)), record)
    (after,) = wanted([record]).values()
    assert decision.after == {ours.key: after} and not decision.conflicts and not decision.notes
    assert judge(view(after, owned(US, after)), record).after == {}
    # When we go, it is nobody's: what stands there was never ours.
    gone = judge(view(there, owned(US, ours)))
    assert gone.after == {} and gone.owners == {(HOME, "TXT"): None}


def test_ours_changed_by_hand_among_others_is_put_back_alone() -> None:
    ours = Rrset(DOMAIN, "TXT", 60, ('"v=spf1 ip4:192.0.2.1 -all"',))
    there = Rrset(DOMAIN, "TXT", 77, ('"site-verification=x"', '"v=spf1 +all"'))
    decision = judge(view(there, owned(US, ours)), DnsRecord(DOMAIN, "TXT", "v=spf1 ip4:192.0.2.1 -all"))
    assert decision.after == {
        ours.key: Rrset(DOMAIN, "TXT", 77, ('"site-verification=x"', '"v=spf1 ip4:192.0.2.1 -all"'))
    }


def test_a_value_beside_ours_is_still_somebody_elses() -> None:
    there = Rrset(DOMAIN, "A", 60, ("192.0.2.1", "192.0.2.66"))
    decision = judge(view(there, owned(US, A)), WANT_A)
    assert decision.conflicts and "192.0.2.66" in decision.conflicts[0]


def test_what_another_deployment_put_in_place_of_ours_is_a_conflict() -> None:
    there = Rrset(DOMAIN, "A", 60, ("192.0.2.66",))
    both = owned(US, A).values + owned("other@there", there).values
    decision = judge(view(there, Rrset(HOME, "TXT", owners.TTL, both)), WANT_A)
    assert "belongs to the deployment other@there" in decision.conflicts[0]


def test_what_somebody_entered_by_hand_as_we_want_it_stays_theirs() -> None:
    decision = judge(view(A), WANT_A)
    assert (decision.after, decision.owners, decision.conflicts) == ({}, {}, [])
    assert judge(view(A)).after == {}


def test_sets_with_others_values_are_left_alone_where_they_might_not_survive() -> None:
    there = Rrset(DOMAIN, "TXT", 77, ('"a" "b"',))
    decision = judge(view(there), DnsRecord(DOMAIN, "TXT", "v=spf1 -all"), exact=False)
    assert decision.after == {} and "by hand" in decision.notes[0]


# --- deployments beside one another ---


def test_another_deployments_name_is_a_conflict_that_names_it() -> None:
    decision = judge(view(A, owned("demo@there", A)), NEW_A)
    assert "belongs to the deployment demo@there: 192.0.2.1" in decision.conflicts[0]


def test_a_move_takes_them_over() -> None:
    decision = judge(view(A, owned("demo@there", A)), NEW_A, takes=frozenset(["demo@there"]))
    assert not decision.conflicts and decision.after[A.key] == Rrset(DOMAIN, "A", 60, ("192.0.2.2",))
    assert {entry.owner for entry in owners.entries([decision.owners[(HOME, "TXT")] or A])} == {US}


def test_a_value_of_two_deployments_goes_with_the_last() -> None:
    key = Rrset(f"k.{DOMAIN}", "TXT", 60, ('"v=DKIM1; p=A"',))
    first = judge(view(key, owned("demo@there", key)), DnsRecord(key.name, "TXT", "v=DKIM1; p=A"))
    both = first.owners[(HOME, "TXT")]
    assert first.after == {} and both
    assert {entry.owner for entry in owners.entries([both])} == {US, "demo@there"}
    assert judge(view(key, both)).after == {}
    assert judge(view(key, owned(US, key))).after == {key.key: None}


def test_others_values_at_the_ownership_name_stay() -> None:
    marks = owned(US, A)
    strange = Rrset(HOME, "TXT", 5, (*marks.values, '"hello"', '"v=deploy1 broken"'))
    assert judge(view(A, strange)).owners == {
        (HOME, "TXT"): Rrset(HOME, "TXT", 5, ('"hello"', '"v=deploy1 broken"'))
    }


def test_ownership_moves_with_the_domain() -> None:
    old = Rrset("_deploy.old.example.org", "TXT", 60, owned(US, A).values)
    decision = judge(view(A, old), WANT_A)
    assert decision.after == {} and decision.owners[old.key] is None and decision.owners[(HOME, "TXT")]
