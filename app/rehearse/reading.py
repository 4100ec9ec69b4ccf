"""YAML as scenarios are written in: text stays text, numbers are JSON's, every value knows its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

#: numbers as JSON has them: 0700, 1_000, 0x10, 12:30 and .5 are text, and so are no, on and dates
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)$")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$")
_WORDS: dict[str, Any] = {"null": None, "true": True, "false": False, "": None, "~": None}


class ScenarioError(ValueError):
    """A scenario that cannot be run as it is written: file, line and why."""

    def __init__(self, file: str, line: int, why: str) -> None:
        super().__init__(f"{file}:{line}: {why}")
        self.file, self.line, self.why = file, line, why


class Mapping(dict[str, Any]):
    """A mapping with the line it begins at, and those of its keys."""

    line: int = 0
    lines: dict[str, int]

    def line_of(self, key: str) -> int:
        """Return the line of a key."""
        return self.lines.get(key, self.line)


def documents(path: Path) -> list[Mapping]:
    """Return the documents of a file.

    Raises
    ------
    ScenarioError
        The file cannot be read, is no YAML, or a document is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(str(path), 1, f"cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, file: str) -> list[Mapping]:
    """Return the documents of a text; see `documents`."""
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
        found = [_build(node, file) for node in nodes]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ScenarioError(file, mark.line + 1 if mark else 1, f"no YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ScenarioError(file, 1, f"no YAML: {error}") from error
    for node, value in zip(nodes, found, strict=True):
        if not isinstance(value, Mapping):
            raise ScenarioError(file, node.start_mark.line + 1, "expected a mapping with name and steps")
    return found


def _build(node: yaml.Node, file: str) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_build(n, file) for n in node.value]
    made = Mapping()
    made.line, made.lines = line, {}
    for key, value in node.value:
        where = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ScenarioError(file, where, "expected a word as key")
        if key.value in made:
            raise ScenarioError(file, where, f"{key.value}: appears twice")
        made[key.value], made.lines[key.value] = _build(value, file), where
    return made


def _scalar(node: yaml.ScalarNode) -> Any:
    text = node.value
    if node.style is not None:  # quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.match(text):
        return int(text)
    return float(text) if _NUMBER.match(text) else text
