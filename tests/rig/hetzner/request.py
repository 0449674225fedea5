"""Requests, their way to the function that answers, and what all lists have in common."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.rig.hetzner.store import ApiError, Record, labels, public, selected, taken

if TYPE_CHECKING:
    from tests.rig.hetzner.fake import FakeHetzner

Answer = tuple[int, Record | None]
Function = Callable[..., Answer]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    body: Any

    def one(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[-1]

    def link(self, endpoint: str, answer: Record | None) -> str:
        """The header with the neighbouring pages."""
        pages = ((answer or {}).get("meta") or {}).get("pagination") or {}
        rest = "".join(
            f"&{name}={value}"
            for name, values in self.query.items()
            if name not in ("page", "per_page")
            for value in values
        )
        return ", ".join(
            f'<{endpoint}{self.path}?page={pages[key]}&per_page={pages["per_page"]}{rest}>; rel="{word}"'
            for key, word in (("previous_page", "prev"), ("next_page", "next"), ("last_page", "last"))
            if pages.get(key)
        )


class Routes:
    def __init__(self) -> None:
        self._all: list[tuple[str, re.Pattern[str], Function]] = []

    def add(self, method: str, template: str, function: Function) -> None:
        """template: `/servers/{id}`; what stands for a brace is handed to the function after the request."""
        pattern = re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(template))
        self._all.append((method, re.compile(pattern), function))

    def dispatch(self, request: Request) -> Answer:
        known = False
        for method, pattern, function in self._all:
            if match := pattern.fullmatch(request.path):
                known = True
                if method == request.method:
                    return function(request, *match.groups())
        if known:
            raise ApiError(405, "method_not_allowed", "the request method is not allowed")
        raise ApiError(404, "not_found", f"the rig's vendor has no {request.method} {request.path}")


def paged(request: Request, kind: str, records: Iterable[Record]) -> Answer:
    """One page of a list, sorted as asked."""
    found = list(records)
    for order in reversed(request.query.get("sort", ())):
        key, _, direction = order.partition(":")
        found.sort(key=lambda item: item[key], reverse=direction == "desc")
    page, size = int(request.one("page", "1")), min(50, int(request.one("per_page", "25")))
    last = max(1, -(-len(found) // size))
    pagination = {
        "page": page,
        "per_page": size,
        "previous_page": page - 1 if page > 1 else None,
        "next_page": page + 1 if page < last else None,
        "last_page": last,
        "total_entries": len(found),
    }
    shown = [public(item) for item in found[(page - 1) * size : page * size]]
    return 200, {kind: shown, "meta": {"pagination": pagination}}


class Resource:
    """What all kinds of labelled resources answer alike: list, get, update. `show` makes the answer of a record."""

    def __init__(self, fake: FakeHetzner, kind: str, show: Callable[[Record], Record] = public) -> None:
        self.fake = fake
        self.store = fake.store
        self.kind = kind
        self.singular = kind[:-1]
        self.show = show

    def register(self, routes: Routes) -> None:
        routes.add("GET", f"/{self.kind}", self.list)
        routes.add("GET", f"/{self.kind}/{{id}}", self.get)
        routes.add("PUT", f"/{self.kind}/{{id}}", self.update)

    def list(self, request: Request) -> Answer:
        lag = self.fake.faults.lag.get(self.kind, 0)
        found = [
            item for item in self.store.tables[self.kind].values() if time.monotonic() - item["_made"] >= lag
        ]
        if "name" in request.query:
            found = [item for item in found if item["name"] == request.one("name")]
        for key in ("status", "type", "fingerprint", "ip", "mode"):
            if key in request.query:
                found = [item for item in found if item[key] in request.query[key]]
        if selector := request.one("label_selector"):
            found = [item for item in found if selected(selector, item["labels"])]
        return paged(request, self.kind, map(self.show, found))

    def get(self, request: Request, number: str) -> Answer:
        return 200, {self.singular: self.show(self.store.get(self.kind, number))}

    def update(self, request: Request, number: str) -> Answer:
        record = self.store.get(self.kind, number)
        name = request.body.get("name", record["name"])
        if any(item["name"] == name and item is not record for item in self.store.tables[self.kind].values()):
            raise taken("name", "name is already used")
        record["name"] = name
        if "labels" in request.body:
            record["labels"] = labels(request.body)
        for key in ("auto_delete", "expose_routes_to_vswitch"):
            if key in request.body:
                record[key] = request.body[key]
        return 200, {self.singular: self.show(record)}

    def remove(self, number: str) -> Record:
        """Take it out of the table, unless it is protected. Raises ApiError."""
        record = self.store.get(self.kind, number)
        if record.get("protection", {}).get("delete"):
            raise ApiError(423, "protected", f"{self.singular} deletion is protected")
        del self.store.tables[self.kind][record["id"]]
        return record

    def protect(self, request: Request, number: str) -> Answer:
        """The action `change_protection`."""
        record = self.store.get(self.kind, number)
        record["protection"] |= request.body
        action = self.store.begin("change_protection", [(self.singular, record["id"])])
        return 201, {"action": action.show()}
