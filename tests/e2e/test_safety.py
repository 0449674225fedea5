"""What strangers can reach: the declared ports and nothing else, no relay, no weak SSH."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Iterable

import pytest

from tests.e2e.scratch import Scratch
from tests.rig.world import World

# SSH, mail, and the proxy's two. Everything else on the machine is for itself.
PUBLIC = {22, 25, 80, 443}
# Connections at a time, and seconds for each: on the bridge an answer takes less than a millisecond, and what
# the firewall drops never answers.
AT_ONCE, PATIENCE = 2000, 1.5
# Open on every machine, so it tells whether answers arrive at all.
CONTROL = 22


async def _open(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), PATIENCE)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _scan(address: str, ports: list[int]) -> set[int]:
    """Each part asks for CONTROL too: without its answer, silence would not mean that a port is closed."""
    found = set()
    for start in range(0, len(ports), AT_ONCE):
        part = sorted({CONTROL, *ports[start : start + AT_ONCE]})
        for _ in range(3):
            answers = await asyncio.gather(*(_open(address, port) for port in part))
            heard = {port for port, answer in zip(part, answers, strict=True) if answer}
            if CONTROL in heard:
                break
        else:
            raise AssertionError(f"{address} port {CONTROL} did not answer among {part[0]} to {part[-1]}")
        found |= heard
    return found & set(ports)


def open_ports(address: str, ports: Iterable[int]) -> set[int]:
    """A TCP connect scan."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return asyncio.run(_scan(address, sorted(ports)))


def addresses(scratch: Scratch) -> list[str]:
    """The machine's IPv4 and IPv6 address."""
    found = scratch.console("ip -o address show scope global | awk '{print $4}'").split()
    plain = [address.split("/")[0] for address in found]
    assert {":" in address for address in plain} == {True, False}, plain
    return plain


def listening(scratch: Scratch) -> set[int]:
    lines = scratch.console("ss -Hltn").splitlines()
    return {int(line.split()[3].rsplit(":", 1)[1]) for line in lines}


def test_only_declared_ports_are_open(scratch: Scratch) -> None:
    """All that anything listens on there, and all low ones, over IPv4 and IPv6."""
    there = listening(scratch)
    # So that the scan has something to find besides what it should.
    assert len(there - PUBLIC) > 5, there
    for address in addresses(scratch):
        assert open_ports(address, there | set(range(1, 1025))) == PUBLIC, address


@pytest.mark.long
def test_only_declared_ports_of_all_are_open(scratch: Scratch) -> None:
    for address in addresses(scratch):
        assert open_ports(address, range(1, 65536)) == PUBLIC, address


def test_a_port_that_somebody_opens_on_all_addresses_stays_closed(scratch: Scratch) -> None:
    scratch.console("systemd-run --quiet --unit=stray python3 -m http.server 8999 --bind ::")
    try:
        scratch.console("for i in $(seq 50); do ss -Hltn | grep -q :8999 && break; sleep 0.1; done")
        assert 8999 in listening(scratch)
        for address in addresses(scratch):
            assert open_ports(address, [8999, 22]) == {22}, address
    finally:
        scratch.console("systemctl stop stray")


# --- mail ---


@pytest.fixture(scope="module")
def swaks(rig: World) -> None:
    rig.shell.run(
        "command -v swaks || DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends swaks",
        timeout=180,
    )


# Whom a stranger says to be, and to whom the mail shall go on. The last ones are old tricks.
RELAYS = [
    ("eve@elsewhere.test", "victim@mailbox.test"),
    ("admin@scratch.social.test", "victim@mailbox.test"),
    ("<>", "victim@mailbox.test"),
    ("eve@elsewhere.test", "victim%mailbox.test@scratch.social.test"),
    ("eve@elsewhere.test", "@scratch.social.test:victim@mailbox.test"),
    ("eve@elsewhere.test", "mailbox.test!victim@scratch.social.test"),
    ("eve@elsewhere.test", '"victim@mailbox.test"@scratch.social.test'),
]


@pytest.mark.parametrize(("sender", "recipient"), RELAYS)
def test_it_is_no_open_relay(rig: World, scratch: Scratch, swaks: None, sender: str, recipient: str) -> None:
    command = (
        f"swaks --server {scratch.address('app')} --port 25 --helo mail.elsewhere.test --timeout 10"
        f" --from '{sender}' --to '{recipient}' --quit-after RCPT"
    )
    code, output = rig.shell.attempt(command, timeout=40)
    # swaks: 24 is "no recipient was accepted".
    assert code == 24, output
    assert "** 5" in output or "<** 5" in output, output


def test_mail_for_the_postmaster_is_taken(rig: World, scratch: Scratch, swaks: None) -> None:
    """The refusals above come from a server that does take mail."""
    command = (
        f"swaks --server {scratch.address('app')} --port 25 --helo mail.elsewhere.test --timeout 10"
        " --from eve@elsewhere.test --to postmaster@scratch.social.test --quit-after RCPT"
    )
    code, output = rig.shell.attempt(command, timeout=40)
    assert code == 0, output


def test_submission_is_not_for_strangers(rig: World, scratch: Scratch, swaks: None) -> None:
    for address in addresses(scratch):
        assert open_ports(address, [587, 465]) == set()
    command = (
        f"swaks --server {scratch.address('app')} --port 587 --helo mail.elsewhere.test --timeout 3"
        " --from admin@scratch.social.test --to victim@mailbox.test --quit-after RCPT"
    )
    code, output = rig.shell.attempt(command, timeout=40)
    assert code == 2, output


# --- SSH ---


def test_ssh_audit_reports_no_fail(scratch: Scratch) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ssh_audit", "--json", "--timeout=10", scratch.address("app")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    report = json.loads(done.stdout)
    fails = [
        (kind, entry["algorithm"], entry["notes"]["fail"])
        for kind in ("kex", "key", "enc", "mac")
        for entry in report[kind]
        if entry.get("notes", {}).get("fail")
    ]
    assert report["kex"] and fails == [], (fails, done.stderr)
    # 3 is "at least one fail" (ssh-audit(1)).
    assert done.returncode in (0, 2), (done.returncode, done.stdout)


def test_ssh_takes_no_password(scratch: Scratch) -> None:
    settings = scratch.console("sshd -T").splitlines()
    assert {"passwordauthentication no", "kbdinteractiveauthentication no"} <= set(settings)
