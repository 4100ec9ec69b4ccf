"""`deskrisk calc`: every number of the system reproduced from a line of JSON, with the kernels of production."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from typing import Any

import app.calc.options
import app.calc.positions
import app.calc.rates
import app.calc.risk  # noqa: F401
from app.calc.line import CALCULATORS, FieldError, Line, plain


def calculate(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return one result with its conventions and the fields that were not used, or an error with the field.

    Raises
    ------
    KeyError
        There is no such calculator.
    """
    line = Line(fields)
    label = {k: fields[k] for k in ("id", "name") if k in fields}
    line.read |= set(label)
    try:
        found = CALCULATORS[name](line)
    except FieldError as error:
        return {"calc": name, **label, "error": {"field": error.field, "value": plain(error.value),
                                                 "expected": error.expected}}
    except (ValueError, ArithmeticError, TypeError, KeyError, IndexError) as error:
        return {"calc": name, **label,
                "error": {"field": None, "value": None, "expected": f"{type(error).__name__}: {error}"}}
    return {"calc": name, **label, **plain(found), "conventions": plain(line.conventions), "unused": line.unread()}


def run_lines(name: str, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield a result for every line that is not empty; a bad line yields an error and costs its neighbours nothing."""
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise ValueError("expected a JSON object")
        except ValueError as error:
            yield {"calc": name, "line": number, "error": {"field": None, "value": text.strip()[:200],
                                                           "expected": f"a JSON object: {error}"}}
            continue
        yield calculate(name, fields)


def describe() -> list[tuple[str, list[str], str]]:
    """Return (name, synonyms, what it does) of every calculator."""
    names: dict[Any, list[str]] = {}
    for name, function in CALCULATORS.items():
        names.setdefault(function, []).append(name)
    return [(n[0], n[1:], inspect.getdoc(f) or "") for f, n in names.items()]
