"""One YAML file as plain data that remembers where each value stands.

Every scalar stays the text that was written: what becomes a number or true/false is decided by the schema,
so a password of `0123` or a time of `04:00` never turns into something else. `settle` gives the few parts
without a schema (a provider's options, an app's settings) the types that YAML 1.2's core schema says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deployer.project.mistakes import Mark, Mistakes, Place

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_STANDARD_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)\Z")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+\Z")
# What parsers call a mistake, in the operator's words.
_SYNTAX = {
    "mapping values are not allowed in this context": (
        'a ": " where none may stand; put the text in quotes, or check the indentation'
    ),
    "found character that cannot start any token": (
        "a character that may not start a value (a tab, @ or `); use spaces, or put the text in quotes"
    ),
    "did not find expected key": (
        "the indentation does not fit the lines above, or a quote or bracket is not closed"
    ),
    "did not find expected '-' indicator": "the indentation of this list does not fit the lines above",
    "could not find expected ':'": 'a key without ": " behind it',
    "found unexpected end of stream": "a quote or bracket is not closed",
    "did not find expected node content": "a value or a closing bracket is missing",
    "found undefined tag handle": 'a tag ("!...") is not allowed',
    "but found another document": "a second document begins here; write one only",
}


@dataclass
class Document:
    """The data of one file: dict, list, text and None. marks: where each path stands."""

    file: str
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    marks: dict[Place, Mark] = field(default_factory=dict, repr=False)

    def mark(self, place: Place) -> Mark:
        """Where `place` stands, or the nearest thing around it that is written down."""
        while place and place not in self.marks:
            place = place[:-1]
        return self.marks.get(place) or Mark(self.file, 1)

    def settle(self, place: Place) -> Any:
        """The value at `place`, with unquoted true/false and decimal numbers turned into such."""
        value: Any = self.data
        for step in place:
            value = value[step]
        return self._settled(value, place)

    def _settled(self, value: Any, place: Place) -> Any:
        if isinstance(value, dict):
            return {key: self._settled(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._settled(item, (*place, index)) for index, item in enumerate(value)]
        if value is None or not self.mark(place).plain:
            return value
        if value in ("true", "True", "TRUE", "false", "False", "FALSE"):
            return value.lower() == "true"
        if _INTEGER.match(value):
            return int(value)
        return float(value) if _DECIMAL.match(value) else value

    def override(self, key: str, other: Document) -> None:
        """Lay the section `key` of `other` over ours, key by key; places keep the file they come from."""
        theirs = other.data.get(key)
        if theirs is None:
            return
        ours = self.data.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            self.data[key] = {**ours, **theirs}
            replaced: set[Place] = {(key, name) for name in theirs}
        else:
            self.data[key] = theirs
            replaced = {(key,)}
        for place in [p for p in self.marks if p[:1] in replaced or p[:2] in replaced]:
            del self.marks[place]
        for place, mark in other.marks.items():
            if place[:1] == (key,) and (len(place) > 1 or place not in self.marks):
                self.marks[place] = mark


def read(
    path: Path, label: str, mistakes: Mistakes, environment: Mapping[str, str] | None
) -> Document | None:
    """Read `path`; None after a mistake that leaves nothing to check.

    label:       how the file is called in messages
    environment: where ${NAME} is looked up; None leaves it as it stands (an app's manifest holds shell text)
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        mistakes.add(Mark(label, line), "", "not UTF-8 text")
        return None
    except OSError as error:
        mistakes.add(Mark(label, 0), "", f"cannot be read: {error.strerror}")
        return None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be understood"
        why = next((words for known, words in _SYNTAX.items() if known in problem), problem)
        mistakes.add(Mark(label, at.line + 1 if at else 1), "", f"not valid YAML: {why}")
        return None
    except yaml.YAMLError as error:
        mistakes.add(Mark(label, 1), "", f"not valid YAML: {str(error).splitlines()[0]}")
        return None
    document = Document(label)
    document.marks[()] = Mark(label, 1)
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _STANDARD_TAG + "null"):
        return document
    if not isinstance(node, yaml.MappingNode):
        mistakes.add(Mark(label, node.start_mark.line + 1), "", 'must hold keys and values ("name: demo")')
        return None
    document.data = _Reader(document, mistakes, environment).value(node, ())
    return document


class _Reader:
    """Turns the nodes of one file into data."""

    def __init__(self, document: Document, mistakes: Mistakes, environment: Mapping[str, str] | None) -> None:
        self.document = document
        self.mistakes = mistakes
        self.environment = environment
        self.open: list[int] = []

    def value(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        mark = self.document.marks.setdefault(place, Mark(self.document.file, line))
        if id(node) in self.open:
            self.mistakes.add(mark, place, "an alias (*name) that holds itself")
            return None
        if not node.tag.startswith(_STANDARD_TAG):
            self.mistakes.add(mark, place, f'a tag ("{node.tag}") is not allowed')
        self.open.append(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.ScalarNode)
            return self._scalar(node, place, mark)
        finally:
            self.open.pop()

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.mistakes.add(Mark(self.document.file, line), place, "a key must be a plain word")
                continue
            key: str = key_node.value
            here = (*place, key)
            if key in found:
                first = self.document.marks[here].line
                self.mistakes.add(
                    Mark(self.document.file, line), here, f"written twice (first in line {first}); keep one"
                )
                continue
            self.document.marks[here] = Mark(self.document.file, line)
            found[key] = self.value(value_node, here)
        return found

    def _scalar(self, node: yaml.ScalarNode, place: Place, mark: Mark) -> str | None:
        text: str = node.value
        plain = not node.style
        if plain and node.tag == _STANDARD_TAG + "null":
            return None
        expanded = text if self.environment is None else self._expand(text, place, mark)
        self.document.marks[place] = Mark(mark.file, mark.line, text, plain and expanded == text)
        return expanded

    def _expand(self, text: str, place: Place, mark: Mark) -> str:
        environment = self.environment or {}

        def replace(match: re.Match[str]) -> str:
            name = match.group(1)
            if name is None:
                return "${"
            if not _NAME.match(name):
                self.mistakes.add(
                    mark,
                    place,
                    f'"${{{name}}}" is not the name of an environment variable; '
                    'write "$${" where "${" is meant',
                )
            elif not environment.get(name):
                state = "empty" if name in environment else "not set"
                self.mistakes.add(mark, place, f"the environment variable {name} is {state}")
            # One mistake is enough: what is missing does not count as an empty value too.
            return environment.get(name) or match.group()

        return _VARIABLE.sub(replace, text) if "${" in text else text
