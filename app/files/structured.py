"""YAML, JSON and JSON lines as records. Plain YAML is text: only null, ~ and nothing at all are missing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import yaml

from app.files.refusals import FileRefused, shown

NULL = "tag:yaml.org,2002:null"
TEXT, SEQUENCE, MAPPING = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))
#: nodes of a YAML file, those that aliases repeat counted each time
NODES_MAX = 5_000_000


@dataclass
class Row:
    """One record: its line, its fields, and the lines of its fields."""

    line: int
    fields: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)


class _TextLoader(yaml.SafeLoader):
    """A loader that takes 0700, NO, 1_0 and 2027-01-15 for the text that they are."""


_TextLoader.yaml_implicit_resolvers = {}
_TextLoader.add_implicit_resolver(NULL, re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])


def yaml_rows(name: str, text: str, _: bool) -> tuple[list[Row], list[str]]:
    """Return the records of a YAML file, and refusals of what is none.

    Raises
    ------
    FileRefused
        It is no YAML, or no list.
    """
    try:
        tree = yaml.compose(text, _TextLoader)
        if tree is None:
            return [], []
        if not isinstance(tree, yaml.SequenceNode):
            raise FileRefused(f"{name}: expected a list of records, was {_kind(tree)}")
        return _YamlFile(name).records(tree)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = name if mark is None else f"{name}:{mark.line + 1}"
        raise FileRefused(f"{where}: expected YAML, was {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise FileRefused(f"{name}: expected YAML that can be read: lists within lists") from error


def _kind(node: yaml.Node) -> str:
    return "a text" if isinstance(node, yaml.ScalarNode) else "a mapping"


class _YamlFile:
    def __init__(self, name: str) -> None:
        self._name, self._nodes = name, 0

    def records(self, tree: yaml.SequenceNode) -> tuple[list[Row], list[str]]:
        rows, problems = [], []
        for node in tree.value:
            try:
                rows.append(self._record(node))
            except FileRefused as error:
                problems += error.problems
        return rows, problems

    def _record(self, node: yaml.Node) -> Row:
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            said = node.value if isinstance(node, yaml.ScalarNode) else "a list"
            raise FileRefused(f"{self._name}:{line}: expected a record of fields with names, was {shown(said)}")
        lines = {key.value: key.start_mark.line + 1 for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
        return Row(line, self._value(node), lines)

    def _value(self, node: yaml.Node) -> Any:
        self._nodes += 1
        where = f"{self._name}:{node.start_mark.line + 1}"
        if self._nodes > NODES_MAX:
            raise FileRefused(f"{where}: expected at most {NODES_MAX} values, aliases counted each time")
        if node.tag not in (NULL, TEXT, SEQUENCE, MAPPING):
            raise FileRefused(f"{where}: expected plain values, was the tag {shown(node.tag)}")
        if isinstance(node, yaml.ScalarNode):
            return None if node.tag == NULL else node.value.strip() or None
        if isinstance(node, yaml.SequenceNode):
            return [self._value(n) for n in node.value]
        out: dict[str, Any] = {}
        for key, value in node.value:
            at = f"{self._name}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag != TEXT:
                raise FileRefused(f"{at}: expected a record of fields with names, was {shown(key.value)}")
            if key.value in out:
                raise FileRefused(f"{at}: {key.value}: expected each field once, was there twice")
            out[key.value] = self._value(value)
        return out


def json_rows(name: str, text: str, lines: bool) -> tuple[list[Row], list[str]]:
    """Return the records of JSON lines, or of a JSON list of records; numbers are exact, NaN is missing.

    Raises
    ------
    FileRefused
        It is no JSON, or no list.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for number, document in enumerate(text.split("\n") if lines else [text], start=1):
        if lines and not document.strip():
            continue
        try:
            found = json.loads(document, parse_float=_exact, parse_constant=_constant, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            where = number if lines else getattr(error, "lineno", 1)
            problems.append(f"{name}:{where}: expected JSON that can be read: {error}")
            continue
        if not lines and not isinstance(found, list):
            raise FileRefused(f"{name}: expected a list of records, was {type(found).__name__}")
        for k, record in enumerate([found] if lines else found, start=1):
            place = number if lines else k
            if isinstance(record, dict):
                rows.append(Row(place, {n: _stripped(v) for n, v in record.items()}))
            else:
                at = f"{name}:{place}" if lines else f"{name}[{place}]"
                problems.append(f"{at}: expected a record of fields with names, was {shown(record)}")
    return rows, problems


def _exact(text: str) -> Decimal:
    return Decimal(text)


def _constant(text: str) -> None:
    if text != "NaN":
        raise ValueError(f"{text} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [k for k, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)}: expected each field once, was there twice")
    return out


def _stripped(value: Any) -> Any:
    return value.strip() or None if isinstance(value, str) else value
