"""What the relay wants of its machine, compared as values."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deployer.components.mail_relay import layout
from deployer.components.mail_relay.spec import connection, secrets, spec
from deployer.core.component import ComponentSpec, Context, Port, Secret
from deployer.flow.wanted import render
from tests.components.mail_relay.world import FIRST, OPEN, SECOND, context

ROOT = Path("/nonexistent")


def text(wanted: ComponentSpec, path: str) -> str:
    return render(next(file for file in wanted.files if file.path == path), ROOT).decode()


def settings(wanted: ComponentSpec) -> dict[str, str]:
    lines = [line for line in text(wanted, "/etc/postfix/main.cf").splitlines() if line.strip()]
    found = {}
    for line in lines:
        if not line.startswith("#"):
            key, _, value = line.partition(" =")
            found[key] = value
    return found


ALL = [
    context(),
    context(catch=True),
    context(app_apart=True, address6="2001:db8::25"),
    context(smarthosts=(FIRST, SECOND, OPEN), postmaster="ops@elsewhere.example"),
    context(catch=True, smarthosts=(FIRST, SECOND)),
]


@pytest.mark.parametrize("ctx", ALL)
def test_every_file_renders_and_secrets_stay_in_secret_files(ctx: Context) -> None:
    wanted = spec(ctx)
    words = [ctx.secret("mail_relay/dkim").splitlines()[1]]
    words += [smarthost.password for smarthost in ctx.project.inventory.smarthosts if smarthost.password]
    for file in wanted.files:
        content = render(file, ROOT).decode()
        assert not file.template or "None" not in content
        if file.secret:
            assert file.mode & 0o077 == 0
        else:
            assert not any(word in content for word in words), file.path


@pytest.mark.parametrize("ctx", ALL)
def test_the_same_packages_paths_and_units_whatever_the_machine_is(ctx: Context) -> None:
    from dataclasses import replace

    from deployer.core.machine import Facts

    other = spec(replace(ctx, facts=Facts(cores=64, memory=1 << 40)))
    wanted = spec(ctx)
    assert (other.packages, other.units, other.users) == (wanted.packages, wanted.units, wanted.users)
    assert [file.path for file in other.files] == [file.path for file in wanted.files]


def test_the_key_is_asked_of_the_bundle() -> None:
    assert secrets(context().project) == (Secret("mail_relay/dkim", "rsa"),)


def test_an_app_on_the_same_machine_submits_on_loopback_without_tls() -> None:
    ctx = context()
    assert connection(ctx) == {
        "host": "127.0.0.1",
        "port": 587,
        "tls": False,
        "sender": "noreply@example.test",
        "hostname": "mail.example.test",
    }
    wanted = spec(ctx)
    assert [port.number for port in wanted.ports] == [25]
    assert settings(wanted)["mynetworks"] == " 127.0.0.0/8 [::1]"
    assert "\n127.0.0.1:587 inet" in text(wanted, "/etc/postfix/master.cf")


def test_an_app_on_another_machine_submits_by_its_address_and_with_tls() -> None:
    from dataclasses import replace

    ctx = context(app_apart=True)
    app = replace(ctx, machine=ctx.machines["demo-app-1"])
    assert connection(app)["host"] == "demo-mail-1.example.test"
    assert connection(app)["tls"] is True
    wanted = spec(ctx)
    assert Port(587, sources=("app",), why="the app hands in its mail") in wanted.ports
    assert settings(wanted)["mynetworks"] == " 127.0.0.0/8 [::1] 10.0.0.80"
    master = text(wanted, "/etc/postfix/master.cf")
    assert "\n587 inet" in master and "reject_plaintext_session" in master
    leaf = json.loads(text(wanted, "/etc/deploy/pki/leaves.d/mail.json"))
    assert leaf["names"] == ["mail.example.test", "demo-mail-1.example.test"]


@pytest.mark.parametrize("ctx", ALL)
def test_port_25_relays_for_nobody(ctx: Context) -> None:
    service = text(spec(ctx), "/etc/postfix/master.cf").split("\n127.0.0.1:587")[0].split("\n587 ")[0]
    assert "smtpd_relay_restrictions = reject_unauth_destination }" in service
    assert "smtpd_recipient_restrictions = reject_unauth_destination }" in service
    assert "permit" not in service


@pytest.mark.parametrize("ctx", ALL)
def test_nothing_leaves_unsigned(ctx: Context) -> None:
    values = settings(spec(ctx))
    assert values["milter_default_action"] == " tempfail"
    assert values["non_smtpd_milters"] == f" unix:{layout.SIGNER_SOCKET}"
    assert "-o smtpd_milters=$non_smtpd_milters" in text(spec(ctx), "/etc/postfix/master.cf")


def test_smarthosts_stand_in_their_order_with_passwords_by_next_hop() -> None:
    wanted = spec(context(smarthosts=(FIRST, SECOND, OPEN)))
    values = settings(wanted)
    assert values["relayhost"] == " [smtp.first.example]:587, [127.0.0.1]:10466, [relay.lan]:25"
    assert text(wanted, "/etc/postfix/smarthost_passwords").splitlines() == [
        "[smtp.first.example]:587 user:first-password",
        "[127.0.0.1]:10466 other:second-password",
    ]
    assert text(wanted, "/etc/postfix/smarthost_tls").splitlines() == [
        "[smtp.first.example]:587 secure match=nexthop",
        "[127.0.0.1]:10466 none",
        "[relay.lan]:25 may",
    ]
    tunnel = text(wanted, "/etc/deploy/mail/stunnel.conf")
    assert "connect = smtp.second.example:465" in tunnel and "checkHost = smtp.second.example" in tunnel
    assert "stunnel4" in wanted.packages and wanted.warnings == ()


def test_each_smarthost_is_asked_and_only_degrades() -> None:
    ctx = context(smarthosts=(FIRST, SECOND))
    probes = [probe for probe in spec(ctx).probes if "smarthost" in probe.name]
    assert [(probe.name, probe.degrades) for probe in probes] == [
        ("mail: smarthost first", True),
        ("mail: smarthost second", True),
    ]
    assert probes[1].args["script"] == (
        f"exec python3 -I {layout.PROGRAMS}/smarthost.py '[127.0.0.1]:10466' smtp.second.example 465\n"
    )
    assert not [p for p in spec(context(catch=True, smarthosts=(FIRST,))).probes if "smarthost" in p.name]


def test_a_password_needs_tls() -> None:
    assert (
        settings(spec(context(smarthosts=(FIRST,))))["smtp_sasl_security_options"]
        == " noanonymous, noplaintext"
    )


def test_without_smarthost_the_deployment_is_degraded_but_not_with_catch() -> None:
    assert "no smarthost" in spec(context()).warnings[0]
    assert spec(context(catch=True)).warnings == ()
    assert "relayhost" not in settings(spec(context()))


def test_catch_keeps_everything_whatever_smarthosts_there_are() -> None:
    wanted = spec(context(catch=True, smarthosts=(FIRST, SECOND)))
    values = settings(wanted)
    assert values["default_transport"] == values["relay_transport"] == " catch:"
    assert "relayhost" not in values
    assert text(wanted, "/etc/postfix/smarthost_passwords") == ""
    assert f"argv=/usr/bin/python3 -I {layout.PROGRAMS}/catch.py {layout.CATCH}" in text(
        wanted, "/etc/postfix/master.cf"
    )


def test_bounces_stay_here_and_a_person_reads_the_rest() -> None:
    aliases = dict(
        line.split(" ", 1)
        for line in text(
            spec(context(postmaster="ops@elsewhere.example")), "/etc/postfix/aliases"
        ).splitlines()
    )
    assert aliases["postmaster"] == "ops@elsewhere.example"
    assert aliases["abuse"] == aliases["root"] == "postmaster"
    assert aliases["noreply"] == aliases["owner-postmaster"] == aliases["dmarc"] == layout.MAILBOX_USER


def test_a_sender_in_a_subdomain_gets_its_bounces() -> None:
    ctx = context(sender="social@news.example.test")
    assert settings(spec(ctx))["mydestination"] == " example.test mail.example.test news.example.test"
    assert layout.aliases(ctx.project)["social"] == layout.MAILBOX_USER


def test_records() -> None:
    ctx = context(smarthosts=(FIRST, OPEN), address6="2001:db8::25")
    found = {(record.name, record.type): record.value for record in spec(ctx).dns}
    assert found[("example.test", "MX")] == "10 mail.example.test."
    assert found[("mail.example.test", "A")] == "192.0.2.25"
    assert found[("mail.example.test", "AAAA")] == "2001:db8::25"
    assert (
        found[("example.test", "TXT")]
        == "v=spf1 ip4:192.0.2.25 ip6:2001:db8::25 include:spf.first.example ~all"
    )
    assert found[("_dmarc.example.test", "TXT")].startswith("v=DMARC1; p=quarantine;")
    assert found[("deploy1._domainkey.example.test", "TXT")].startswith("v=DKIM1; k=rsa; p=MII")


def test_ipv6_is_used_for_sending_only_where_it_is_known() -> None:
    assert "-o inet_protocols=ipv4" in text(spec(context()), "/etc/postfix/master.cf")
    assert "-o inet_protocols=ipv4" not in text(
        spec(context(address6="2001:db8::25")), "/etc/postfix/master.cf"
    )


def replies() -> list[tuple[str, str]]:
    """The table smarthost_replies as (condition or pattern, replacement)."""
    rows = []
    for line in text(spec(context()), "/etc/postfix/smarthost_replies").splitlines():
        if line.startswith("if !"):
            rows.append((line[4:].strip("/"), ""))
        elif line.startswith("/"):
            pattern, _, replacement = line[1:].rpartition("/ ")
            rows.append((pattern, re.sub(r"\$\{?(\d)\}?", r"\\g<\1>", replacement)))
    return rows


@pytest.mark.parametrize(
    ("reply", "read_as"),
    [
        ("250 2.0.0 Ok", "250 2.0.0 Ok"),
        ("450 4.2.0 greylisted", "450 4.2.0 greylisted"),
        ("550 5.1.1 no such user", "550 5.1.1 no such user"),
        ("550-5.1.10 null MX", "550-5.1.10 null MX"),
        ("552 5.2.2 mailbox full", "552 5.2.2 mailbox full"),
        ("552 too big", "552 too big"),
        ("554 5.6.1 cannot convert", "554 5.6.1 cannot convert"),
        ("550 5.7.1 account suspended", "450 4.7.1 account suspended"),
        ("550-5.7.1 account", "450-4.7.1 account"),
        ("550 account suspended", "450 account suspended"),
        ("535 5.7.8 authentication failed", "435 4.7.8 authentication failed"),
        ("554 5.1.8 bad sender", "454 4.1.8 bad sender"),
        ("530 Authentication required", "430 Authentication required"),
    ],
)
def test_only_a_refusal_of_the_recipient_or_the_message_bounces(reply: str, read_as: str) -> None:
    """The table as Postfix walks through it: nested conditions, then the first pattern that matches."""
    result = reply
    for pattern, replacement in replies():
        found = re.search(pattern, reply)
        if not replacement and found:
            break
        if replacement and found:
            result = found.expand(replacement)
            break
    assert result == read_as
