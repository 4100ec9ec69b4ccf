"""Refusals of files: a line each, with the file, the line, the field, the value and what was expected."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from schemas.units import SHOWN

#: known names are listed up to so many
NAMED = 20


class FileRefused(ValueError):
    """What is wrong with files, a line each: file, line, field, value, what was expected."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


def shown(value: Any) -> str:
    """Return a value as a refusal shows it."""
    return repr(value if isinstance(value, str) else str(value))[:SHOWN]


def expected(field: str, what: str, value: Any) -> str:
    """Return the text of a refusal, behind where it is."""
    return f"{field}: expected {what}, was {shown(value)}"


def unknown(field: str, known: Iterable[str], what: str = "a known field") -> str:
    """Return the refusal of a field that nobody reads, with the nearest known name."""
    names = list(known)
    near = get_close_matches(field.lower(), names, 1)
    hint = f" (the nearest is {near[0]!r})" if near else f" ({', '.join(names)})" if len(names) <= NAMED else ""
    return f"{field}: expected {what}{hint}, was {shown(field)}"
