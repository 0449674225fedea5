"""Volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.rig.hetzner import catalog
from tests.rig.hetzner.request import Answer, Request, Resource, Routes
from tests.rig.hetzner.store import ApiError, Record, invalid, labels

if TYPE_CHECKING:
    from tests.rig.hetzner.fake import FakeHetzner


def register(routes: Routes, fake: FakeHetzner) -> None:
    Volumes(fake).register(routes)


def check_attachable(volume: Record, place: Record) -> None:
    """Raises ApiError."""
    if volume["server"]:
        raise ApiError(422, "volume_already_attached", "volume is already attached to a server")
    if volume["location"]["id"] != place["id"]:
        raise invalid("volumes", "volume is in another location")
    if volume["status"] != "available":
        raise ApiError(423, "locked", "volume is locked by a running action")


class Volumes(Resource):
    def __init__(self, fake: FakeHetzner) -> None:
        super().__init__(fake, "volumes")

    def register(self, routes: Routes) -> None:
        super().register(routes)
        routes.add("POST", "/volumes", self.create)
        routes.add("DELETE", "/volumes/{id}", self.delete)
        routes.add("POST", "/volumes/{id}/actions/attach", self.attach)
        routes.add("POST", "/volumes/{id}/actions/detach", self.detach)
        routes.add("POST", "/volumes/{id}/actions/resize", self.resize)
        routes.add("POST", "/volumes/{id}/actions/change_protection", self.protect)

    def create(self, request: Request) -> Answer:
        body = request.body
        server = self.store.get("servers", body["server"]) if "server" in body else None
        place = server["location"] if server else catalog.location(body.get("location"))
        if not place:
            raise invalid("location", "is missing or unknown")
        if not 10 <= body["size"] <= 10240:
            raise invalid("size", "must be between 10 and 10240")
        record = {
            "name": body["name"],
            "server": None,
            "location": place,
            "size": body["size"],
            "linux_device": "",
            "protection": {"delete": False},
            "labels": labels(body),
            "status": "creating",
            "format": body.get("format"),
        }
        made = self.store.add("volumes", record)
        made["linux_device"] = f"/dev/disk/by-id/scsi-0HC_Volume_{made['id']}"
        resources = [("volume", made["id"])]
        action = self.store.begin("create_volume", resources, lambda: made.update(status="available"))
        following = []
        if server:
            following.append(
                self.store.begin(
                    "attach_volume",
                    [*resources, ("server", server["id"])],
                    lambda: made.update(server=server["id"]),
                    after=action,
                )
            )
        return 201, {
            "volume": self.show(made),
            "action": action.show(),
            "next_actions": [item.show() for item in following],
        }

    def delete(self, request: Request, number: str) -> Answer:
        if self.store.get("volumes", number)["server"]:
            raise ApiError(422, "volume_attached", "volume is attached to a server")
        record = self.remove(number)
        self.fake.hardware.delete_volume(record["id"])
        return 204, None

    def attach(self, request: Request, number: str) -> Answer:
        volume, server = self.store.get("volumes", number), self.store.get("servers", request.body["server"])
        check_attachable(volume, server["location"])
        volume["server"] = server["id"]
        return self._done("attach_volume", volume)

    def detach(self, request: Request, number: str) -> Answer:
        volume = self.store.get("volumes", number)
        if not volume["server"]:
            raise ApiError(422, "volume_not_attached", "volume is not attached")
        action = self.store.begin(
            "detach_volume", [("volume", volume["id"])], lambda: volume.update(server=None)
        )
        return 201, {"action": action.show()}

    def resize(self, request: Request, number: str) -> Answer:
        volume = self.store.get("volumes", number)
        if request.body["size"] <= volume["size"]:
            raise invalid("size", "must be larger than before")
        volume["size"] = request.body["size"]
        return self._done("resize_volume", volume)

    def _done(self, command: str, volume: Record) -> Answer:
        return 201, {"action": self.store.begin(command, [("volume", volume["id"])]).show()}
