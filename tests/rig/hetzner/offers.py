"""What can only be read: locations, machine types, images, prices, and the actions of all resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.rig.hetzner import catalog
from tests.rig.hetzner.request import Answer, Request, Routes, paged
from tests.rig.hetzner.store import Record, not_found

if TYPE_CHECKING:
    from tests.rig.hetzner.fake import FakeHetzner


def register(routes: Routes, fake: FakeHetzner) -> None:
    tables: tuple[tuple[str, Sequence[Record]], ...] = (
        ("locations", catalog.LOCATIONS),
        ("server_types", catalog.SERVER_TYPES),
        ("images", catalog.IMAGES),
    )
    for kind, table in tables:
        _reading(routes, kind, table)
    routes.add("GET", "/pricing", lambda request: (200, {"pricing": catalog.pricing()}))

    def one_action(request: Request, number: str) -> Answer:
        action = fake.store.actions.get(int(number))
        if not action:
            raise not_found("action", number)
        return 200, {"action": action.show()}

    def some_actions(request: Request) -> Answer:
        wanted = {int(number) for number in request.query.get("id", ())}
        return 200, {"actions": [item.show() for item in fake.store.actions.values() if item.id in wanted]}

    def of_resource(request: Request, kind: str, number: str) -> Answer:
        record = fake.store.get(kind, number)
        wanted = {"id": record["id"], "type": kind[:-1]}
        found = [item.show() for item in fake.store.actions.values() if wanted in item.resources]
        return paged(request, "actions", found)

    routes.add("GET", "/actions/{id}", one_action)
    routes.add("GET", "/actions", some_actions)
    for kind in fake.store.tables:
        routes.add(
            "GET",
            f"/{kind}/{{id}}/actions",
            lambda request, number, kind=kind: of_resource(request, kind, number),
        )
        routes.add("GET", f"/{kind}/actions/{{id}}", one_action)
        routes.add(
            "GET",
            f"/{kind}/{{id}}/actions/{{action}}",
            lambda request, _, number: one_action(request, number),
        )


def _reading(routes: Routes, kind: str, table: Sequence[Record]) -> None:
    def list_(request: Request) -> Answer:
        found = list(table)
        for key in ("name", "type", "architecture", "status"):
            if key in request.query:
                found = [item for item in found if item[key] in request.query[key]]
        if kind == "images" and request.one("include_deprecated") != "true":
            found = [item for item in found if not item["deprecated"]]
        return paged(request, kind, found)

    def get(request: Request, number: str) -> Answer:
        for item in table:
            if str(item["id"]) == number:
                return 200, {kind[:-1]: item}
        raise not_found(kind[:-1], number)

    routes.add("GET", f"/{kind}", list_)
    routes.add("GET", f"/{kind}/{{id}}", get)
