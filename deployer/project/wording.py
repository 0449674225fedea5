"""pydantic's errors in plain words, each with the file and line it comes from."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from deployer.project.document import Document
from deployer.project.mistakes import Mistakes, Place, did_you_mean

_KINDS = {dict: "a section of keys", list: "a list", str: "a text", bool: "true or false", int: "a number"}


def explain(
    error: ValidationError,
    document: Document,
    schema: Any,
    mistakes: Mistakes,
    *,
    skip: int = 0,
    also: Iterable[str] = (),
) -> None:
    """Add each error of `error` to `mistakes`.

    skip: leading steps of pydantic's place that the file lacks; also: keys at the top that are known besides.
    """
    for detail in error.errors(include_url=False):
        place = tuple(step for step in detail["loc"][skip:] if step != "[key]")
        if mistakes.at(document.mark(place).file, place):
            continue
        if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = fields_at(schema, place[:-1]) + (list(also) if len(place) == 1 else [])
            mistakes.add(document.mark(place), place, "unknown key" + did_you_mean(str(place[-1]), known))
            continue
        mistakes.add(document.mark(place), place, _words(detail, place, document, schema))


def _words(detail: Mapping[str, Any], place: Place, document: Document, schema: Any) -> str:
    kind: str = detail["type"]
    given = detail["input"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    source = "" if _private(place, document) else document.mark(place).source
    written = f'"{source}" ' if source and place in document.marks else ""
    if kind == "missing":
        return "is missing"
    if given is None:
        return "has no value"
    if kind == "value_error":
        return f"{written}{context['error']}"
    if kind in ("int_parsing", "int_type", "int_from_float", "int_parsing_size"):
        return f"{written or _a(given)}is not a whole number".replace("  ", " ")
    if kind in ("float_parsing", "float_type"):
        return f"{written or _a(given)}is not a number"
    if kind in ("bool_parsing", "bool_type"):
        return f"{written or _a(given)}is neither true nor false"
    if kind in ("string_type", "path_type"):
        return f"must be a text, not {_kind(given)}"
    if kind in ("list_type", "tuple_type"):
        return f'must be a list ("- item" lines, or [item, item]), not {_kind(given)}'
    if kind in ("dict_type", "mapping_type", "model_type", "dataclass_type", "model_attributes_type"):
        keys = ", ".join(fields_at(schema, place))
        return f"must be a section of keys{f' ({keys})' if keys else ''}, not {_kind(given)}"
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        words = {"greater_than_equal": "at least", "less_than_equal": "at most", "greater_than": "more than"}
        word = words.get(kind, "less than")
        bound = next(iter(context.values()))
        return f"{written}must be {word} {bound}"
    if kind == "finite_number":
        return f"{written}is not a number"
    if kind == "literal_error":
        expected = context["expected"].replace("'", "")
        near = did_you_mean(str(given), expected.replace(" or ", ", ").split(", "))
        return f"{written}must be one of {expected}" + (near if "mean" in near else "")
    return f"{written}is not valid: {detail['msg']}"


def _private(place: Place, document: Document) -> bool:
    """What must not be repeated on a screen, whatever is wrong with it."""
    return (
        place[-1:] == ("password",)
        or "SECRET" in (source := document.mark(place).source)
        or "PRIVATE" in source
    )


def _kind(given: object) -> str:
    return next((words for cls, words in _KINDS.items() if type(given) is cls), "this")


def _a(given: object) -> str:
    return _kind(given) + " "


def fields_at(schema: Any, place: Place) -> list[str]:
    """The keys that the schema (a model, a dataclass or a container of them) knows at `place`."""
    current = _bare(schema)
    for step in place:
        if isinstance(step, int):
            current = _inside(current)
        elif _is_record(current):
            hints = typing.get_type_hints(current)
            name = next((n for n, alias in _names(current).items() if alias == step), str(step))
            current = _bare(hints.get(name))
        else:
            current = _inside(current)
    return list(_names(current).values()) if _is_record(current) else []


def _names(record: Any) -> dict[str, str]:
    """Field name -> key in the file."""
    if issubclass(record, BaseModel):
        return {name: info.alias or name for name, info in record.model_fields.items()}
    return {item.name: item.name for item in dataclasses.fields(record)}


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))


def _inside(kind: Any) -> Any:
    """What a list, tuple or mapping holds."""
    arguments = [a for a in typing.get_args(kind) if a is not Ellipsis]
    return _bare(arguments[-1]) if arguments else None


def _bare(kind: Any) -> Any:
    """Without Annotated and `| None`."""
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return _bare(next(a for a in typing.get_args(kind) if a is not type(None)))
    return kind
