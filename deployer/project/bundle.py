"""The secrets bundle: `secrets.age` in the project folder, one age file with JSON inside.

It is encrypted to the operators of stack.yaml and to a recovery identity that is kept offline. Who can read it
is written inside, where nobody without a key can change it. Every write raises the generation; a write over
another generation than the one that was read is refused, and so is going back to an older file.
Values never appear in a repr or in an error.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from deployer.core.component import Secret
from deployer.core.errors import DeployError, InputError
from deployer.core.model import Operator
from deployer.project import identities
from deployer.project.identities import Identity, fingerprint

FILE = "secrets.age"
RECOVERY_FILE = "recovery-identity.txt"
_FORMAT = 1
# Readers that are computers and no operators: the stack names nobody (the demo).
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
        """Open `secrets.age` in `root`; a missing file is an empty bundle of generation 0.

        Raises InputError when no identity of this computer opens it, or when an older file came back.
        """
        self.root = root
        self.path = root / FILE
        self.generation = 0
        self.entries: dict[str, Entry] = {}
        self._operators = tuple(operators)
        self._named = identity
        self._readers: dict[str, str] = {}
        self._recovery = ""
        self._made = _now()
        self._changed = False
        self._sealed = b""
        self._identities, self._left_out = identities.find(identity)
        if self.path.exists():
            self._sealed = self.path.read_bytes()
            self._take(self._open(self._sealed))
        self._refuse_older()

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, generation={self.generation}, secrets={len(self.entries)})"

    @property
    def exists(self) -> bool:
        return self.generation > 0

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
            purpose = maker.purpose(secret)
            if found and found.kind == secret.kind and found.purpose == purpose:
                continue
            if secret.kind == "given":
                if found:
                    continue
                raise InputError(
                    "reading the secrets",
                    f"the secret {secret.name} is not set",
                    f"deploy secrets set {secret.name}",
                )
            self.put(secret, maker.make(secret, self.values), purpose)
        return self.save() if save else []

    def put(self, secret: Secret, value: str, purpose: str = "") -> None:
        self.entries[secret.name] = Entry(value, secret.kind, _now(), purpose)
        self._changed = True

    def remove(self, name: str) -> None:
        if self.entries.pop(name, None):
            self._changed = True

    def save(self) -> list[str]:
        """Write the bundle if a secret or a reader changed, under a lock, as a new generation.

        Returns notices for the operator: a recovery identity to keep, readers that came and went.
        Raises DeployError when the file on disk is not the one that was read.
        """
        notices: list[str] = []
        readers = self._wanted_readers()
        added, removed = _difference(self._readers, readers)
        if not (self._changed or added or removed):
            return notices
        with self._lock():
            on_disk = self.path.read_bytes() if self.path.exists() else b""
            if on_disk != self._sealed:
                raise self._stale(on_disk)
            if not self._recovery:
                notices.append(self._make_recovery())
            if self.exists:
                notices += self._note_readers(added, removed)
            body = self._body(readers)
            sealed = self._seal(body, [*readers.values(), self._recovery])
            _write(self.path, sealed)
            self._readers, self._sealed, self._changed = readers, sealed, False
            self.generation += 1
            self._remember()
        return notices

    def new_recovery(self) -> str:
        """Replace the recovery identity at the next `save`; the old one opens no later bundle."""
        (self.root / RECOVERY_FILE).unlink(missing_ok=True)
        self._recovery = ""
        self._changed = True
        return "the old recovery identity opens no bundle that is written from now on"

    # --- readers ---

    def _wanted_readers(self) -> dict[str, str]:
        """Name -> recipient of all who shall read the bundle, without the recovery identity."""
        if self._operators:
            return {operator.name: operator.age for operator in self._operators}
        known = {name: key for name, key in self._readers.items() if name.startswith(_COMPUTER)}
        mine = {fingerprint(identity.recipient) for identity in self._identities}
        if any(fingerprint(key) in mine for key in known.values()):
            return known
        chosen = self._identities[0] if self._named and self._identities else identities.personal()
        if chosen.recipient not in mine:
            self._identities.append(chosen)
        if fingerprint(chosen.recipient) == fingerprint(self._recovery or "-"):
            chosen = identities.personal()
        return {**known, _COMPUTER + socket.gethostname(): chosen.recipient}

    def _note_readers(self, added: Mapping[str, str], removed: Mapping[str, str]) -> list[str]:
        """Remember what the removed could read, and say it."""
        notices = []
        if added:
            notices.append(f"the secrets can be read from now on by: {', '.join(sorted(added))}")
        gone = sorted(name for name in removed if not name.startswith(_COMPUTER))
        if gone:
            # What is in this write for the first time was never in a file that they could open.
            old = sorted(name for name, entry in self.entries.items() if name in self._stored)
            for name in old:
                exposed = tuple(dict.fromkeys((*self.entries[name].exposed, *gone)))
                self.entries[name] = replace(self.entries[name], exposed=exposed)
            notices.append(
                f"{', '.join(gone)} can no longer open the secrets, but could until now and may have kept them; "
                f"rotate each (deploy secrets rotate NAME): {', '.join(old)}"
            )
        return notices

    def _make_recovery(self) -> str:
        path = self.root / RECOVERY_FILE
        identity = identities.make(path, "deploy: opens secrets.age when every operator's key is lost")
        self._recovery = identity.recipient
        return (
            f"{path} opens the secrets when every operator's key is lost. Move it offline now (print it, or put it "
            "on a stick in a safe) and delete it here: whoever has it can read everything"
        )

    # --- the file ---

    def _body(self, readers: Mapping[str, str]) -> bytes:
        secrets = {}
        for name in sorted(self.entries):
            full = asdict(self.entries[name])
            secrets[name] = {key: value for key, value in full.items() if value not in ("", ())}
        body = {
            "format": _FORMAT,
            "generation": self.generation + 1,
            "made": self._made,
            "written": _now(),
            "recovery": self._recovery,
            "readers": dict(readers),
            "secrets": secrets,
        }
        self._stored = frozenset(self.entries)
        return json.dumps(body, indent=1).encode()

    def _seal(self, body: bytes, recipients: Iterable[str]) -> bytes:
        import pyrage  # type: ignore[import-untyped]

        distinct = {fingerprint(text): text for text in recipients}
        sealed: bytes = pyrage.encrypt(body, [identities.recipient(text) for text in distinct.values()])
        try:
            pyrage.decrypt(sealed, [identity.key for identity in self._identities])
        except pyrage.DecryptError:
            names = ", ".join(operator.name for operator in self._operators)
            raise InputError(
                f"writing {FILE}",
                f"you could not read it afterwards: none of your identities belongs to an operator ({names})",
                "add yourself under operators in stack.yaml, or name your identity with --identity FILE",
                detail=self._tried(),
            ) from None
        return sealed

    def _open(self, sealed: bytes) -> dict[str, object]:
        import pyrage

        if not self._identities:
            raise self._closed()
        try:
            text: bytes = pyrage.decrypt(sealed, [identity.key for identity in self._identities])
            body: dict[str, object] = json.loads(text)
        except pyrage.DecryptError as error:
            if "matching keys" in str(error):
                raise self._closed() from None
            raise self._damaged("it is damaged") from None
        except ValueError:
            raise self._damaged("it does not hold what we write") from None
        if body.get("format") != _FORMAT:
            raise self._damaged("a newer version of this tool wrote it")
        return body

    def _take(self, body: Mapping[str, object]) -> None:
        fields: dict[str, dict[str, object]] = body["secrets"]  # type: ignore[assignment]
        self.entries = {
            name: Entry(**{**entry, "exposed": tuple(entry.get("exposed", ()))})  # type: ignore[arg-type]
            for name, entry in fields.items()
        }
        self.generation = int(str(body["generation"]))
        self._made = str(body["made"])
        self._recovery = str(body["recovery"])
        self._readers = dict(body["readers"])  # type: ignore[call-overload]
        self._stored = frozenset(self.entries)

    # Names in the file that was read last.
    _stored: frozenset[str] = frozenset()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        path = self._state_dir() / "secrets.lock"
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _state_dir(self) -> Path:
        folder = self.root / ".deploy"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _seen(self) -> int:
        """The newest generation that this project folder has seen."""
        try:
            return int((self.root / ".deploy" / "secrets.generation").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def _remember(self) -> None:
        if self._seen() < self.generation:
            _write(self._state_dir() / "secrets.generation", f"{self.generation}\n".encode())

    def _refuse_older(self) -> None:
        seen = self._seen()
        if self.generation >= seen:
            self._remember()
            return
        have = f"is generation {self.generation}" if self.exists else "is missing"
        raise InputError(
            f"opening {self.path}",
            f"it {have}, but generation {seen} was used here already; older secrets would be brought to the machines",
            f"bring the newest {FILE} back (version control, another operator); if it is lost for good, delete "
            f"{self.root / '.deploy' / 'secrets.generation'} and expect new keys and passwords everywhere",
        )

    # --- errors ---

    def _stale(self, on_disk: bytes) -> DeployError:
        try:
            other = f"generation {self._open(on_disk)['generation']}" if on_disk else "gone"
        except DeployError:
            other = "another one"
        return DeployError(
            f"writing {self.path}",
            f"the file on disk is {other}, this run had read generation {self.generation}; nothing was written",
            "somebody changed it meanwhile: run the command again",
        )

    def _closed(self) -> InputError:
        return InputError(
            f"opening {self.path}",
            "no identity on this computer opens it",
            f"name yours with --identity FILE or {identities.VARIABLE}, or let an operator add you to stack.yaml and run "
            "`deploy up`",
            detail=self._tried(),
        )

    def _damaged(self, why: str) -> InputError:
        return InputError(
            f"opening {self.path}", why, "bring it back from version control or another operator"
        )

    def _tried(self) -> str:
        tried = [
            f"tried: {identity.path} ({identity.recipient or 'SSH key'})" for identity in self._identities
        ]
        return "\n".join(tried + [f"not tried: {reason}" for reason in self._left_out])


def _difference(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Readers of `new` that `old` lacks, and the other way round, by key."""
    had = {fingerprint(key) for key in old.values()}
    has = {fingerprint(key) for key in new.values()}
    added = {name: key for name, key in new.items() if fingerprint(key) not in had}
    removed = {name: key for name, key in old.items() if fingerprint(key) not in has}
    return added, removed


def _write(path: Path, data: bytes) -> None:
    """Replace the file as a whole, durably, for its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


__all__ = ["FILE", "RECOVERY_FILE", "Bundle", "Entry", "Identity", "Maker"]
