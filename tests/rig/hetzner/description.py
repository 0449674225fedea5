"""Requests and answers against the vendor's published OpenAPI description (3.0), when it is at hand.

Stricter than the description itself: a property or a parameter that it does not name is a violation too, so that a
misspelt one is found.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS30Validator, oas30_format_checker

CHECKOUT = Path(__file__).resolve().parents[3]
DEFAULT = CHECKOUT.parent / "shared" / "specs" / "hetzner-cloud.spec.json"
METHODS = ("get", "post", "put", "delete")


def path() -> Path:
    return Path(os.environ.get("DEPLOY_HETZNER_SPEC") or DEFAULT)


def why_not() -> str:
    """Why requests and answers cannot be checked here; "" when they can."""
    return (
        "" if path().is_file() else f"no OpenAPI description at {path()} (DEPLOY_HETZNER_SPEC names another)"
    )


@cache
def load() -> Description | None:
    """The description, read once a process; None when there is none."""
    return None if why_not() else Description(json.loads(path().read_text(encoding="utf-8")))


class Operation:
    """One method of one path; its validators are made when they are first used."""

    def __init__(self, data: Mapping[str, Any], parameters: Sequence[Mapping[str, Any]]) -> None:
        self._data = data
        self._query = {item["name"]: item for item in parameters if item["in"] == "query"}
        self._validators: dict[str, OAS30Validator | None] = {}

    def check_request(self, query: Mapping[str, list[str]], body: object) -> list[str]:
        """What is wrong with a request, in words."""
        found = [f"query parameter {name!r} is not described" for name in query if name not in self._query]
        for name, item in self._query.items():
            if name in query:
                found += [f"query parameter {name!r}: {why}" for why in _query_errors(item, query[name])]
            elif item.get("required"):
                found.append(f"query parameter {name!r} is missing")
        content = self._data.get("requestBody")
        if content is None:
            return found if not body else [*found, "a body where none is described"]
        return found + self._errors("request", content, body)

    def check_answer(self, status: int, body: object) -> list[str]:
        """What is wrong with an answer, in words."""
        answers = self._data["responses"]
        answer = answers.get(str(status)) or answers.get(f"{status // 100}xx")
        if answer is None:
            return [f"status {status} is not described"]
        if not answer.get("content"):
            return ["a body where none is described"] if body else []
        return self._errors(str(status), answer, body)

    def _errors(self, key: str, holder: Mapping[str, Any], body: object) -> list[str]:
        if key not in self._validators:
            schema = closed(holder["content"]["application/json"]["schema"])
            self._validators[key] = OAS30Validator(schema, format_checker=oas30_format_checker)
        errors = self._validators[key].iter_errors(body)
        return [f"{key} {error.json_path}: {error.message[:300]}" for error in errors]


class Description:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._operations: list[tuple[str, re.Pattern[str], Operation]] = []
        for template, item in document["paths"].items():
            for method in METHODS:
                if method in item:
                    parameters = [*item.get("parameters", ()), *item[method].get("parameters", ())]
                    operation = Operation(item[method], parameters)
                    self._operations.append((method, _pattern(template, parameters), operation))

    def operation(self, method: str, path: str) -> Operation | None:
        for wanted, pattern, operation in self._operations:
            if wanted == method.lower() and pattern.fullmatch(path):
                return operation
        return None


def _pattern(template: str, parameters: Sequence[Mapping[str, Any]]) -> re.Pattern[str]:
    numbers = {
        item["name"]
        for item in parameters
        if item["in"] == "path" and item["schema"].get("type") == "integer"
    }
    parts = re.split(r"\{(\w+)\}", template)
    names = [r"(\d+)" if name in numbers else r"([^/]+)" for name in parts[1::2]]
    return re.compile("".join(a + b for a, b in zip(map(re.escape, parts[::2]), [*names, ""], strict=True)))


def closed(schema: Any) -> Any:
    """The schema, with every object limited to the properties that it names. `allOf` of objects becomes one object."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    if "allOf" in schema:
        parts = schema.pop("allOf")
        schema.setdefault("type", "object")
        schema["properties"] = {
            key: value for part in parts for key, value in part.get("properties", {}).items()
        }
        schema["required"] = sorted({name for part in parts for name in part.get("required", ())})
    # Examples are for people, and may look like a schema; a discriminator only helps to find the branch of `oneOf`.
    left_out = ("example", "default", "discriminator")
    made = {key: closed(value) for key, value in schema.items() if key not in left_out}
    if "properties" in schema:
        made["properties"] = {name: closed(value) for name, value in schema["properties"].items()}
        made.setdefault("additionalProperties", False)
    return made


def _query_errors(item: Mapping[str, Any], values: list[str]) -> list[str]:
    schema = item["schema"]
    array = schema.get("type") == "array"
    inner = schema["items"] if array else schema
    read = {"integer": _integer, "boolean": {"true": True, "false": False}.get}.get(inner.get("type"), str)
    wanted = [read(value) for value in values]
    validator = OAS30Validator(schema, format_checker=oas30_format_checker)
    return [error.message for error in validator.iter_errors(wanted if array else wanted[-1])]


def _integer(value: str) -> int | str:
    return int(value) if re.fullmatch(r"-?\d+", value) else value
