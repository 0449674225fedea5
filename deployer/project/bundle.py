"""The secrets bundle: what is in `secrets.age`, one JSON text encrypted with age.

It is encrypted to the operators of stack.yaml and to a recovery identity that is kept offline. Who can read it
is written inside, where nobody without a key can change it. Every write raises the generation; vault.py refuses
a write over another generation than the one that was read. Values never appear in a repr or in an error.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from deployer.core.component import Secret
from deployer.core.errors import InputError
from deployer.core.model import Operator
from deployer.project import identities
from deployer.project.identities import fingerprint
from deployer.project.vault import FORMAT, Vault

RECOVERY_FILE = "recovery-identity.txt"
# Readers that are computers, not operators: the stack names nobody (the demo).
_COMPUTER = "computer "


class Maker(Protocol):
    """Makes values; pki/ has one."""

    def purpose(self, secret: Secret) -> str:
        """What the value is bound to; a value made for another purpose is made anew."""

    def make(self, secret: Secret, values: Mapping[str, str]) -> str:
        """A new value. values: the other secrets (an issuer needs the CA)."""


@dataclass(frozen=True)
class Entry:
    """made: UTC time. exposed: removed operators who could read the value and may remember it."""

    value: str = field(repr=False)
    kind: str
    made: str
    purpose: str = ""
    exposed: tuple[str, ...] = ()


class Bundle:
    """The opened bundle of one project. Changes are in memory until `save`."""

    def __init__(self, root: Path, operators: Sequence[Operator], identity: Path | None) -> None:
        """Open it; no file is an empty bundle of generation 0.

        Raises InputError when no identity of this computer opens it, or when an older file came back.
        """
        self.root = root
        self._operators = tuple(operators)
        self._vault = Vault(root, identity)
        body: Mapping[str, Any] = self._vault.read() or {}
        self.generation = int(body.get("generation", 0))
        self._made = str(body.get("made") or _now())
        self._recovery = str(body.get("recovery", ""))
        self._readers: dict[str, str] = dict(body.get("readers", {}))
        self.entries = {
            name: Entry(**{**entry, "exposed": tuple(entry.get("exposed", ()))})
            for name, entry in body.get("secrets", {}).items()
        }
        # Names in the file, as against what is new in memory.
        self._stored = frozenset(self.entries)
        self._changed = False

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, generation={self.generation}, secrets={len(self.entries)})"

    @property
    def path(self) -> Path:
        return self._vault.path

    @property
    def exists(self) -> bool:
        return self.generation > 0

    @property
    def recipients(self) -> list[str]:
        """Who can open the file: operators or computers, and the recovery identity."""
        return [*self._readers.values(), *([self._recovery] if self._recovery else [])]

    @property
    def values(self) -> dict[str, str]:
        return {name: entry.value for name, entry in self.entries.items()}

    def ensure(self, specs: Iterable[Secret], maker: Maker, *, save: bool = True) -> list[str]:
        """Make what `specs` want and the bundle lacks, and see to its readers; write it if anything changed.

        save: False leaves all of it in memory. Returns notices for the operator.
        Raises InputError when a secret is missing that only the operator can give.
        """
        # Authorities first: what they sign is made from them.
        for secret in sorted(specs, key=lambda secret: secret.kind != "ca"):
            found = self.entries.get(secret.name)
            if secret.kind == "given":
                if found is None:
                    raise InputError(
                        "reading the secrets",
                        f"the secret {secret.name} is not set",
                        f"deploy secrets edit {secret.name}",
                    )
                continue
            purpose = maker.purpose(secret)
            if found is None or (found.kind, found.purpose) != (secret.kind, purpose):
                self.put(secret, maker.make(secret, self.values), purpose)
        return self.save() if save else []

    def put(self, secret: Secret, value: str, purpose: str = "") -> None:
        """Set a secret in memory; what was exposed of its old value is past."""
        self.entries[secret.name] = Entry(value, secret.kind, _now(), purpose)
        self._changed = True

    def save(self) -> list[str]:
        """Write the bundle if a secret or a reader changed, under a lock, as a new generation.

        Returns notices for the operator: a recovery identity to keep, readers that came and went.
        Raises DeployError when the file on disk is not the one that was read.
        """
        readers = self._wanted_readers()
        added, removed = _difference(self._readers, readers)
        if not (self._changed or added or removed):
            return []
        notices: list[str] = []
        with self._vault.lock(self.generation):
            if not self._recovery:
                notices.append(self._make_recovery())
            if self.exists:
                notices += self._note_readers(added, removed)
            self._vault.write(self._body(readers), [*readers.values(), self._recovery])
        self.generation += 1
        self._readers, self._stored, self._changed = readers, frozenset(self.entries), False
        return notices

    def new_recovery(self) -> None:
        """Have `save` make another recovery identity; the old one opens nothing that is written from then on.

        Raises InputError while a recovery identity still lies in the project folder.
        """
        if (self.root / RECOVERY_FILE).exists():
            raise InputError(
                "replacing the recovery identity",
                f"{RECOVERY_FILE} still lies in the project folder",
                "move it away first; the new one is written there",
            )
        self._recovery = ""
        self._changed = True

    def _body(self, readers: Mapping[str, str]) -> dict[str, Any]:
        secrets = {}
        for name in sorted(self.entries):
            full = asdict(self.entries[name])
            secrets[name] = {key: value for key, value in full.items() if key == "value" or value}
        return {
            "format": FORMAT,
            "generation": self.generation + 1,
            "made": self._made,
            "written": _now(),
            "recovery": self._recovery,
            "readers": dict(readers),
            "secrets": secrets,
        }

    # --- readers ---

    def _wanted_readers(self) -> dict[str, str]:
        """Name -> recipient of all who shall read the bundle, besides the recovery identity."""
        if self._operators:
            return {operator.name: operator.age for operator in self._operators}
        known = {name: key for name, key in self._readers.items() if name.startswith(_COMPUTER)}
        own = self._vault.identities
        if {fingerprint(item.recipient) for item in own} & {fingerprint(key) for key in known.values()}:
            return known
        # Opened with the recovery identity, or new: this computer's own identity becomes a reader.
        usable = [item for item in own if self._vault.named and item.recipient not in ("", self._recovery)]
        mine = usable[0] if usable else identities.personal()
        if mine not in own:
            own.append(mine)
        name = _COMPUTER + socket.gethostname()
        # Two computers may have one name; neither shall lock the other one out.
        while name in known:
            name += "'"
        return {**known, name: mine.recipient}

    def _note_readers(self, added: Mapping[str, str], removed: Mapping[str, str]) -> list[str]:
        """Remember what the removed could read, and say it."""
        notices = []
        if new := sorted(added.keys() - removed.keys()):
            notices.append(f"the secrets can be read from now on by: {', '.join(new)}")
        if same := sorted(added.keys() & removed.keys()):
            notices.append(
                f"the secrets open with another key of {', '.join(same)} from now on; if the old one was stolen, rotate "
                "them all (deploy secrets list)"
            )
        gone = sorted(name for name in removed.keys() - added.keys() if not name.startswith(_COMPUTER))
        if gone:
            # What is written now for the first time was in no file that they could open.
            old = sorted(name for name in self.entries if name in self._stored)
            for name in old:
                exposed = tuple(dict.fromkeys((*self.entries[name].exposed, *gone)))
                self.entries[name] = replace(self.entries[name], exposed=exposed)
            notices.append(
                f"{', '.join(gone)} can no longer open the secrets, but could until now and may have kept them; "
                f"rotate each with deploy secrets rotate NAME: {', '.join(old)}"
            )
        return notices

    def _make_recovery(self) -> str:
        path = self.root / RECOVERY_FILE
        identity = identities.make(path, "deploy: opens secrets.age when every operator's key is lost")
        self._recovery = identity.recipient
        return (
            f"{path} opens the secrets when every operator's key is lost. Move it offline now (print it, or put "
            "it on a stick in a safe) and delete it here: whoever has it can read everything"
        )


def _difference(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Readers of `new` that `old` lacks, and the other way round, by key."""
    had = {fingerprint(key) for key in old.values()}
    has = {fingerprint(key) for key in new.values()}
    added = {name: key for name, key in new.items() if fingerprint(key) not in had}
    removed = {name: key for name, key in old.items() if fingerprint(key) not in has}
    return added, removed


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
