"""Operators who go, and secrets that are replaced: what they opened is closed, and we still get in."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import paramiko
import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.scratch import Scratch, nothing_to_do

HOST = "ssh/host/scratch-all-1"


def key() -> tuple[str, str]:
    """An SSH key: OpenSSH's private text, and the line for authorized_keys."""
    made = Ed25519PrivateKey.generate()
    secret = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = made.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return secret.decode(), public.decode()


def opens(scratch: Scratch, private: str) -> bool:
    """Whether the key logs in at the machine."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    try:
        client.connect(
            scratch.address("app"),
            username="root",
            pkey=paramiko.Ed25519Key.from_private_key(io.StringIO(private)),
            allow_agent=False,
            look_for_keys=False,
            timeout=10,
        )
        return True
    except paramiko.AuthenticationException:
        return False
    finally:
        client.close()


def shown_host_key(scratch: Scratch) -> str:
    transport = paramiko.Transport((scratch.address("app"), 22))
    try:
        transport.start_client(timeout=10)
        return base64.b64encode(transport.get_remote_server_key().asbytes()).decode()
    finally:
        transport.close()


def operators(scratch: Scratch, *people: tuple[str, str, str]) -> None:
    path = scratch.folder / "stack.yaml"
    head = path.read_text().split("operators:")[0]
    entries = "".join(f'- {{name: {name}, ssh_key: "{ssh}", age: {age}}}\n' for name, ssh, age in people)
    path.write_text(head + (f"operators:\n{entries}" if entries else ""))


def test_an_operator_goes(scratch: Scratch) -> None:
    identity = scratch.operator.home / ".config/deploy/identity.txt"
    own = pyrage.x25519.Identity.from_str(
        next(line for line in identity.read_text().splitlines() if line.startswith("AGE-SECRET-KEY"))
    )
    (ann_key, ann_public), (ben_key, ben_public) = key(), key()
    ann = ("ann", ann_public, str(own.to_public()))
    ben = ("ben", ben_public, str(pyrage.x25519.Identity.generate().to_public()))
    operators(scratch, ann, ben)
    scratch.mended()
    assert opens(scratch, ann_key) and opens(scratch, ben_key)

    operators(scratch, ann)
    gone = scratch.operator.good("up", "--yes")
    assert opens(scratch, ann_key) and not opens(scratch, ben_key)
    (notice,) = [event["text"] for event in gone.events if "ben can no longer open" in event.get("text", "")]
    assert "deploy secrets rotate NAME" in notice
    assert all(name in notice for name in ("database/synapse", "ssh/deploy", "app/admin_password")), notice
    listed = scratch.operator.good("secrets", "list").result
    rows = {row["name"]: row for row in (listed["secrets"] if isinstance(listed, dict) else listed)}
    assert "ben" in rows["database/synapse"]["rotate"]


def test_what_is_rotated_arrives(scratch: Scratch) -> None:
    old = scratch.secrets()
    # Twice before `up` has been there: the machine knows what is neither the newest nor the one before it.
    for name in ("database/synapse", "ssh/deploy", HOST, "ssh/deploy", HOST):
        scratch.operator.good("secrets", "rotate", name)
    summary = scratch.mended()
    restarted = {change["component"] for change in summary["changes"] if change["action"] == "restart"}
    assert "base" not in restarted
    nothing_to_do(scratch.operator)
    new = scratch.secrets()
    assert new["database/synapse"] != old["database/synapse"]
    assert opens(scratch, new["ssh/deploy"]) and not opens(scratch, old["ssh/deploy"])
    public = scratch.console("ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key").split()[1]
    assert shown_host_key(scratch) == public
    assert paramiko.Ed25519Key.from_private_key(io.StringIO(new[HOST])).get_base64() == public
    # By all ways in: the engine, and ssh(1).
    assert scratch.operator.on(scratch.name, "hostname -s").strip() == scratch.name
    assert scratch.operator.good("logs", "cache", "--lines", "5", options=()).out


@pytest.mark.long
@pytest.mark.parametrize("name", ["pki/ca", "pki/issuer/scratch-all-1", "mail_relay/dkim", "cache/password"])
def test_each_kind_can_be_rotated(scratch: Scratch, name: str) -> None:
    scratch.operator.good("secrets", "rotate", name)
    scratch.mended()
    nothing_to_do(scratch.operator)


def logs_in(scratch: Scratch, password: str) -> bool:
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "admin"},
        "password": password,
    }
    scratch.console(f"cat >/run/login.json <<'E'\n{json.dumps(body)}\nE")
    status = scratch.console(
        "curl -s -o /dev/null -w '%{http_code}' --data @/run/login.json"
        " http://127.0.0.1:8008/_matrix/client/v3/login; rm /run/login.json"
    )
    assert status in ("200", "403"), status
    return status == "200"


def test_the_admin_gets_a_new_password(scratch: Scratch) -> None:
    old = scratch.secrets()["app/admin_password"]
    assert logs_in(scratch, old)
    scratch.operator.good("secrets", "rotate", "app/admin_password")
    summary = scratch.mended()
    assert not [change for change in summary["changes"] if change["action"] == "restart"], summary["changes"]
    assert logs_in(scratch, scratch.secrets()["app/admin_password"]) and not logs_in(scratch, old)
    nothing_to_do(scratch.operator)


def test_the_bundle_and_its_keys_are_private(scratch: Scratch) -> None:
    for path in ("secrets.age", "recovery-identity.txt", ".deploy"):
        found: Path = scratch.folder / path
        assert found.stat().st_mode & 0o077 == 0, path
