"""SSH keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING

from tests.rig.hetzner.request import Answer, Request, Resource, Routes
from tests.rig.hetzner.store import invalid, labels, taken

if TYPE_CHECKING:
    from tests.rig.hetzner.fake import FakeHetzner


def register(routes: Routes, fake: FakeHetzner) -> None:
    SshKeys(fake).register(routes)


def fingerprint(public: str) -> str:
    """MD5 with colons, as the vendor shows it. Raises ApiError."""
    try:
        blob = base64.b64decode(public.split()[1], validate=True)
    except (IndexError, binascii.Error) as error:
        raise invalid("public_key", "is no public key") from error
    return hashlib.md5(blob, usedforsecurity=False).digest().hex(":")


class SshKeys(Resource):
    def __init__(self, fake: FakeHetzner) -> None:
        super().__init__(fake, "ssh_keys")

    def register(self, routes: Routes) -> None:
        super().register(routes)
        routes.add("POST", "/ssh_keys", self.create)
        routes.add("DELETE", "/ssh_keys/{id}", self.delete)

    def create(self, request: Request) -> Answer:
        body = request.body
        found = fingerprint(body["public_key"])
        if any(item["fingerprint"] == found for item in self.store.tables["ssh_keys"].values()):
            raise taken("public_key", "SSH key with the same fingerprint already exists")
        record = {
            "name": body["name"],
            "fingerprint": found,
            "public_key": body["public_key"],
            "labels": labels(body),
        }
        return 201, {"ssh_key": self.show(self.store.add("ssh_keys", record))}

    def delete(self, request: Request, number: str) -> Answer:
        self.remove(number)
        return 204, None
