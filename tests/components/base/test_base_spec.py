"""What every machine gets, compared as values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.components.base.firewall import Rule, rules
from deployer.components.base.spec import authorized_keys, host_table, spec
from deployer.core.component import ComponentSpec, File, Port
from deployer.core.keytext import public_ssh, split_pem
from deployer.core.machine import Facts
from deployer.flow.wanted import render
from tests.components.base.world import ONE, TWO, context, secrets

ROOT = Path("/nonexistent")
LEAF = File("/etc/deploy/pki/leaves.d/web.json", content='{"names": ["a"]}')


def peer(*ports: Port, files: tuple[File, ...] = ()) -> ComponentSpec:
    return ComponentSpec("web", ports=ports, files=files)


def text(wanted: ComponentSpec, path: str) -> str:
    return render(next(file for file in wanted.files if file.path == path), ROOT).decode()


# --- firewall ---

SSH = Rule("tcp", 22, comment="ssh")


def test_only_declared_ports_are_open() -> None:
    assert rules(context(), [peer()]) == (SSH,)
    wanted = peer(Port(443, why="https"), Port(443, "udp", why='http/3; "quoted"'))
    assert rules(context(), [wanted]) == (
        SSH,
        Rule("tcp", 443, comment="https"),
        Rule("udp", 443, comment="http3 quoted"),
    )


def test_a_role_opens_a_port_for_the_addresses_of_its_machines() -> None:
    found = rules(context(apart=True), [peer(Port(5432, sources=("app", "sms")))])
    assert found == (
        SSH,
        Rule("tcp", 5432, "ip", ("10.0.0.2", "192.0.2.2"), "web"),
        Rule("tcp", 5432, "ip6", ("2001:db8::2",), "web"),
    )


def test_a_port_for_the_stack_alone_on_its_machine_needs_no_rule() -> None:
    assert rules(context(), [peer(Port(6379, sources=("stack",)))]) == (SSH,)
    found = rules(context(apart=True, on=TWO), [peer(Port(6379, sources=("stack",)))])
    assert [rule.addresses for rule in found[1:]] == [("10.0.0.1", "192.0.2.1"), ("2001:db8::1",)]


def test_world_beside_a_role_is_the_world() -> None:
    assert rules(context(apart=True), [peer(Port(25, sources=("app", "world"), why="mail"))])[1:] == (
        Rule("tcp", 25, comment="mail"),
    )


def test_ssh_behind_a_port_forwarding_keeps_both_ports_open() -> None:
    ctx = context(machine=replace(ONE, ssh_port=2222))
    assert [rule.port for rule in rules(ctx, [])] == [22, 2222]


def test_addresses_that_are_known_later_are_left_out() -> None:
    ctx = context(apart=True, machine=replace(ONE, address="(known after create)", private_address=""))
    ctx = replace(ctx, machine=TWO)
    assert [rule.addresses for rule in rules(ctx, [peer(Port(1, sources=("database",)))])[1:]] == [
        ("2001:db8::1",)
    ]
    assert "known" not in host_table(ctx)


def test_the_rules_replace_our_own_table_only() -> None:
    found = text(spec(context(), [peer(Port(443, why="https"))]), "/etc/nftables.conf")
    assert "flush ruleset" not in found
    assert "table inet deploy\ndelete table inet deploy\n" in found
    assert 'tcp dport 443 accept comment "https"' in found
    assert "policy drop;" in found


# --- who may log in ---


def test_deploy_and_the_operators_may_log_in_and_nobody_else() -> None:
    lines = authorized_keys(context()).splitlines()
    ours = public_ssh(secrets()["ssh/deploy"], "deploy@demo")
    assert lines[1:] == [ours, "ssh-ed25519 AAAAann ann@desk"]
    assert ours.startswith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5")


def test_a_machine_of_the_operator_s_own_keeps_its_keys() -> None:
    theirs = {file.path for file in spec(context(machine=replace(ONE, ours=False)), []).files}
    keys = {"/root/.ssh/authorized_keys", "/etc/ssh/ssh_host_ed25519_key"}
    assert not keys & theirs
    wanted = spec(context(), [])
    assert keys <= {file.path for file in wanted.files}
    # Ours come in by a file of their own, on both.
    assert "/etc/deploy/ssh/authorized_keys" in theirs
    assert "/etc/deploy/ssh/authorized_keys" in text(wanted, "/etc/ssh/sshd_config.d/10-deploy.conf")


def test_nothing_that_could_cut_off_the_session_restarts() -> None:
    assert {file.on_change for file in spec(context(), []).files} <= {"reload", "none"}


def test_access_is_checked_before_anything_is_restarted() -> None:
    first = spec(context(), []).steps[0]
    assert (first.operation, first.stage) == ("access_checked", "configure")
    assert "sshd -t" in first.check and "nft -c" in first.check


# --- keys and certificates ---


def test_the_key_of_the_ca_reaches_no_machine() -> None:
    wanted = spec(context(), [peer(files=(LEAF,))])
    key, _ = split_pem(secrets()["pki/ca"])
    secret_line = key.splitlines()[1]
    everything = [render(file, ROOT).decode() for file in wanted.files]
    everything += [repr(step) + json.dumps(dict(step.args)) + step.check for step in wanted.steps]
    assert not [found for found in everything if secret_line in found]


def test_the_issuer_s_key_is_a_secret_file_of_root() -> None:
    wanted = spec(context(), [])
    [file] = [file for file in wanted.files if file.path == "/etc/deploy/pki/issuer.key"]
    assert (file.secret, file.mode, file.owner) == (True, 0o600, "root")
    assert "CERTIFICATE" not in file.content
    [other] = [file for file in wanted.files if file.path == "/etc/deploy/pki/issuer.crt"]
    assert "PRIVATE" not in other.content


def test_another_request_or_issuer_makes_certificates_again() -> None:
    def step(ctx: object, *files: File) -> object:
        return next(one for one in spec(ctx, [peer(files=files)]).steps if one.name == "certificates")  # type: ignore[arg-type]

    base = step(context(), LEAF)
    assert base == step(context(), LEAF)
    assert base != step(context(), replace(LEAF, content='{"names": ["b"]}'))
    ctx = context()
    other = {**ctx.secrets, f"pki/issuer/{ONE.name}": ctx.secrets[f"pki/issuer/{TWO.name}"]}
    assert base != step(replace(ctx, secrets=other), LEAF)


# --- the rest ---


@pytest.mark.parametrize(("window", "fetch"), [("04:00", "03:00"), ("00:30", "23:30"), ("4:05", "03:05")])
def test_lists_are_fetched_before_the_window(window: str, fetch: str) -> None:
    wanted = spec(context(window=window), [])
    units = "/etc/systemd/system"
    assert f"OnCalendar=*-*-* {fetch}\n" in text(wanted, f"{units}/apt-daily.timer.d/deploy.conf")
    upgrade = text(wanted, f"{units}/apt-daily-upgrade.timer.d/deploy.conf")
    assert f"OnCalendar=*-*-* {window.zfill(5)}\n" in upgrade


def test_the_host_table_names_the_other_machines_by_their_inner_address() -> None:
    assert host_table(context(apart=True)).splitlines()[1:-1] == [
        "127.0.1.1 demo-all-1.example.test demo-all-1",
        "10.0.0.2 demo-app-1.example.test demo-app-1",
    ]


def test_a_name_too_long_for_the_kernel_is_shortened() -> None:
    ctx = context()
    long = replace(ctx.project.stack, domain="a-rather-long-name-of-a-social-network.example-of-length.test")
    ctx = replace(ctx, project=replace(ctx.project, stack=long))
    assert text(spec(ctx, []), "/etc/hostname") == "demo-all-1\n"
    assert text(spec(context(), []), "/etc/hostname") == "demo-all-1.example.test\n"


def test_services_are_held_back_only_while_we_install() -> None:
    wanted = spec(context(), [])
    early = {file.path for file in wanted.files if file.early}
    assert early == {"/etc/apt/apt.conf.d/90deploy", "/usr/sbin/policy-rc.d"}
    assert '[ "${DEPLOY_INSTALLING:-}" = 1 ] && exit 101\nexit 0' in text(wanted, "/usr/sbin/policy-rc.d")


def test_nothing_but_contents_follows_from_what_was_found() -> None:
    ctx = context()
    big = replace(ctx, facts=Facts(cores=64, memory=1 << 40))
    assert spec(ctx, []) == spec(big, [])
