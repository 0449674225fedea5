"""Makes the secrets that a bundle lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deployer.core.component import Secret
from deployer.pki import authority, keys

CA = "pki/ca"
_SIMPLE: dict[str, Callable[[], str]] = {
    "password": keys.password,
    "hex": keys.hex_digits,
    "rsa": keys.rsa,
    "ssh": keys.ssh,
    "ed25519_seed": keys.ed25519_seed,
    "vapid": keys.vapid,
}


@dataclass(frozen=True)
class Generator:
    """For one stack. An issuer's name ends in the machine's ("pki/issuer/demo-all-1")."""

    stack: str
    domain: str

    def purpose(self, secret: Secret) -> str:
        """What a value is bound to: an issuer may name one domain only, so another domain needs another."""
        return self.domain if secret.kind == "issuer" else ""

    def make(self, secret: Secret, values: Mapping[str, str]) -> str:
        """A new value. values: must hold the CA when an issuer is made."""
        if secret.kind == "ca":
            return authority.root(self.stack)
        if secret.kind == "issuer":
            return authority.issuer(values[CA], secret.name.rpartition("/")[2], self.domain)
        return _SIMPLE[secret.kind]()
