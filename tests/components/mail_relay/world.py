"""A small stack to ask the relay's spec about."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from deployer.core.component import Context
from deployer.core.machine import Machine
from deployer.core.manifest import Manifest
from deployer.core.model import Inventory, MailPolicy, Project, Smarthost, SmsPolicy, Stack


@cache
def rsa_key() -> str:
    """A PKCS8 PEM private key, as pki/ makes it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def context(
    *,
    catch: bool = False,
    smarthosts: tuple[Smarthost, ...] = (),
    app_apart: bool = False,
    sender: str = "noreply@example.test",
    postmaster: str = "",
    address6: str = "",
) -> Context:
    """The context of the mail machine."""
    stack = Stack(
        "demo", "example.test", "matrix", (), MailPolicy(sender, postmaster=postmaster), SmsPolicy()
    )
    inventory = Inventory("local", "local", (), catch=catch, smarthosts=smarthosts)
    app = Manifest("matrix", "1", Path("/nonexistent"), (), (), (), (), ())
    mail = Machine("demo-mail-1", "1", "running", "192.0.2.25", address6, private_address="10.0.0.25")
    other = Machine("demo-app-1", "2", "running", "192.0.2.80", private_address="10.0.0.80")
    return Context(
        project=Project(Path("/nonexistent"), stack, inventory, app),
        machine=mail,
        machines={machine.name: machine for machine in (mail, other)},
        roles={"mail": (mail.name,), "app": (other.name if app_apart else mail.name,)},
        secrets={"mail_relay/dkim": rsa_key()},
    )


FIRST = Smarthost("first", "smtp.first.example", 587, "user", "first-password", "include:spf.first.example")
SECOND = Smarthost("second", "smtp.second.example", 465, "other", "second-password")
OPEN = Smarthost("open", "relay.lan", 25)
