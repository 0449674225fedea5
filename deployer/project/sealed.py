"""Other files than the bundle, encrypted with age to the same readers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deployer.core.errors import DeployError, InputError
from deployer.project import identities
from deployer.project.identities import VARIABLE, fingerprint


def seal(data: bytes, recipients: Iterable[str]) -> bytes:
    """Encrypt to the recipients (`Bundle.recipients`)."""
    import pyrage  # type: ignore[import-untyped]

    distinct = {fingerprint(one): one for one in recipients}
    sealed: bytes = pyrage.encrypt(data, [identities.recipient(one) for one in distinct.values()])
    return sealed


def unseal(sealed: bytes, identity: Path | None, name: str) -> bytes:
    """Decrypt with this computer's identities, or the named one. name: of the file, for errors.

    Raises InputError when none of them opens it, DeployError when it is damaged.
    """
    import pyrage

    usable, left_out = identities.find(identity)
    tried = [f"tried: {item.path} ({item.recipient or 'SSH key'})" for item in usable]
    tried += [f"not tried: {reason}" for reason in left_out]
    try:
        if not usable:
            raise pyrage.DecryptError("no matching keys")
        data: bytes = pyrage.decrypt(sealed, [item.key for item in usable])
    except pyrage.DecryptError as error:
        if "matching keys" not in str(error):
            raise DeployError(f"opening {name}", "it is damaged") from None
        raise InputError(
            f"opening {name}",
            "no identity on this computer opens it" if usable else "there is no identity on this computer",
            f"name one of an operator, or the recovery identity, with --identity FILE or {VARIABLE}",
            detail="\n".join(tried),
        ) from None
    return data
