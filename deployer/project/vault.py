"""The file `secrets.age`: encrypted, replaced as a whole, never by an older or a stale one."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployer.core.errors import DeployError, InputError
from deployer.project import identities
from deployer.project.identities import fingerprint

FILE = "secrets.age"
FORMAT = 1


class Vault:
    """One `secrets.age`. `read` and `write` carry a JSON body with "format" and "generation"."""

    def __init__(self, root: Path, identity: Path | None) -> None:
        """identity: what --identity named. Raises InputError when it cannot be used."""
        self.root = root
        self.path = root / FILE
        self.named = identity is not None
        self.identities, self._left_out = identities.find(identity)
        # The file as it was read or written last; b"" when there was none.
        self._sealed = b""

    def read(self) -> dict[str, Any] | None:
        """The body, None when there is no file.

        Raises InputError when no identity of this computer opens it, or when an older file came back.
        """
        self._sealed = self.path.read_bytes() if self.path.exists() else b""
        body = self._open(self._sealed) if self._sealed else None
        generation = int(body["generation"]) if body else 0
        self._refuse_older(generation)
        if body:
            try:
                self._remember(generation)
            except OSError:
                # A folder that can only be read: then nothing is written from here either.
                pass
        return body

    @contextmanager
    def lock(self, generation: int) -> Iterator[None]:
        """Keep other writers out. Raises DeployError when the file is not the one that was read, or on a full disk.

        generation: what this run has read, for the message.
        """
        try:
            with (self._state_dir() / "secrets.lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                on_disk = self.path.read_bytes() if self.path.exists() else b""
                if on_disk != self._sealed:
                    raise self._stale(on_disk, generation)
                yield
        except OSError as error:
            raise DeployError(
                f"writing {self.path}",
                f"{error.strerror}; the file is as it was before",
                "see to the disk and to the folder's owner, then run the command again",
            ) from error

    def write(self, body: dict[str, Any], recipients: Iterable[str]) -> None:
        """Encrypt to `recipients` and replace the file; call it under `lock`."""
        self._sealed = self._seal(json.dumps(body, indent=1).encode(), recipients)
        write_whole(self.path, self._sealed)
        self._remember(int(body["generation"]))

    # --- encryption ---

    def _seal(self, text: bytes, recipients: Iterable[str]) -> bytes:
        import pyrage  # type: ignore[import-untyped]

        distinct = {fingerprint(recipient): recipient for recipient in recipients}
        sealed: bytes = pyrage.encrypt(text, [identities.recipient(key) for key in distinct.values()])
        try:
            pyrage.decrypt(sealed, [identity.key for identity in self.identities])
        except pyrage.DecryptError:
            raise InputError(
                f"writing {self.path}",
                "you could not read it afterwards: no identity on this computer belongs to an operator",
                "add yourself under operators in stack.yaml, or name your identity with --identity FILE",
                detail=self._tried(),
            ) from None
        return sealed

    def _open(self, sealed: bytes) -> dict[str, Any]:
        import pyrage

        if not self.identities:
            raise self._closed()
        try:
            body: dict[str, Any] = json.loads(pyrage.decrypt(sealed, [item.key for item in self.identities]))
        except pyrage.DecryptError as error:
            if "matching keys" in str(error):
                raise self._closed() from None
            raise self._damaged("it is damaged") from None
        except ValueError:
            raise self._damaged("it does not hold what we write") from None
        if body.get("format") != FORMAT:
            raise self._damaged("a newer version of this tool wrote it")
        return body

    # --- generations ---

    def _state_dir(self) -> Path:
        folder = self.root / ".deploy"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @property
    def _seen_file(self) -> Path:
        return self.root / ".deploy" / "secrets.generation"

    def _seen(self) -> int:
        """The newest generation that this project folder has seen."""
        try:
            return int(self._seen_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def _remember(self, generation: int) -> None:
        if self._seen() < generation:
            self._state_dir()
            write_whole(self._seen_file, f"{generation}\n".encode())

    def _refuse_older(self, generation: int) -> None:
        seen = self._seen()
        if generation >= seen:
            return
        have = f"is generation {generation}" if generation else "is missing"
        raise InputError(
            f"opening {self.path}",
            f"it {have}, but generation {seen} was used here; older secrets would be brought to the machines",
            f"bring the newest {FILE} back (version control, another operator); if it is lost for good, delete "
            f"{self._seen_file} and expect new keys and passwords everywhere",
        )

    # --- errors ---

    def _stale(self, on_disk: bytes, generation: int) -> DeployError:
        try:
            other = f"generation {self._open(on_disk)['generation']}" if on_disk else "gone"
        except DeployError:
            other = "another one"
        return DeployError(
            f"writing {self.path}",
            f"the file on disk is {other}, this run had read generation {generation}; nothing was written",
            "somebody changed it meanwhile: run the command again",
        )

    def _closed(self) -> InputError:
        return InputError(
            f"opening {self.path}",
            "no identity on this computer opens it",
            f"name yours with --identity FILE or {identities.VARIABLE}, or let an operator add you to stack.yaml "
            "and run `deploy up`",
            detail=self._tried(),
        )

    def _damaged(self, why: str) -> InputError:
        return InputError(
            f"opening {self.path}", why, "bring it back from version control or another operator"
        )

    def _tried(self) -> str:
        tried = [f"tried: {item.path} ({item.recipient or 'SSH key'})" for item in self.identities]
        return "\n".join(tried + [f"not tried: {reason}" for reason in self._left_out])


def write_whole(path: Path, data: bytes) -> None:
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
