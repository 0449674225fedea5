"""What the database wants of its machine, compared as values."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.components.database import actions, operations, scram
from deployer.components.database.sizing import Memory, size
from deployer.components.database.spec import connection, secrets, spec
from deployer.core.component import ComponentSpec, Context, Data, Port, Secret, Step
from deployer.core.errors import DeployError
from deployer.core.machine import Facts
from deployer.flow.wanted import render
from tests.components.base.world import ONE, TWO, context

ROOT = Path("/nonexistent")
CONF = "/etc/postgresql/17/main/conf.d/10-deploy.conf"
HBA = "/etc/deploy/postgresql/pg_hba.conf"
UNIT = "/etc/systemd/system/postgresql@17-main.service.d/deploy.conf"


def text(wanted: ComponentSpec, path: str) -> str:
    return render(next(file for file in wanted.files if file.path == path), ROOT).decode()


def lines(wanted: ComponentSpec, path: str) -> list[str]:
    return [line for line in text(wanted, path).splitlines() if line and not line.startswith("#")]


def step(ctx: Context, name: str) -> Step:
    return next(one for one in spec(ctx).steps if one.name == name)


# --- verifiers ---


def test_the_verifier_is_the_one_of_rfc_7677() -> None:
    """Section 3: with its salt and nonces, the server's signature comes out."""
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}"
    made = scram.make("pencil", base64.b64decode(salt), 4096)
    head, keys = made.split(f"4096:{salt}$")
    assert head == "SCRAM-SHA-256$"
    server = base64.b64decode(keys.split(":")[1])
    signature = base64.b64encode(hmac.digest(server, message.encode(), "sha256")).decode()
    assert signature == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_same_password_gives_the_same_verifier_and_another_role_another() -> None:
    assert scram.verifier("a", "secret") == scram.verifier("a", "secret")
    assert scram.verifier("a", "secret") != scram.verifier("b", "secret")
    assert scram.verifier("a", "secret") != scram.verifier("a", "Secret")


@pytest.mark.parametrize("password", ["", "pässword", "a\nb"])
def test_passwords_that_would_need_preparing_are_refused(password: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        scram.verifier("a", password)


def test_the_password_itself_goes_nowhere_near_the_server() -> None:
    ctx = context()
    wanted = spec(ctx)
    everything = [render(file, ROOT).decode() for file in wanted.files]
    everything += [one.check + json.dumps(dict(one.args)) for one in wanted.steps]
    assert not [found for found in everything if "password-of-" in found]


def test_a_rotated_password_runs_the_step_again() -> None:
    ctx = context()
    rotated = replace(ctx, secrets={**ctx.secrets, "database/notes": "another"})
    assert step(ctx, "database notes").args != step(rotated, "database notes").args
    assert step(ctx, "database notes").check != step(rotated, "database notes").check
    assert step(ctx, "database sms_gateway") == step(rotated, "database sms_gateway")
    # The check is shown in more places than arguments are; it knows a digest only.
    verifier = str(step(ctx, "database notes").args["verifier"])
    assert verifier not in step(ctx, "database notes").check
    assert hashlib.sha256(verifier.encode()).hexdigest() in step(ctx, "database notes").check


# --- who connects, and how ---


def test_on_one_machine_nothing_listens_outside() -> None:
    wanted = spec(context())
    assert wanted.ports == ()
    assert "listen_addresses = '127.0.0.1, ::1'" in lines(wanted, CONF)
    assert lines(wanted, HBA) == [
        "local all postgres peer",
        'host "notes" "notes" 127.0.0.1/32 scram-sha-256',
        'host "notes" "notes" ::1/128 scram-sha-256',
        'host "sms_gateway" "sms_gateway" 127.0.0.1/32 scram-sha-256',
        'host "sms_gateway" "sms_gateway" ::1/128 scram-sha-256',
        # Not there but while the service moves.
        "include_if_exists /etc/deploy/moving/pg_hba.conf",
    ]
    assert "network-online" not in text(wanted, UNIT)


def test_other_machines_come_with_tls_from_their_own_addresses_only() -> None:
    wanted = spec(context(apart=True))
    assert wanted.ports == (Port(5432, "tcp", ("app", "sms"), "postgresql"),)
    assert "listen_addresses = '127.0.0.1, ::1, 10.0.0.1'" in lines(wanted, CONF)
    assert [line for line in lines(wanted, HBA) if line.startswith("hostssl")] == [
        f'hostssl "{name}" "{name}" {address} scram-sha-256'
        for name in ("notes", "sms_gateway")
        for address in ("10.0.0.2/32", "192.0.2.2/32", "2001:db8::2/128")
    ]
    assert "After=network-online.target" in text(wanted, UNIT)


def test_a_connection_verifies_the_server_unless_it_is_loopback() -> None:
    here = connection(context(), "notes")
    assert here == {
        "host": "localhost",
        "port": 5432,
        "user": "notes",
        "password": "password-of-notes",
        "name": "notes",
        "sslmode": "disable",
        "ca": "/etc/deploy/pki/root.crt",
    }
    there = connection(context(apart=True, on=TWO), "notes")
    assert (there["host"], there["sslmode"]) == ("demo-all-1.example.test", "verify-full")
    with pytest.raises(KeyError, match="no database 'other'"):
        connection(context(), "other")


def test_the_certificate_names_what_clients_call_it() -> None:
    leaf = json.loads(text(spec(context(apart=True)), "/etc/deploy/pki/leaves.d/postgresql.json"))
    assert leaf == {
        "names": ["demo-all-1.example.test", "localhost"],
        "owner": "postgres",
        "reload": ["postgresql@17-main.service"],
    }


# --- data, sizes, names ---


def test_each_database_has_a_password_and_belongs_in_a_backup() -> None:
    ctx = context()
    assert secrets(ctx.project) == (Secret("database/notes"), Secret("database/sms_gateway"))
    assert spec(ctx).data == (
        Data("notes", "postgres", "notes"),
        Data("sms_gateway", "postgres", "sms_gateway"),
    )


def test_an_app_may_insist_on_its_locale() -> None:
    ctx = context(locale="C")
    assert step(ctx, "database notes").args["locale"] == "C"
    assert step(ctx, "database sms_gateway").args["locale"] == "C.UTF-8"


@pytest.mark.parametrize(
    ("gib", "shared", "wanted"),
    [
        (1, True, Memory(128, 512, 64, 4)),
        (4, True, Memory(512, 1536, 128, 8)),
        (4, False, Memory(1024, 3072, 256, 16)),
        (64, False, Memory(16384, 49152, 1024, 64)),
        (512, False, Memory(16384, 65536, 1024, 64)),
    ],
)
def test_memory_is_sized_from_the_machine_s(gib: int, shared: bool, wanted: Memory) -> None:
    assert size(gib << 30, shared) == wanted


def test_a_few_mib_more_or_less_change_nothing() -> None:
    assert size(4 << 30, True) == size((4 << 30) - (90 << 20), True)


def test_nothing_but_contents_follows_from_what_was_found() -> None:
    ctx = context()
    big = spec(replace(ctx, facts=Facts(cores=64, memory=64 << 30)))
    small = spec(ctx)
    assert text(big, CONF) != text(small, CONF)
    assert (big.steps, big.units, big.ports, big.packages) == (
        small.steps,
        small.units,
        small.ports,
        small.packages,
    )
    assert [file.path for file in big.files] == [file.path for file in small.files]


def test_a_change_of_who_may_connect_reloads_and_everything_else_restarts() -> None:
    changes = {file.path: file.on_change for file in spec(context()).files}
    assert changes[HBA] == "reload"
    assert changes[CONF] == changes[UNIT] == "restart"


# --- commands ---


def test_an_unsafe_name_never_reaches_sql() -> None:
    with pytest.raises(ValueError, match="no name for a database"):
        list(operations.database._inner(database="a'; DROP TABLE x", verifier="v", locale="C"))


def test_sql_comes_by_standard_input() -> None:
    [command] = operations.database._inner(database="notes", verifier="SCRAM-v", locale="C.UTF-8")
    assert "SCRAM" not in str(command)
    assert "PASSWORD 'SCRAM-v'" in command.connector_arguments["_stdin"]
    assert actions.psql_command("notes")[-1] == "notes"


def test_the_status_names_sizes() -> None:
    answer = {
        "version": "17.12",
        "standby": False,
        "connections": 3,
        "max_connections": 200,
        "sizes": {"notes": 9},
    }
    assert actions.parse_status(json.dumps(answer)) == actions.ServerStatus(
        "17.12", False, 3, 200, {"notes": 9}
    )
    with pytest.raises(DeployError, match=f"on {ONE.name}"):
        actions.parse_status("psql: error", ONE.name)
