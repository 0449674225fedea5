"""CAA, and the page of MTA-STS."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployer.components.mail_relay import mta_sts
from deployer.components.proxy import spec as proxy
from deployer.components.proxy.authorities import caa
from deployer.core.component import Context
from deployer.core.model import Acme
from tests.components.proxy.test_spec import block, caddyfile, context

LETS, ZERO = "https://acme-v02.api.letsencrypt.org/directory", "https://acme.zerossl.com/v2/DV90"


def with_mode(ctx: Context, mode: str) -> Context:
    stack = ctx.project.stack
    changed = replace(stack, mail=replace(stack.mail, mta_sts=mode))
    return replace(ctx, project=replace(ctx.project, stack=changed))


@pytest.mark.parametrize(
    ("directories", "values"),
    [
        ((), ()),
        ((LETS,), ('0 issue "letsencrypt.org"',)),
        ((LETS, ZERO), ('0 issue "letsencrypt.org"', '0 issue "sectigo.com"')),
        # One that is not known would be shut out.
        ((LETS, "https://acme.one.example/directory"), ()),
    ],
)
def test_authorities_are_named_when_all_are_known(
    directories: tuple[str, ...], values: tuple[str, ...]
) -> None:
    assert caa(Acme(directories)) == values


def test_every_public_name_says_who_may_sign_it() -> None:
    records = [record for record in proxy.spec(context(acme=Acme((LETS,)))).dns if record.type == "CAA"]
    assert [record.name for record in records] == [
        "example.test",
        "id.example.test",
        "sms.example.test",
        "mta-sts.example.test",
    ]
    assert {record.ttl for record in records} == {3600}


def test_what_moves_is_kept_for_a_minute() -> None:
    assert {record.ttl for record in proxy.spec(context()).dns if record.type in ("A", "AAAA")} == {60}


def test_the_policy_is_served_at_its_place() -> None:
    ctx = context(acme=Acme((LETS,)))
    site = block(caddyfile(ctx), "https://mta-sts.example.test")
    assert "@page path `/.well-known/mta-sts.txt`\n" in site
    assert "respond `version: STSv1\nmode: testing\nmx: mail.example.test\nmax_age: 604800\n` 200" in site
    assert "header Content-Type `text/plain`\n" in site
    # Nothing waits for its certificate: mail leaves and the app serves without.
    [step] = [step for step in proxy.spec(ctx).steps if step.name == "certificates are there"]
    assert "mta-sts.example.test" not in str(step.args)


def test_no_policy_where_nobody_could_read_it() -> None:
    assert "mta-sts" not in caddyfile(context())
    assert mta_sts.records(context().project) == ()
    assert "mta-sts" not in caddyfile(with_mode(context(acme=Acme((LETS,))), "none"))


def test_another_policy_has_another_id() -> None:
    ctx = context(acme=Acme((LETS,)))
    first, reports = mta_sts.records(ctx.project)
    assert (first.name, first.value[:12]) == ("_mta-sts.example.test", "v=STSv1; id=")
    assert (reports.name, reports.value) == (
        "_smtp._tls.example.test",
        "v=TLSRPTv1; rua=mailto:tlsrpt@example.test",
    )
    assert mta_sts.records(with_mode(ctx, "enforce").project)[0].value != first.value
