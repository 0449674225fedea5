"""What doctor makes of answers: tables of values in, findings out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from deployer.components.base.actions import Certificate, Disk
from deployer.core.component import DnsRecord
from deployer.core.errors import CredentialError, DeployError, QuotaError
from deployer.core.finding import Finding, Status
from deployer.core.machine import Machine, MachineSpec, Size
from deployer.core.model import DnsService
from deployer.core.provider import Offer
from deployer.flow.doctor import hosts, mail, names, project, vendor
from deployer.flow.doctor.mail import Route
from deployer.flow.doctor.runner import Runner, in_background

DIRECT, RELAYED = Route(), Route(("first",))
ZEN, OTHER = "zen.spamhaus.org", "bl.example.net"
GIB = 1 << 30


def statuses(found: Sequence[Finding]) -> list[Status]:
    return [one.status for one in found]


def says_what_to_do(*found: Finding) -> None:
    for one in found:
        assert one.found, one
        assert one.next or one.status in ("ok", "skipped"), one


# --- mail ---

GOOD = ("mx.example", True, "220 mx.example ESMTP")
DEAD = ("mx.example.net", False, "no answer")


@pytest.mark.parametrize(
    ("tries", "route", "status", "words"),
    [
        ([GOOD, DEAD], DIRECT, "ok", "open: 1 of 2"),
        ([DEAD, DEAD], DIRECT, "fail", "closed: none of 2"),
        ([DEAD], RELAYED, "ok", "not needed: mail leaves by first"),
        ([], DIRECT, "skipped", "no mail server to try"),
    ],
)
def test_port_25(tries: list[tuple[str, bool, str]], route: Route, status: Status, words: str) -> None:
    found = mail.port25("m1", tries, route)
    assert (found.status, found.where) == (status, "m1") and words in found.found
    says_what_to_do(found)


V4, V6, HELO = "192.0.2.7", "2001:db8::7", "mail.demo.test"


@pytest.mark.parametrize(
    ("address", "pointers", "forward", "route", "status", "words"),
    [
        (V4, ["mail.demo.test."], [V4], DIRECT, "ok", "both ways"),
        (V4, ["Mail.Demo.Test."], [V4, "192.0.2.8"], DIRECT, "ok", "both ways"),
        (V6, ["mail.demo.test."], ["2001:db8:0:0::7"], DIRECT, "ok", "both ways"),
        (V4, ["host-7.cloud.example."], [V4], DIRECT, "fail", "its name is host-7.cloud.example"),
        (V4, ["host-7.cloud.example."], [V4], RELAYED, "warn", "its name is host-7.cloud.example"),
        (V4, [], [V4], DIRECT, "fail", "it has no name"),
        (V4, ["mail.demo.test.", "old.demo.test."], [V4], DIRECT, "warn", "2 names"),
        (V4, ["mail.demo.test."], ["192.0.2.8"], DIRECT, "fail", "leads to 192.0.2.8"),
        (V6, ["mail.demo.test."], [], DIRECT, "fail", "leads to nothing"),
        (V4, None, [V4], DIRECT, "skipped", "did not answer"),
        (V4, ["mail.demo.test."], None, DIRECT, "skipped", "did not answer"),
    ],
)
def test_forward_confirmed_reverse_dns(
    address: str,
    pointers: list[str] | None,
    forward: list[str] | None,
    route: Route,
    status: Status,
    words: str,
) -> None:
    found = mail.reverse(address, HELO, pointers, forward, route, settable=False)
    assert (found.status, found.where) == (status, address) and words in found.found
    says_what_to_do(found)


def test_a_reverse_name_that_we_can_set_is_left_to_up() -> None:
    assert "deploy up sets it" in mail.reverse(V4, HELO, [], [V4], DIRECT, settable=True).next
    assert "panel" in mail.reverse(V4, HELO, [], [V4], DIRECT, settable=False).next


@pytest.mark.parametrize(
    ("configured", "status"), [(HELO, "ok"), ("MAIL.demo.test", "ok"), ("localhost", "fail"), ("", "skipped")]
)
def test_the_ehlo_name(configured: str, status: Status) -> None:
    assert mail.greeting("m1", HELO, configured).status == status


def test_what_a_blocklist_is_asked() -> None:
    """RFC 5782, 2.1 and 2.4."""
    assert mail.query("192.0.2.99", OTHER) == f"99.2.0.192.{OTHER}"
    nibbles = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
    assert mail.query(V6, OTHER) == f"{nibbles}.{OTHER}"
    assert mail.control(OTHER) == f"2.0.0.127.{OTHER}"


TEST_ENTRY = ("127.0.0.2",)


@pytest.mark.parametrize(
    ("zone", "answer", "tried", "route", "status", "words"),
    [
        (ZEN, (), ("127.0.0.2", "127.0.0.4", "127.0.0.10"), DIRECT, "ok", "not listed"),
        (ZEN, ("127.0.0.2",), TEST_ENTRY, DIRECT, "fail", "SBL"),
        (ZEN, ("127.0.0.2", "127.0.0.9"), TEST_ENTRY, DIRECT, "fail", "DROP"),
        (ZEN, ("127.0.0.3",), TEST_ENTRY, DIRECT, "fail", "CSS"),
        (ZEN, ("127.0.0.4",), TEST_ENTRY, RELAYED, "warn", "XBL"),
        (ZEN, ("127.0.0.10",), TEST_ENTRY, DIRECT, "fail", "PBL"),
        (ZEN, ("127.0.0.11",), TEST_ENTRY, DIRECT, "fail", "PBL"),
        (ZEN, ("127.0.0.99",), TEST_ENTRY, DIRECT, "fail", "127.0.0.99"),
        (OTHER, ("127.0.0.4",), TEST_ENTRY, DIRECT, "fail", "listed: 127.0.0.4"),
        (ZEN, ("127.255.255.252",), ("127.255.255.252",), DIRECT, "skipped", "mistyped"),
        (ZEN, ("127.255.255.254",), ("127.255.255.254",), DIRECT, "skipped", "public"),
        (ZEN, ("127.255.255.255",), ("127.255.255.255",), DIRECT, "skipped", "too often"),
        # Asked wrongly, and told so for the test entry only.
        (ZEN, (), ("127.255.255.254",), DIRECT, "skipped", "public"),
        (ZEN, ("127.255.255.1",), TEST_ENTRY, DIRECT, "skipped", "127.255.255.1"),
        (ZEN, (), (), DIRECT, "skipped", "test entry"),
        (ZEN, (), None, DIRECT, "skipped", "test entry"),
        (ZEN, None, TEST_ENTRY, DIRECT, "skipped", "no answer"),
        (ZEN, ("203.0.113.80",), ("203.0.113.80",), DIRECT, "skipped", "invents answers"),
    ],
)
def test_blocklists(
    zone: str,
    answer: Sequence[str] | None,
    tried: Sequence[str] | None,
    route: Route,
    status: Status,
    words: str,
) -> None:
    found = mail.blocklist(V4, zone, answer, tried, route)
    assert (found.status, found.where) == (status, V4) and words in found.found
    says_what_to_do(found)


# --- machines ---


@pytest.mark.parametrize(
    ("difference", "uncertainty", "status"),
    [
        (0.0, 0.01, "ok"),
        (-1.9, 0.01, "ok"),
        (2.1, 0.01, "warn"),
        (-29.0, 0.01, "warn"),
        (31.0, 0.01, "fail"),
        (-3600.0, 0.1, "fail"),
        # A slow line is not a wrong clock.
        (2.5, 1.0, "ok"),
    ],
)
def test_clock(difference: float, uncertainty: float, status: Status) -> None:
    found = hosts.clock("m1", difference, uncertainty)
    assert found.status == status
    says_what_to_do(found)


def test_disks() -> None:
    def disk(mount: str, percent: int, inodes: int) -> Disk:
        return Disk(mount, 10 * GIB, GIB, percent, inodes)

    assert statuses(hosts.disks("m1", [disk("/", 79, 3), disk("/srv/data", 10, 79)])) == ["ok"]
    full = hosts.disks("m1", [disk("/", 80, 3), disk("/srv/data", 10, 92)])
    assert [one.found for one in full] == [
        "/ is 80 % full (1.0 GiB free)",
        "/srv/data is 92 % of its inodes in use (1.0 GiB free)",
    ]
    assert statuses(full) == ["fail", "fail"]


@pytest.mark.parametrize(
    ("certificate", "status", "next"),
    [
        (Certificate("mail", "leaf", 20), "ok", ""),
        (Certificate("mail", "leaf", 19), "fail", "deploy up makes new ones"),
        (Certificate("mail", "leaf", -1), "fail", "deploy up makes new ones"),
        (Certificate("issuer", "issuer", 59), "fail", "deploy secrets rotate pki/issuer/m1"),
        (Certificate("root", "root", 59), "fail", "deploy secrets rotate pki/ca"),
    ],
)
def test_own_certificates(certificate: Certificate, status: Status, next: str) -> None:
    (found,) = hosts.certificates("m1", [certificate])
    assert (found.status, found.next) == (status, next)


@pytest.mark.parametrize(
    ("days", "status"),
    [(60.0, "ok"), (20.0, "ok"), (19.0, "warn"), (7.0, "warn"), (6.9, "fail"), (None, "fail")],
)
def test_public_certificates(days: float | None, status: Status) -> None:
    found = hosts.public_certificate("demo.test", days, "the certificate is not good: expired")
    assert found.status == status
    says_what_to_do(found)


def test_one_vendor_that_is_away_is_passed_by_and_the_last_one_is_not() -> None:
    one_left = hosts.vendors("m1", "carrier", {"a": (False, "refused"), "b": (True, "online")})
    assert statuses(one_left) == ["warn", "ok"]
    assert statuses(hosts.vendors("m1", "smarthost", {"a": (False, "refused")})) == ["fail"]
    assert hosts.vendors("m1", "smarthost", {}) == []


# --- names ---


@pytest.mark.parametrize(
    ("server", "owner"),
    [
        ("ns-1234.awsdns-12.org", "aws"),
        ("ns-7.awsdns-00.co.uk.", "aws"),
        ("hydrogen.ns.hetzner.com", "hetzner"),
        ("helium.ns.hetzner.de", "hetzner"),
        ("ns1.dns-parking.example", "dnsparking"),
        ("ns.demo.test", "demo"),
        ("localhost", "localhost"),
    ],
)
def test_whose_a_name_server_is(server: str, owner: str) -> None:
    assert names.of_server(server) == owner


HETZNER, ROUTE53 = DnsService("hetzner"), DnsService("route53")
OF_HETZNER = ["hydrogen.ns.hetzner.com", "helium.ns.hetzner.de"]
OF_AWS = ["ns-1.awsdns-12.org", "ns-2.awsdns-13.co.uk"]


@pytest.mark.parametrize(
    ("servers", "services", "status", "words"),
    [
        ([*OF_HETZNER, *OF_AWS], [HETZNER, ROUTE53], "ok", "hetzner and aws"),
        ([*OF_HETZNER, *OF_AWS], [], "ok", "hetzner and aws"),
        (OF_HETZNER, [], "fail", "hetzner alone"),
        (OF_HETZNER, [HETZNER], "fail", "hetzner alone serves it"),
        (OF_HETZNER, [HETZNER, ROUTE53], "fail", "delegated to hetzner alone"),
        # Both entries are one company's.
        (
            [*OF_HETZNER, *OF_AWS],
            [ROUTE53, DnsService("octodns_route53.Route53Provider")],
            "fail",
            "aws alone",
        ),
        ([], [], "fail", "nobody"),
    ],
)
def test_dns_vendors(servers: list[str], services: list[DnsService], status: Status, words: str) -> None:
    found = names.vendors("demo.test", servers, services)
    assert found.status == status and words in found.found
    says_what_to_do(found)


def test_servers_of_ones_own_count_by_their_address() -> None:
    here, there = (DnsService("rfc2136", options={"host": host}) for host in ("192.0.2.1", "192.0.2.2"))
    assert names.of_service(here) != names.of_service(there)


@pytest.mark.parametrize(
    ("name", "provider", "status"),
    [
        ("", "hetzner", "skipped"),
        ("Gandi", "hetzner", "ok"),
        ("Hetzner Online GmbH", "hetzner", "warn"),
        ("Route 53", "aws", "warn"),
        ("Amazon Registrar", "aws", "warn"),
    ],
)
def test_registrar(name: str, provider: str, status: Status) -> None:
    assert names.registrar("demo.test", name, provider).status == status


def test_records() -> None:
    assert statuses(names.records([], 12, ours=True)) == ["ok"]
    wrong = [("ns1", f"A of h{n}.demo.test is missing") for n in range(5)] + [("ns2", "no answer")]
    found = names.records(wrong, 12, ours=False)
    assert [(one.status, one.where) for one in found] == [("fail", "ns1"), ("fail", "ns2")]
    assert found[0].found.endswith("; and 2 more") and "by hand" in found[0].next
    assert names.records(wrong, 12, ours=True)[0].next == "deploy up writes them"
    (nobody,) = names.records([("", "12 records: it lies in no zone")], 12, ours=True)
    assert nobody.status == "fail" and "registrar" in nobody.next


def test_lifetimes() -> None:
    key = ("demo.test", "A")
    assert names.lifetimes("demo.test", {}, ours=True).status == "skipped"
    assert names.lifetimes("demo.test", {key: 60}, ours=True).status == "ok"
    found = names.lifetimes("demo.test", {key: 3600}, ours=False)
    assert (found.status, found.found) == ("warn", "A of demo.test 3600 s")
    says_what_to_do(found)


def test_what_moves_is_what_is_wanted_with_a_short_life() -> None:
    a, key = DnsRecord("demo.test", "A", V4, 60), DnsRecord("k.demo.test", "TXT", "v=DKIM1", 3600)
    assert names.moving([a, key]) == [a]


# --- the vendor ---


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ["ok", "ok", "ok"]),
        (CredentialError("asking", "the token is refused", "make another"), ["fail", "skipped", "skipped"]),
        (QuotaError("asking", "0 of 10 servers are left", "ask for more"), ["ok", "fail", "skipped"]),
        (DeployError("asking", "no such region", "take another"), ["skipped", "skipped", "fail"]),
    ],
)
def test_access(error: DeployError | None, expected: list[Status]) -> None:
    found = vendor.access("hetzner", error)
    assert statuses(found) == expected
    says_what_to_do(*found)


def test_limits_that_could_not_be_read_are_told() -> None:
    found = vendor.access("aws", None, ("the limit of Elastic IPs could not be read (denied); 2 are in use",))
    assert [(one.id, one.status) for one in found] == [
        ("vendor.credentials", "ok"),
        ("vendor.ready", "ok"),
        ("vendor.quota", "warn"),
    ]
    assert "could not be read" in found[2].found
    says_what_to_do(*found)


def test_prices_from_a_table_are_marked() -> None:
    about = [replace(one, approximate=True) for one in OFFERS]
    (one, total) = vendor.prices("aws", about, [machine_spec("a", 2)], {})
    assert "~3.50 EUR a month" in one.found and total.found.startswith("~3.50 EUR a month")


OFFERS = [Offer("small", 2, 4, 40, 3.5), Offer("large", 8, 16, 160, 20.0)]


def machine_spec(name: str, cores: int, type: str = "", disk: int = 20) -> MachineSpec:
    return MachineSpec(name, ("app",), Size(cores, 2, disk), options={"type": type} if type else {})


def test_the_cheapest_that_fits_and_the_total() -> None:
    found = vendor.prices("hetzner", OFFERS, [machine_spec("a", 2), machine_spec("b", 4)], {})
    assert [one.found.partition(" ")[0] for one in found[:2]] == ["small", "large"]
    assert found[2].id == "vendor.total" and found[2].found.startswith("23.50 EUR a month for 2 machine(s)")


def test_a_volume_costs_beside_the_machine_and_spares_its_disk() -> None:
    found = vendor.prices("hetzner", OFFERS, [machine_spec("a", 2, disk=100)], {}, lambda size: size * 0.05)
    assert "volume of 100 GiB 5.00: 8.50 EUR a month" in found[0].found
    assert found[1].found.startswith("8.50 EUR")


def test_what_nothing_fits_fails_and_is_not_in_the_total() -> None:
    found = vendor.prices("hetzner", OFFERS, [machine_spec("a", 64), machine_spec("b", 1)], {})
    assert statuses(found) == ["fail", "ok", "ok"]
    assert found[2].found.startswith("3.50 EUR a month for 1 machine(s)") and "1 more" in found[2].found
    says_what_to_do(*found)


def test_a_named_type_is_taken_and_told_when_it_is_small() -> None:
    found = vendor.prices("hetzner", OFFERS, [machine_spec("a", 4, "small")], {})
    assert statuses(found) == ["warn", "ok"]
    (gone,) = vendor.prices("hetzner", OFFERS, [machine_spec("a", 4, "gone")], {})
    assert gone.status == "fail" and '"gone"' in gone.found
    says_what_to_do(*found, gone)


def test_a_machine_that_exists_costs_what_it_costs() -> None:
    machine = Machine("a", "1", "running", V4, type="old", price=9.0, currency="EUR")
    found = vendor.prices("hetzner", OFFERS, [machine_spec("a", 2)], {"a": machine})
    assert found[0].found == "old, 9.00 EUR a month: exists" and found[1].found.startswith("9.00 EUR")
    unpriced = Machine("a", "1", "running", V4, type="old")
    assert statuses(vendor.prices("hetzner", OFFERS, [machine_spec("a", 2)], {"a": unpriced})) == ["skipped"]


def test_machines_of_ones_own_have_no_price() -> None:
    assert statuses(vendor.prices("ssh", [], [machine_spec("a", 2)], {})) == ["skipped"]
    free = [Offer("this-computer", 2, 4, 50, 0)]
    for cores in (2, 64):
        assert statuses(vendor.prices("local", free, [machine_spec("a", cores)], {})) == ["ok"]


@pytest.mark.parametrize(
    ("settable", "smarthosts", "status"), [(True, False, "ok"), (False, False, "warn"), (False, True, "ok")]
)
def test_reverse_names_before_there_are_machines(settable: bool, smarthosts: bool, status: Status) -> None:
    assert vendor.reverse("x", HELO, settable, smarthosts).status == status


# --- the project folder ---


def test_who_holds_the_keys() -> None:
    assert [project.operators(who).status for who in ([], ["ada"], ["ada", "grace"])] == [
        "warn",
        "warn",
        "ok",
    ]
    assert project.recovery("/p/recovery-identity.txt", True).status == "warn"
    assert project.recovery("/p/recovery-identity.txt", False).status == "ok"
    assert project.exposed([{"name": "a"}]).status == "ok"
    left = project.exposed([{"name": f"s{n}", "rotate": "ada could read it"} for n in range(6)])
    assert left.status == "warn" and left.found == "6 still to rotate: s0, s1, s2, s3 and 2 more"


# --- running them ---


def test_checks_run_side_by_side_in_order_and_none_beyond_the_end() -> None:
    def slow() -> list[Finding]:
        time.sleep(30)
        return []

    def broken() -> list[Finding]:
        raise ValueError("odd answer")

    def refused() -> list[Finding]:
        raise DeployError("asking", "it says no", "ask again", machine="m1")

    def late() -> list[Finding]:
        raise TimeoutError

    runner = Runner(0.5)
    began = time.monotonic()
    for id, check in (("slow", slow), ("broken", broken), ("refused", refused), ("late", late)):
        runner.start(id, id, check)
    runner.start("good", "good", lambda: [Finding("good", "ok", "good", found="seen")])
    found = runner.finish()
    assert time.monotonic() - began < 3
    assert [one.id for one in found] == ["slow", "broken", "refused", "late", "good"]
    assert statuses(found) == ["warn", "warn", "fail", "warn", "ok"]
    assert "odd answer" in found[1].found and found[2].where == "m1"
    says_what_to_do(*found)


def test_what_runs_in_the_background_hands_on_its_error() -> None:
    assert in_background(lambda: 7).result(5) == 7
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 // 0).result(5)
